"""Workflow files without ComfyUI: the same nodes, run one after the other.

A workflow is somebody else's file. It is checked as a whole before anything runs; its file names stay inside the input
and output folders; nothing in it is evaluated or downloaded.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .core import CORE
from .engine import InputError, room
from .extension import NODES
from .host import Host, running
from .schema import Input, Schema

Prompt = dict[str, dict[str, Any]]
CLASSES = {cls.GET_SCHEMA().node_id: cls for cls in (*NODES, *CORE)}
SHIPPED = Path(__file__).resolve().parents[1] / "workflows" / "api"
KINDS = {"INT": int, "FLOAT": (int, float), "BOOLEAN": bool, "STRING": str, "COMBO": str}
"""Types of inputs that have a widget, and what their values are in JSON."""
MAX_BYTES, MAX_NODES = 8 << 20, 1000
FILE_INPUTS = ("image_upload", "audio_upload", "video_upload")


def run_workflow(
    workflow: str | os.PathLike | Prompt,
    overrides: dict[str, Any] | None = None,
    out_dir: str | os.PathLike = ".",
    *,
    input_dir: str | os.PathLike | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    notice: Callable[[str], None] | None = None,
) -> list[Path]:
    """Run a workflow in ComfyUI's API format.

    Args:
        workflow: a file, the name of a shipped workflow such as "basic", or its content.
        overrides: input -> value, where an input is named "audio" (if one node alone has it), "5.audio" (by the node's
            number) or "Load Speech.audio" (by its title). Files given here may lie anywhere.
        out_dir: where results go; it exists.
        input_dir: where the file names inside the workflow are looked up; default the workflow file's folder.
        progress: progress(title of the node, done, total); may raise to cancel.
        notice: called with sentences the user should see.

    Returns:
        The files written, in order.

    Raises:
        InputError: anything wrong with the workflow, named with its node and input, or with a file it uses.
    """
    prompt, folder = load_workflow(workflow)
    host = Host(Path(input_dir) if input_dir is not None else folder, Path(out_dir), progress)
    if not host.outputs.is_dir():
        raise InputError(f"the output folder {out_dir} does not exist; create it or choose another")
    token = running.set(host)
    try:
        prompt = overridden(prompt, overrides or {}, host)
        order = validated(prompt)
        import torch

        with torch.inference_mode():
            _execute(prompt, order, host)
    finally:
        running.reset(token)
        host.close()
        for sentence in dict.fromkeys(host.notices):
            if notice is not None:
                notice(sentence)
    return host.saved


def shipped_workflows() -> list[str]:
    """Names that `run_workflow` knows without a file."""
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def load_workflow(workflow: str | os.PathLike | Prompt) -> tuple[Prompt, Path | None]:
    """The content of a workflow, and the folder it came from.

    Raises:
        InputError: not a workflow in API format.
    """
    if isinstance(workflow, dict):
        return _prompt(workflow, "the workflow"), None
    path = Path(workflow)
    if path.suffix == "" and str(workflow) in shipped_workflows():
        path = SHIPPED / f"{workflow}.json"
    with room("io.files").open_input(path, "workflow") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(f"the workflow {path} has more than {MAX_BYTES >> 20} MB; it is not a workflow")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the workflow {path} is not JSON ({type(error).__name__}); export it again") from error
    return _prompt(content, f"the workflow {path}"), path.resolve().parent


def _prompt(content: Any, what: str) -> Prompt:
    content = content.get("prompt", content) if isinstance(content, dict) else content
    if isinstance(content, dict) and isinstance(content.get("nodes"), list):
        raise InputError(
            f"{what} is in the editor's format; in ComfyUI choose Workflow > Export (API), and run that file"
        )
    sound = isinstance(content, dict) and all(
        isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)
        for node in content.values()
    )
    if not sound or not content:
        raise InputError(f"{what} is not a workflow in ComfyUI's API format: expected nodes with class_type and inputs")
    if len(content) > MAX_NODES:
        raise InputError(f"{what} has {len(content)} nodes, at most {MAX_NODES} are run")
    return {str(name): node for name, node in content.items()}


def overridden(prompt: Prompt, overrides: dict[str, Any], host: Host) -> Prompt:
    """The workflow with some inputs replaced.

    Raises:
        InputError: no such input, or several nodes have it.
    """
    prompt = {name: {**node, "inputs": dict(node["inputs"])} for name, node in prompt.items()}
    for where, value in overrides.items():
        node, _, key = where.rpartition(".")
        known = [name for name in prompt if node in ("", name, title_of(prompt, name))]
        found = [name for name in known if key in _widgets(prompt, name)]
        if len(found) != 1:
            many = ", ".join(f"{name}.{key}" for name in found)
            choice = sorted({one for name in prompt for one in _widgets(prompt, name)})
            raise InputError(
                f"{where}: several nodes have this input, say which: {many}"
                if found
                else f"{where}: no node of the workflow has this input; it has {', '.join(choice)}"
            )
        wanted = _widgets(prompt, found[0])[key]
        prompt[found[0]]["inputs"][key] = _granted(value, wanted, host)
    return prompt


def _widgets(prompt: Prompt, name: str) -> dict[str, Input]:
    """The inputs of a node that take a value rather than a link."""
    schema = _schema(prompt, name)
    return {one.id: one for one in schema.inputs if one.io_type in KINDS} if schema else {}


def _granted(value: Any, wanted: Input, host: Host) -> Any:
    """The value in the input's own type; a file or model that the user named is allowed wherever it lies."""
    is_file = any(wanted.as_dict().get(mark) for mark in FILE_INPUTS) or wanted.id == "motion_file"
    if is_file or (wanted.id == "model" and wanted.io_type == "COMBO"):
        if str(value) not in wanted.settings.get("options", ()):
            host.granted[str(value)] = Path(value)
        return str(value)
    if not isinstance(value, str):
        return value
    try:
        kind = {"INT": int, "FLOAT": float, "BOOLEAN": lambda text: {"true": True, "false": False}[text.lower()]}
        return kind.get(wanted.io_type, str)(value)
    except (ValueError, KeyError) as error:
        raise InputError(f"{wanted.id}: expected {wanted.io_type}, got {value!r}") from error


