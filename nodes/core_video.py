"""ComfyUI's VIDEO where ComfyUI is absent: a file, or pictures with sound."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import av
import torch
from torch import Tensor

from .engine import room


class VideoFromFile:
    """A video that lies in a file."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)

    def get_stream_source(self) -> str:
        """The file's name."""
        return str(self.path)

    def get_components(self) -> tuple[Tensor, Any, float]:
        """Pictures [T, H, W, 3], AUDIO or None, and the frame rate."""
        opened = room("io.video").read_video(self.path)
        images = torch.stack([frame.movedim(0, -1) for frame in opened.frames])
        sound = opened.audio
        audio = sound and {"waveform": sound.waveform[None, None], "sample_rate": sound.sample_rate}
        return images, audio, opened.fps

    def save_to(self, path: Path, prompt: dict[str, Any]) -> None:
        """Copy it, with the workflow inside, as ComfyUI's Save Video does."""
        with_workflow(self.path, path, prompt)


class VideoFromComponents:
    """A video of pictures in memory.

    Args:
        images: [T, H, W, 3] in [0, 1].
        audio: AUDIO or None; cut or padded to the pictures' duration.
        fps: frames per second.
    """

    def __init__(self, images: Tensor, audio: Any, fps: float) -> None:
        self.images, self.audio, self.fps = images, audio, fps

    def get_components(self) -> tuple[Tensor, Any, float]:
        return self.images, self.audio, self.fps

    def save_to(self, path: Path, prompt: dict[str, Any]) -> None:
        """Encode it, with the workflow inside."""
        height, width = (edge // 2 * 2 for edge in self.images.shape[1:3])
        sound = self.audio and (self.audio["waveform"][0], self.audio["sample_rate"])
        with room("io.video").VideoWriter(path, (width, height), self.fps, sound, {"generator": "vasa"}) as writer:
            for image in self.images:
                writer.write(image[:height, :width].movedim(-1, 0))
        with_workflow(path, path, prompt)


def with_workflow(source: Path, target: Path, prompt: dict[str, Any]) -> None:
    """Copy an mp4's streams; dropped onto ComfyUI's canvas, the copy brings its graph back."""
    if source.suffix != ".mp4":
        shutil.copyfile(source, target)
        return
    with room("io.files").replacing(target) as partial:
        options = {"movflags": "use_metadata_tags+faststart"}
        with av.open(str(source)) as old, av.open(str(partial), "w", format="mp4", options=options) as new:
            for name, value in old.metadata.items():
                new.metadata[name] = value
            new.metadata["prompt"] = json.dumps(prompt)
            copies = {one.index: new.add_stream_from_template(one) for one in old.streams if one.type != "data"}
            for packet in old.demux([one for one in old.streams if one.index in copies]):
                if packet.dts is not None:
                    packet.stream = copies[packet.stream.index]
                    new.mux(packet)
