"""Load Portrait, Crop Portrait, Encode Face."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .api import io
from .engine import InputError, room
from .host import IMAGES, host
from .sockets import (
    CATEGORY,
    CropSocket,
    Face,
    FaceSocket,
    Framing,
    LoadedModel,
    ModelSocket,
    as_images,
    as_pictures,
    moved,
)  # fmt: skip

UNTRAINED_SIZE = 512
"""Edge of a crop made without a model, pixels."""
NODE_WORDS = {
    "give its square with --crop X,Y,SIZE, or --crop none if the picture is already cropped to the head": (
        "set crop to manual and give the square, or to none if the picture is already cropped to the head"
    ),
    "give X,Y of its top left corner and SIZE (at least 16) in pixels": "correct crop_x, crop_y and crop_size",
    "choose with --face": "choose with face_index",
}
"""What the library tells users of its command line, said for this node."""


def crop_inputs() -> list[Any]:
    """Widgets and sockets shared by the two nodes that crop."""
    edge = {"min": -16384, "max": 16384, "step": 1, "advanced": True}
    return [
        io.Combo.Input(
            "crop",
            options=["face", "center", "none", "manual"],
            default="face",
            tooltip="face: find the face and frame it as the model was trained. center: the largest centred square. "
            "none: the picture is already a square portrait. manual: the square given by crop_x, crop_y, crop_size.",
        ),
        io.Int.Input(
            "face_index", default=0, min=0, max=31, tooltip="Which face, where there are several: 0 is the largest."
        ),
        io.Int.Input("crop_x", default=0, tooltip="manual: left edge of the square, pixels of the picture.", **edge),
        io.Int.Input("crop_y", default=0, tooltip="manual: top edge of the square, pixels of the picture.", **edge),
        io.Int.Input(
            "crop_size",
            default=512,
            min=16,
            max=16384,
            step=1,
            advanced=True,
            tooltip="manual: edge of the square, pixels of the picture.",
        ),
        ModelSocket.Input(
            "model",
            optional=True,
            tooltip="Connect it to frame the face exactly: the model's own reader then corrects the detector's box, "
            "and the portrait has the model's size. Without it the portrait is 512 pixels wide.",
        ),
    ]


def crop_outputs(several: bool) -> list[Any]:
    return [
        io.Image.Output("portrait", tooltip="The square portrait, for Encode Face."),
        CropSocket.Output(
            "crop", tooltip="Where it was cut out, for Paste Back and Decode Video.", is_output_list=several
        ),
    ]


def framed(
    picture: Tensor, crop: str, face_index: int, square: tuple[int, int, int], model: LoadedModel | None
) -> Framing:
    """Cut one portrait out of a picture [3, H, W].

    Raises:
        InputError: no face, no such face, a square outside the picture, or a picture that is no square with "none".
    """
    height, width = picture.shape[1:]
    if crop == "none" and height != width:
        raise InputError(f"crop none expects a square picture, got {width}x{height}; choose face, center or manual")
    size = UNTRAINED_SIZE if model is None else model.engine.size
    request = {"face": "auto", "center": "none", "none": "none", "manual": tuple(map(float, square))}[crop]
    try:
        if model is None or crop != "face":
            cut = room("io.face").portrait_crop(picture, request, face=face_index, size=size)
        else:
            with model.on_device() as engine:
                cut = room("io.face").portrait_crop(
                    picture, request, face=face_index, size=size, refine=engine.read_pose
                )
    except InputError as error:
        raise InputError(in_node_words(str(error))) from error
    except ModuleNotFoundError as error:
        raise InputError(
            f"finding faces needs the package {error.name}; install the pack's requirements.txt, "
            "or set crop to center or manual"
        ) from error
    for notice in cut.notices:
        host().notice(in_node_words(notice))
    return Framing(picture, cut)


def in_node_words(sentence: str) -> str:
    for said, meant in NODE_WORDS.items():
        sentence = sentence.replace(said, meant)
    return sentence


class LoadPortrait(io.ComfyNode):
    """A picture file, cropped to one face."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VASA_LoadPortrait",
            display_name="Load Portrait",
            category=CATEGORY,
            description="Loads a picture of a person (photograph, painting, cartoon) and crops it to the face.",
            search_aliases=["vasa portrait", "face crop", "load face", "avatar", "talking photo"],
            inputs=[
                io.Combo.Input(
                    "portrait",
                    options=host().input_files(IMAGES),
                    upload=io.UploadType.image,
                    image_folder=io.FolderType.input,
                    tooltip="JPEG, PNG, WEBP, AVIF ... Names ending in [sample] come with the pack.",
                ),
                *crop_inputs(),
            ],
            outputs=crop_outputs(several=False),
        )

    @classmethod
    def validate_inputs(cls, portrait: str) -> bool | str:
        return file_exists(portrait)

    @classmethod
    def fingerprint_inputs(cls, portrait: str, **_: Any) -> str:
        return file_hash(portrait)

    @classmethod
    def execute(
        cls,
        portrait: str,
        crop: str,
        face_index: int,
        crop_x: int,
        crop_y: int,
        crop_size: int,
        model: LoadedModel | None = None,
    ) -> io.NodeOutput:
        loaded = room("io.image").load_image(host().input_path(portrait))
        for notice in loaded.notices:
            host().notice(notice)
        framing = framed(loaded.pixels, crop, face_index, (crop_x, crop_y, crop_size), model)
        images = as_images(framing.crop.picture[None])
        return io.NodeOutput(images, framing, ui=host().show(images, cls))