def title_of(prompt: Prompt, name: str) -> str:
    """What a node is called in the editor."""
    meta = prompt[name].get("_meta")
    schema = _schema(prompt, name)
    given = meta.get("title") if isinstance(meta, dict) else None
    return str(given or (schema.display_name if schema else prompt[name]["class_type"]))


def _schema(prompt: Prompt, name: str) -> Schema | None:
    cls = CLASSES.get(prompt[name]["class_type"])
    return cls.GET_SCHEMA() if cls else None


def validated(prompt: Prompt) -> list[str]:
    """Check a workflow as a whole.

    Returns:
        The nodes that results need, in an order in which every node follows what it needs.

    Raises:
        InputError: unknown nodes, missing inputs or links, wrong types, values out of range, cycles, no result.
    """
    for name in prompt:
        if _schema(prompt, name) is None:
            known = ", ".join(sorted(CLASSES))
            raise InputError(
                f"node {name}: {prompt[name]['class_type']!r} is not among the nodes that run without ComfyUI ({known})"
            )
    ends = [name for name in prompt if _schema(prompt, name).is_output_node]
    if not ends:
        raise InputError("the workflow has no node that makes a result, such as Save Video; add one")
    order = _in_order(prompt, ends)
    for name in order:
        _check_inputs(prompt, name)
    return order


def _in_order(prompt: Prompt, ends: list[str]) -> list[str]:
    """Depth first without recursion: a workflow may be deep on purpose."""
    order: list[str] = []
    state: dict[str, str] = {}
    stack = [(name, False) for name in reversed(ends)]
    while stack:
        name, is_done = stack.pop()
        if is_done:
            state[name] = "done"
            order.append(name)
            continue
        if state.get(name) == "done":
            continue
        if state.get(name) == "open":
            raise InputError(f"node {name} ({title_of(prompt, name)}) needs its own result: the links form a circle")
        state[name] = "open"
        stack.append((name, True))
        for key, value in prompt[name]["inputs"].items():
            if is_link(value):
                if value[0] not in prompt:
                    raise InputError(f"{_where(prompt, name, key)}: linked to node {value[0]}, which does not exist")
                if state.get(value[0]) != "done":
                    stack.append((value[0], False))
    return order


