"""The tab "Workflows": files for the ComfyUI nodes, run here with other inputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from ..errors import InputError
from .animate_tab import EXAMPLES
from .api import GPU
from .background import watched
from .hints import hinted, told
from .inputs import picture_input, speech_input
from .performance import Status
from .studio import Stopped, Studio
from .words import TROUBLE, sentence, status_html

OWN = "(the file below)"
FILE_INPUTS = {"portrait": ("portrait", "image"), "speech": ("audio",), "video": ("video",)}
"""What a file box may feed, by the names of the nodes' inputs."""


def build_workflow_tab(studio: Studio) -> None:
    """Lay out the tab; the nodes are imported when they are first needed."""
    try:
        from ..nodes.headless import shipped_workflows
    except ImportError:
        gr.Markdown("Workflows come with the repository; this installation does not contain the nodes.")
        return
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=280):
            names = [*shipped_workflows(), OWN]
            name = gr.Dropdown(
                names, value=names[0], label="Workflow", info="The same files run in ComfyUI.", elem_id="workflow"
            )
            own = gr.File(label="Workflow in API format (.json)", type="filepath", file_types=[".json"], height=140)
            told(own, "own-workflow")
            more = gr.Code(
                "{}", language="json", lines=3, label='Other inputs, e.g. {"seed": 3}',
                elem_id="overrides",
            )  # fmt: skip
            told(more, "overrides")
        with gr.Column(scale=1, min_width=280):
            portrait = picture_input(label="Portrait", height=200, sources=["upload"])
            speech = speech_input()
            video = gr.File(label="Driving video", type="filepath", file_types=["video"], height=140)
            told(video, "driver")
        with gr.Column(scale=1, min_width=320):
            with gr.Row():
                go = hinted(gr.Button("Run", variant="primary", scale=2, elem_id="run-workflow"), "run")
                stop = hinted(gr.Button("Stop", scale=1, min_width=80), "end")
            status = gr.HTML(status_html(Status("Choose a workflow.")), elem_classes="vasa-status")
            files = gr.Files(label="Results", interactive=False, elem_id="results")
            with gr.Accordion("What the workflow does", open=False):
                steps = hinted(gr.JSON(label="Nodes"), "nodes")
    hinted(files, "results")

    def show(name: str, own: str | None) -> Any:
        try:
            return _nodes(_workflow(name, own))
        except InputError as error:
            return {"problem": sentence(error)}

    def check(
        name: str, own: str | None, portrait: str | None, speech: str | None, video: str | None, more: str
    ) -> list:
        answers = [gr.validate(True, "")] * len(inputs)
        if name == OWN and not own:
            answers[1] = gr.validate(False, "Give a workflow file, or choose one of ours.")
        try:
            _overrides(more)
        except InputError as error:
            answers[5] = gr.validate(False, sentence(error))
        return answers

    def run(
        name: str,
        own: str | None,
        portrait: str | None,
        speech: str | None,
        video: str | None,
        more: str,
        request: gr.Request,
    ) -> Iterator[tuple]:
        user = request.session_hash
        job, folder = studio.begin(user), studio.folder(user)
        notices: list[str] = []

        def work(progress: Any) -> list[Path]:
            from ..nodes.headless import run_workflow

            workflow = replaced(_workflow(name, own), _overrides(more))
            files = files_for(workflow, {"portrait": portrait, "speech": speech, "video": video})
            return run_workflow(workflow, files, folder, input_dir=EXAMPLES, progress=progress, notice=notices.append)

        try:
            for result in watched(job, work):
                if isinstance(result, Status):
                    yield status_html(result), gr.skip()
                else:
                    done = Status(f"Done: {len(result)} file{'s' * (len(result) != 1)}.", 1.0, notices=tuple(notices))
                    yield status_html(done), [str(path) for path in result]
        except Stopped:
            yield status_html(Status("Stopped.")), gr.skip()
        except TROUBLE as error:
            yield status_html(Status(sentence(error), problem=True)), gr.skip()
        finally:
            studio.end(user, job)

    def halt(request: gr.Request) -> None:
        studio.stop(request.session_hash)

    inputs = [name, own, portrait, speech, video, more]
    for widget in (name, own):
        widget.change(show, [name, own], steps, show_progress="hidden", api_visibility="private")
    go.click(
        run, inputs, [status, files], validator=check, concurrency_id=GPU, concurrency_limit=1, show_progress="hidden",
        api_visibility="private",
    )  # fmt: skip
    stop.click(halt, None, None, queue=False, show_progress="hidden", api_visibility="private")


def _workflow(name: str, own: str | None) -> dict[str, Any]:
    """The content of a shipped or an uploaded workflow; a name from the page never becomes a path."""
    from ..nodes.headless import load_workflow, shipped_workflows

    if name != OWN and name not in shipped_workflows():
        raise InputError(f"there is no workflow {str(name)[:40]!r}; choose one of the list")
    return load_workflow(own if name == OWN else name)[0]


def _overrides(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text or "{}")
    except ValueError as error:
        raise InputError(f'the other inputs are no JSON ({error}); write e.g. {{"seed": 3}}') from error
    plain = isinstance(values, dict) and all(isinstance(v, str | int | float | bool) for v in values.values())
    if not plain:
        raise InputError('the other inputs must be names and plain values, e.g. {"seed": 3}')
    return values


def replaced(workflow: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A workflow with some plain inputs replaced, named "seed" or "5.seed".

    Put into the workflow itself, not given as overrides, which may name files anywhere: what comes from a page stays
    inside the workflow's own folders.

    Raises:
        InputError: no such input, or several nodes have it.
    """
    workflow = {number: {**node, "inputs": dict(node["inputs"])} for number, node in workflow.items()}
    for where, value in values.items():
        number, _, key = where.rpartition(".")
        has = [n for n, node in workflow.items() if key in node["inputs"] and not isinstance(node["inputs"][key], list)]
        found = [n for n in has if number in ("", n)]
        if len(found) != 1:
            many = ", ".join(f"{n}.{key}" for n in has)
            raise InputError(f"{where}: {f'say which: {many}' if many else 'no node of the workflow has this input'}")
        workflow[found[0]]["inputs"][key] = value
    return workflow


def files_for(workflow: dict[str, Any], given: dict[str, str | None]) -> dict[str, str]:
    """Overrides that put the page's files into the first nodes that load a portrait, speech or a video.

    Raises:
        InputError: a file for which the workflow has no use.
    """
    found = {}
    for what, path in given.items():
        if not path:
            continue
        loading = [
            f"{number}.{key}"
            for number, node in workflow.items()
            for key in FILE_INPUTS[what]
            if isinstance(node["inputs"].get(key), str)
        ]
        if not loading:
            raise InputError(f"this workflow loads no {what}; clear that box")
        found[loading[0]] = path
    return found


def _nodes(workflow: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of a workflow: every node's class and its plain inputs."""
    return {
        f"{number}: {node['class_type']}": {k: v for k, v in node["inputs"].items() if not isinstance(v, list)}
        for number, node in workflow.items()
    }
