"""The few nodes of ComfyUI's own that shared workflows use, for running them where ComfyUI is absent."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .audio import LoadSpeech
from .core_video import VideoFromComponents, VideoFromFile
from .engine import room
from .host import IMAGES, SOUNDS, VIDEOS, host
from .portrait import file_exists
from .schema import ComfyNode, NodeOutput, Schema, UploadType, io
from .sockets import as_pictures


class LoadImage(ComfyNode):
    """A picture."""

    @classmethod
    def define_schema(cls) -> Schema:
        return Schema(
            node_id="LoadImage",
            display_name="Load Image",
            category="image",
            inputs=[io.Combo.Input("image", options=host().input_files(IMAGES), upload=UploadType.image)],
            outputs=[io.Image.Output(), io.Mask.Output()],
        )

    @classmethod
    def validate_inputs(cls, image: str) -> bool | str:
        return file_exists(image)

    @classmethod
    def execute(cls, image: str) -> NodeOutput:
        pixels = room("io.image").load_image(host().input_path(image)).pixels
        return NodeOutput(pixels.movedim(0, -1)[None], torch.zeros(1, *pixels.shape[1:]))


class LoadAudio(ComfyNode):
    """A sound."""

    @classmethod
    def define_schema(cls) -> Schema:
        return Schema(
            node_id="LoadAudio",
            display_name="Load Audio",
            category="audio",
            inputs=[io.Combo.Input("audio", options=host().input_files(SOUNDS + VIDEOS), upload=UploadType.audio)],
            outputs=[io.Audio.Output()],
        )

    @classmethod
    def validate_inputs(cls, audio: str) -> bool | str:
        return file_exists(audio)

    @classmethod
    def execute(cls, audio: str) -> NodeOutput:
        return NodeOutput(LoadSpeech.execute(audio)[0])


class LoadVideo(ComfyNode):
    """A video."""

    @classmethod
    def define_schema(cls) -> Schema:
        return Schema(
            node_id="LoadVideo",
            display_name="Load Video",
            category="video",
            inputs=[io.Combo.Input("file", options=host().input_files(VIDEOS), upload=UploadType.video)],
            outputs=[io.Video.Output()],
        )

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        return file_exists(file)

    @classmethod
    def execute(cls, file: str) -> NodeOutput:
        return NodeOutput(VideoFromFile(host().input_path(file)))


class CreateVideo(ComfyNode):
    """Pictures and sound to a video."""

    @classmethod
    def define_schema(cls) -> Schema:
        return Schema(
            node_id="CreateVideo",
            display_name="Create Video",
            category="video",
            inputs=[
                io.Image.Input("images"),
                io.Float.Input("fps", default=30.0, min=1.0, max=120.0),
                io.Audio.Input("audio", optional=True),
                io.Int.Input("bit_depth", optional=True, default=8, min=8, max=10),
            ],
            outputs=[io.Video.Output()],
        )

    @classmethod
    def execute(cls, images: Tensor, fps: float, audio: Any = None, bit_depth: int = 8) -> NodeOutput:
        return NodeOutput(VideoFromComponents(images, audio, fps))


class GetVideoComponents(ComfyNode):
    """A video to pictures and sound."""

    @classmethod
    def define_schema(cls) -> Schema:
        return Schema(
            node_id="GetVideoComponents",
            display_name="Get Video Components",
            category="video",
            inputs=[io.Video.Input("video")],
            outputs=[io.Image.Output("images"), io.Audio.Output("audio"), io.Float.Output("fps")],
        )

    @classmethod
    def execute(cls, video: Any) -> NodeOutput:
        return NodeOutput(*video.get_components())


class SaveVideo(ComfyNode):
    """A video into the output folder."""

    @classmethod
    def define_schema(cls) -> Schema:
        auto = ["auto", "mp4"]
        return Schema(
            node_id="SaveVideo",
            display_name="Save Video",
            category="video",
            inputs=[
                io.Video.Input("video"),
                io.String.Input("filename_prefix", default="video/vasa"),
                io.Combo.Input("format", options=auto),
                io.Combo.Input("codec", options=["auto", "h264"], optional=True),
            ],
            outputs=[io.Video.Output("video")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, video: Any, filename_prefix: str, format: str, codec: str = "auto") -> NodeOutput:
        path = host().output_path(filename_prefix, ".mp4")
        video.save_to(path, cls.hidden.prompt or {})
        host().saved.append(path)
        return NodeOutput(video)


class SaveImage(ComfyNode):
    """Pictures into the output folder."""

    @classmethod
    def define_schema(cls) -> Schema:
        return Schema(
            node_id="SaveImage",
            display_name="Save Image",
            category="image",
            inputs=[io.Image.Input("images"), io.String.Input("filename_prefix", default="vasa")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images: Tensor, filename_prefix: str) -> NodeOutput:
        for picture in as_pictures(images):
            path = host().output_path(filename_prefix, ".png")
            room("io.image").save_image(picture, path)
            host().saved.append(path)
        return NodeOutput()


class PreviewImage(ComfyNode):
    """Pictures to look at: nothing to do where nobody looks."""

    @classmethod
    def define_schema(cls) -> Schema:
        return Schema(
            node_id="PreviewImage",
            display_name="Preview Image",
            category="image",
            inputs=[io.Image.Input("images")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images: Tensor) -> NodeOutput:
        return NodeOutput()


CORE = (
    LoadImage, LoadAudio, LoadVideo, CreateVideo, GetVideoComponents, SaveVideo, SaveImage, PreviewImage,
)  # fmt: skip