def is_link(value: Any) -> bool:
    """Whether an input's value is [node, index of its output]."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def _where(prompt: Prompt, name: str, key: str) -> str:
    return f"node {name} ({title_of(prompt, name)}), input {key}"


def _check_inputs(prompt: Prompt, name: str) -> None:
    schema, given = _schema(prompt, name), prompt[name]["inputs"]
    for one in schema.inputs:
        where = _where(prompt, name, one.id)
        if one.id not in given:
            if not one.optional and "default" not in one.settings:
                raise InputError(f"{where}: nothing is connected or chosen; it is required")
        elif is_link(given[one.id]):
            source, index = given[one.id]
            outputs = _schema(prompt, source).outputs
            if not 0 <= index < len(outputs):
                raise InputError(f"{where}: node {source} has no output {index}")
            if "*" not in (outputs[index].io_type, one.io_type) and outputs[index].io_type != one.io_type:
                raise InputError(f"{where}: expected {one.io_type}, node {source} gives {outputs[index].io_type}")
        else:
            _check_value(given[one.id], one, where, CLASSES[prompt[name]["class_type"]])


def _check_value(value: Any, wanted: Input, where: str, cls: type) -> None:
    if wanted.io_type not in KINDS:
        raise InputError(f"{where}: expected a link to {wanted.io_type}, got {value!r}")
    is_truth = isinstance(value, bool) and wanted.io_type != "BOOLEAN"
    if is_truth or not isinstance(value, KINDS[wanted.io_type]):
        raise InputError(f"{where}: expected {wanted.io_type}, got {value!r}")
    if wanted.io_type in ("INT", "FLOAT"):
        low, high = wanted.settings.get("min", -math.inf), wanted.settings.get("max", math.inf)
        if not low <= value <= high:
            raise InputError(f"{where}: expected a number between {low} and {high}, got {value}")
    checks = getattr(cls, "validate_inputs", None)
    is_checked = checks is not None and wanted.id in checks.__code__.co_varnames
    if is_checked:
        if (answer := checks(**{wanted.id: value})) is not True:
            raise InputError(f"{where}: {answer}")
    elif wanted.io_type == "COMBO" and value not in wanted.settings["options"]:
        raise InputError(f"{where}: expected one of {', '.join(wanted.settings['options'])}, got {value!r}")


def _execute(prompt: Prompt, order: list[str], host: Host) -> None:
    results: dict[str, list[list[Any]]] = {}
    last_use = {value[0]: name for name in order for value in prompt[name]["inputs"].values() if is_link(value)}
    for name in order:
        host.title = title_of(prompt, name)
        try:
            results[name] = _outputs(prompt, name, results)
        except InputError as error:
            raise InputError(f"node {name} ({host.title}): {error}") from error
        for used in [source for source, user in last_use.items() if user == name]:
            del results[used]


def _outputs(prompt: Prompt, name: str, results: dict[str, list[list[Any]]]) -> list[list[Any]]:
    """Run a node once for each item of its lists, as ComfyUI does; every output is a list of values."""
    cls, schema = CLASSES[prompt[name]["class_type"]], _schema(prompt, name)
    lists: dict[str, list[Any]] = {}
    for one in schema.inputs:
        value = prompt[name]["inputs"].get(one.id, one.settings.get("default"))
        if is_link(value):
            lists[one.id] = results[value[0]][value[1]]
        elif one.id in prompt[name]["inputs"] or value is not None:
            lists[one.id] = [value]
    node = type(cls.__name__, (cls,), {"hidden": SimpleNamespace(prompt=prompt, extra_pnginfo=None, unique_id=name)})
    if schema.is_input_list:
        answers = [node.execute(**lists)]
    else:
        count = max((len(values) for values in lists.values()), default=1)
        if any(not values for values in lists.values()):
            count = 0
        calls = [{key: values[min(i, len(values) - 1)] for key, values in lists.items()} for i in range(count)]
        answers = [node.execute(**call) for call in calls]
    outputs: list[list[Any]] = []
    for index, output in enumerate(schema.outputs):
        values = [answer[index] for answer in answers]
        outputs.append([item for value in values for item in value] if output.is_output_list else values)
    return outputs
