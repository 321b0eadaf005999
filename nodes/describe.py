"""What the nodes say about themselves, for files that are made from it: `python -m vasa.nodes.describe`.

Writes `locales/en/nodeDefs.json` and the golden `tests/data/object_info.json`; tests keep both fresh.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .core import CORE
from .extension import NODES
from .schema import Schema

ROOT = Path(__file__).resolve().parents[1]
LOCALE = ROOT / "locales" / "en" / "nodeDefs.json"
GOLDEN = ROOT / "tests" / "data" / "object_info.json"


def schemas() -> dict[str, Schema]:
    """The schema of each of our nodes."""
    return {schema.node_id: schema for schema in (cls.GET_SCHEMA() for cls in NODES)}


def texts() -> dict[str, Any]:
    """Every text of the nodes, in the form of ComfyUI's locale files."""
    return {name.replace(".", "_"): _texts_of(schema) for name, schema in schemas().items()}


def _texts_of(schema: Schema) -> dict[str, Any]:
    said = {"display_name": schema.display_name, "description": schema.description}
    inputs = {one.id: {"name": one.id, "tooltip": one.settings["tooltip"]} for one in schema.inputs}
    outputs = {str(i): {"name": one.id, "tooltip": one.tooltip} for i, one in enumerate(schema.outputs)}
    return said | ({"inputs": inputs} if inputs else {}) | ({"outputs": outputs} if outputs else {})


def object_info() -> dict[str, Any]:
    """Our nodes as `/object_info` shows them, without what depends on the machine: lists of files and models."""
    info = {cls.GET_SCHEMA().node_id: cls.GET_NODE_INFO_V1() for cls in NODES}
    return {name: without_lists(node) for name, node in sorted(info.items())}


def without_lists(node: dict[str, Any]) -> dict[str, Any]:
    """A node without the options of its file and model choices, and without what only a server adds."""
    node = json.loads(json.dumps(node))
    for inputs in node["input"].values():
        for name, one in inputs.items():
            is_file = len(one) > 1 and any(key.endswith("_upload") for key in one[1])
            if is_file or (one[0] == "COMBO" and name in ("model", "motion_file")):
                one[1].pop("options", None)
    return {key: node[key] for key in KEPT}


KEPT = (
    "input", "input_order", "is_input_list", "output", "output_is_list", "output_name", "output_tooltips", "name",
    "display_name", "description", "category", "output_node", "search_aliases",
)  # fmt: skip


def core_info() -> dict[str, Any]:
    """Our nodes and ComfyUI's that we adapt, complete, for validators that need every node of a workflow."""
    return {cls.GET_SCHEMA().node_id: cls.GET_NODE_INFO_V1() for cls in (*NODES, *CORE)}


def write() -> None:
    """Write both files anew."""
    for path, content in ((LOCALE, texts()), (GOLDEN, object_info())):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
