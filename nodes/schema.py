"""As much of ComfyUI's V3 node interface as our nodes use: the same names, the same `object_info`, none of its code.

It describes nodes where ComfyUI is absent. The server tests compare what it says with what the real server says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from types import SimpleNamespace
from typing import Any


class FolderType(str, Enum):
    input, output, temp = "input", "output", "temp"


class UploadType(str, Enum):
    image, audio, video = "image_upload", "audio_upload", "video_upload"


class NumberDisplay(str, Enum):
    number, slider = "number", "slider"


class Hidden(str, Enum):
    unique_id, prompt, extra_pnginfo = "UNIQUE_ID", "PROMPT", "EXTRA_PNGINFO"


@dataclass(frozen=True)
class Input:
    """One input of a node: a socket, or a widget with a default and a range."""

    id: str
    io_type: str
    optional: bool
    settings: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The settings as `object_info` spells them."""
        said = {name: value for name, value in self.settings.items() if value is not None}
        if (display := said.pop("display_mode", None)) is not None:
            said["display"] = display.value
        if (upload := said.pop("upload", None)) is not None:
            said[upload.value] = True
        if (folder := said.pop("image_folder", None)) is not None:
            said["image_folder"] = folder.value
        if self.io_type == "COMBO":
            said.setdefault("multiselect", False)
        if self.io_type == "STRING":
            said.setdefault("multiline", False)
        return said


@dataclass(frozen=True)
class Output:
    """One output of a node."""

    io_type: str
    id: str | None = None
    display_name: str | None = None
    tooltip: str | None = None
    is_output_list: bool = False


@dataclass(frozen=True)
class SocketType:
    """What `io.Image`, `io.Float`, `io.Custom("X")` are: makers of inputs and outputs of one type."""

    io_type: str

    def Input(self, id: str, *, optional: bool = False, **settings: Any) -> Input:  # noqa: N802
        return Input(id, self.io_type, optional, settings)

    def Output(self, id: str | None = None, **settings: Any) -> Output:  # noqa: N802
        return Output(self.io_type, id, **settings)


@dataclass
class Schema:
    """Definition of a node."""

    node_id: str
    display_name: str
    category: str
    description: str = ""
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)
    search_aliases: list[str] = field(default_factory=list)
    is_output_node: bool = False
    is_input_list: bool = False

    def input(self, name: str) -> Input | None:
        """The input of that id."""
        return next((one for one in self.inputs if one.id == name), None)


class NodeOutput:
    """What `execute` returns."""

    def __init__(self, *args: Any, ui: Any = None) -> None:
        self.args, self.ui = args, ui

    @property
    def result(self) -> tuple[Any, ...] | None:
        return self.args or None

    def __getitem__(self, index: int) -> Any:
        return self.args[index]


class ComfyNode:
    """Base of the nodes: a schema and a stateless `execute`."""

    hidden: SimpleNamespace = SimpleNamespace(prompt=None, extra_pnginfo=None, unique_id=None)

    @classmethod
    def define_schema(cls) -> Schema:
        raise NotImplementedError

    @classmethod
    def GET_SCHEMA(cls) -> Schema:  # noqa: N802
        """The schema, with the hidden inputs that every output node has."""
        schema = cls.define_schema()
        if schema.is_output_node:
            schema.hidden += [one for one in (Hidden.prompt, Hidden.extra_pnginfo) if one not in schema.hidden]
        return schema

    @classmethod
    def GET_NODE_INFO_V1(cls) -> dict[str, Any]:  # noqa: N802
        """The node as `/object_info` describes it."""
        return node_info(cls.GET_SCHEMA())


class ComfyExtension:
    """Base of the pack."""


def node_info(schema: Schema) -> dict[str, Any]:
    """A schema in the form of `/object_info`."""
    inputs: dict[str, dict[str, Any]] = {"required": {}}
    for one in schema.inputs:
        inputs.setdefault("optional" if one.optional else "required", {})[one.id] = [one.io_type, one.as_dict()]
    for one in schema.hidden:
        inputs.setdefault("hidden", {})[one.name] = [one.value]
    return {
        "input": inputs,
        "input_order": {kind: list(of_kind) for kind, of_kind in inputs.items()},
        "is_input_list": schema.is_input_list,
        "output": [one.io_type for one in schema.outputs],
        "output_is_list": [one.is_output_list for one in schema.outputs],
        "output_name": [one.display_name or one.id or one.io_type for one in schema.outputs],
        "output_tooltips": [one.tooltip for one in schema.outputs],
        "name": schema.node_id,
        "display_name": schema.display_name,
        "description": schema.description,
        "category": schema.category,
        "output_node": schema.is_output_node,
        "search_aliases": schema.search_aliases or None,
    }


class _Shown:
    """Something shown under a node; nobody looks here."""

    def __init__(self, *_: Any, **__: Any) -> None: ...


io = SimpleNamespace(
    Boolean=SocketType("BOOLEAN"), Int=SocketType("INT"), Float=SocketType("FLOAT"), String=SocketType("STRING"),
    Combo=SocketType("COMBO"), Image=SocketType("IMAGE"), Mask=SocketType("MASK"), Audio=SocketType("AUDIO"),
    Video=SocketType("VIDEO"), AudioEncoder=SocketType("AUDIO_ENCODER"), AnyType=SocketType("*"), Custom=SocketType,
    ComfyNode=ComfyNode, Schema=Schema, NodeOutput=NodeOutput, Hidden=Hidden, FolderType=FolderType,
    UploadType=UploadType, NumberDisplay=NumberDisplay,
)  # fmt: skip
ui = SimpleNamespace(PreviewImage=_Shown)
