"""A video that plays while it is made: `gr.Video` fed with our own pieces, without any ffmpeg program."""

from __future__ import annotations

import tempfile
from pathlib import Path

import gradio as gr
from gradio.data_classes import FileData, MediaStreamChunk

from ..io.segments import Segment, join


class Player(gr.Video):
    """A streaming video output. A function yields, one after the other, the paths that `keep` returned.

    Gradio's own streaming starts ffmpeg and ffprobe for every piece and leaves gaps in the sound; here pieces are
    handed on as they are.
    """

    def get_block_name(self) -> str:
        return "video"

    def postprocess(self, value: str | Path | None) -> str | FileData | None:
        """Pieces stay paths for `stream_output`; a finished file becomes one that the page can load."""
        if value is None or str(value).endswith(".ts"):
            return value if value is None else str(value)
        return FileData(path=str(value), orig_name=Path(value).name)

    async def stream_output(
        self, value: str | None, output_id: str, first_chunk: bool
    ) -> tuple[MediaStreamChunk | None, dict]:
        answer = {
            "path": output_id,
            "is_stream": True,
            "orig_name": "talking.mp4",
            "meta": {"_type": "gradio.FileData"},
        }
        if value is None:
            return None, answer
        path = Path(value)
        data = path.read_bytes()
        path.unlink()
        return {"data": data, "duration": seconds_of(path), "extension": ".ts"}, answer

    async def flush_stream_output(self, output_id: str) -> None:
        return None

    def end_stream_output(self, output_id: str) -> None:
        return None

    async def combine_stream(
        self, stream: list[bytes], desired_output_format: str | None = None, only_file: bool = False
    ) -> FileData:
        with tempfile.NamedTemporaryFile(delete=False, suffix=".mp4", dir=self.GRADIO_CACHE) as file:
            path = file.name
        join(stream, path)
        return FileData(path=path, orig_name="talking.mp4")


def keep(segment: Segment, folder: Path) -> str:
    """Put a piece into a folder of the user's, for the player to take away; its length is in its name."""
    with tempfile.NamedTemporaryFile(
        dir=folder, prefix=f"{round(segment.seconds * 1e6)}-", suffix=".ts", delete=False
    ) as file:
        file.write(segment.data)
    return file.name


def seconds_of(path: Path) -> float:
    """Length of a piece by the name `keep` gave it."""
    return int(path.name.split("-")[0]) / 1e6