class CropPortrait(io.ComfyNode):
    """Pictures from anywhere in the graph, cropped to one face each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VASA_CropPortrait",
            display_name="Crop Portrait",
            category=CATEGORY,
            description="Crops pictures from elsewhere in the graph (a generated person, say) to one face each.",
            search_aliases=["vasa crop", "face crop", "align face"],
            inputs=[io.Image.Input("image", tooltip="One picture or a batch."), *crop_inputs()],
            outputs=crop_outputs(several=True),
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        crop: str,
        face_index: int,
        crop_x: int,
        crop_y: int,
        crop_size: int,
        model: LoadedModel | None = None,
    ) -> io.NodeOutput:
        step = host().steps(len(image))
        framings = []
        for done, picture in enumerate(as_pictures(image), 1):
            framings.append(framed(picture, crop, face_index, (crop_x, crop_y, crop_size), model))
            step(done)
        images = as_images(torch.stack([framing.crop.picture for framing in framings]))
        return io.NodeOutput(images, framings, ui=host().show(images, cls))


class EncodeFace(io.ComfyNode):
    """Appearance and identity of portraits; needed once for any number of clips."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VASA_EncodeFace",
            display_name="Encode Face",
            category=CATEGORY,
            description="Reads a portrait's appearance once; any motion can then be shown on it.",
            search_aliases=["vasa encode", "appearance", "identity"],
            inputs=[
                ModelSocket.Input("model", tooltip="From Load VASA Model."),
                io.Image.Input(
                    "portrait",
                    tooltip="A square portrait from Load Portrait or Crop Portrait. A batch gives a list of faces, and "
                    "everything behind it runs once for each.",
                ),
            ],
            outputs=[FaceSocket.Output("face", tooltip="One face, or a list of them.", is_output_list=True)],
        )

    @classmethod
    def execute(cls, model: LoadedModel, portrait: Tensor) -> io.NodeOutput:
        pictures = as_pictures(portrait)
        height, width = pictures.shape[2:]
        if height != width:
            raise InputError(
                f"expected a square portrait, got {width}x{height}; put Crop Portrait in front of this node"
            )
        step = host().steps(len(pictures))
        with model.on_device() as engine:
            if height != engine.size:
                pictures = F.interpolate(pictures, size=(engine.size,) * 2, mode="bicubic", antialias=True).clamp(0, 1)
            faces = []
            for done, picture in enumerate(pictures, 1):
                faces.append(Face(moved(engine.encode(picture), "cpu"), engine.backend, picture))
                step(done)
        return io.NodeOutput(faces)


def file_exists(name: str) -> bool | str:
    """True, or the sentence that says why a named file cannot be used."""
    try:
        host().input_path(name)
    except InputError as error:
        return str(error)
    return True


def file_hash(name: str) -> str:
    """Changes when the file of that name does."""
    with open(host().input_path(name), "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
