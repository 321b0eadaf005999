"""Decode Frames, Decode Video, Paste Back, Disentangle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .api import VideoFromFile, io
from .audio import samples_of
from .engine import InputError, Motion, room
from .host import Step, host
from .sockets import (
    CATEGORY,
    CropSocket,
    Face,
    FaceSocket,
    Framing,
    LoadedModel,
    ModelSocket,
    MotionSocket,
    as_pictures,
    moved,
)  # fmt: skip

PREVIEW_EVERY = 8
SOFTNESS = 0.04
ROWS = ("motion", "motion, head pose only, face only")


def decoded(
    model: LoadedModel, face: Face, motion: Motion, batch_size: int, step: Step, shown_on: Any = None
) -> Iterator[Tensor]:
    """Frames [n, 3, S, S] of a motion on a face, with a preview now and then; stops within one batch.

    Args:
        batch_size: frames at a time, 0 = automatic.
        step: told after every batch; raises to stop.
        shown_on: latents to decode instead of the face's own, e.g. those of a `vasa.screen.Screen`.

    Raises:
        InputError: face or motion of another engine, or frames that are no numbers.
    """
    done = 0
    with model.on_device(model.batch_size(batch_size)) as engine:
        latents = face.on(engine)
        course = engine.adopted(motion, latents)
        if shown_on is not None:
            latents = moved(shown_on, engine.device)
        for frames in engine.decode(latents, course, batch_size=model.batch_size(batch_size)):
            if not torch.isfinite(frames).all():
                raise InputError("the frames hold NaN: this GPU's half precision overflows; choose precision fp32")
            before, done = done, done + len(frames)
            has_preview = before // PREVIEW_EVERY != done // PREVIEW_EVERY
            step(done, frames[-1] if has_preview else None)
            yield frames


def manifest_of(model: LoadedModel, motion: Motion, mark: bool) -> dict[str, Any]:
    """What a video of ours says about itself; Save Video keeps it beside the workflow."""
    about = room("animate").manifest_of(model.name, motion.fps, len(motion), mark=mark)
    return {**about, "model": model.name}


def decode_inputs() -> list[Any]:
    return [
        ModelSocket.Input("model", tooltip="From Load VASA Model."),
        FaceSocket.Input("face", tooltip="From Encode Face."),
        MotionSocket.Input("motion", tooltip="From Motion Diffusion, Motion From Video, Load Motion or Edit Motion."),
    ]


def mark_input(**more: Any) -> Any:
    return io.Boolean.Input(
        "mark",
        **more,
        default=True,
        advanced=True,
        tooltip="Lay an invisible mark over the frames that says they were made by this software.",
    )


def batch_input() -> Any:
    return io.Int.Input(
        "batch_size",
        default=0,
        min=0,
        max=64,
        advanced=True,
        tooltip="Frames decoded at a time: 0 takes 1 on a CPU and 8 on a GPU. Stop works after each batch.",
    )


class DecodeFrames(io.ComfyNode):
    """Pictures in memory, for further work in the graph."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VASA_DecodeFrames",
            display_name="Decode Frames",
            category=CATEGORY,
            description="Renders the motion on the face as a batch of images. For clips of minutes use Decode Video.",
            search_aliases=["vasa decode", "render", "talking head"],
            inputs=[*decode_inputs(), batch_input(), mark_input()],
            outputs=[
                io.Image.Output("frames", tooltip="All frames, e.g. for Create Video or Paste Back."),
                io.Float.Output("fps", tooltip="Frames per second, for Create Video."),
            ],
        )

    @classmethod
    def execute(cls, model: LoadedModel, face: Face, motion: Motion, batch_size: int, mark: bool) -> io.NodeOutput:
        size, done, marked = model.engine.size, 0, room("provenance").mark if mark else lambda frames: frames
        images = host().pictures(torch.empty(len(motion), size, size, 3))
        for frames in decoded(model, face, motion, batch_size, host().steps(len(motion))):
            images[done : done + len(frames)] = marked(frames).movedim(1, -1).to(images)
            done += len(frames)
        return io.NodeOutput(images, float(motion.fps))


class DecodeVideo(io.ComfyNode):
    """Frames straight into a file: the memory needed does not grow with the clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VASA_DecodeVideo",
            display_name="Decode Video",
            category=CATEGORY,
            description="Renders the motion into a video with its sound, frame by frame: an hour's frames take "
            "no more memory than a second's. Connect crop to show it inside the whole original picture.",
            search_aliases=["vasa decode", "render video", "streaming", "long video", "talking head"],
            inputs=[
                *decode_inputs(),
                io.Audio.Input("audio", optional=True, tooltip="Sound track, e.g. from Audio Features."),
                CropSocket.Input(
                    "crop", optional=True, tooltip="From Load Portrait: pastes every frame into the whole picture."
                ),
                batch_input(),
                mark_input(),
            ],
            outputs=[io.Video.Output("video", tooltip="For Save Video, which copies it without encoding it again.")],
        )

    @classmethod
    def execute(
        cls,
        model: LoadedModel,
        face: Face,
        motion: Motion,
        batch_size: int,
        mark: bool,
        audio: Any = None,
        crop: Framing | None = None,
    ) -> io.NodeOutput:
        path, step = host().temporary_path(".mp4"), host().steps(len(motion))
        sound = None if audio is None else samples_of(audio)
        about, marked = manifest_of(model, motion, mark), room("provenance").marked
        latents, show, paste = None, None, None
        if crop is None:
            writer = room("io.video").VideoWriter(path, model.engine.size, motion.fps, sound, about)
        else:
            screen = room("screen").Screen(
                model.engine.size, face.latents, crop.original, crop.crop, paste_back=True, softness=SOFTNESS
            )
            writer, latents, show = screen.writer(path, motion.fps, sound, about), screen.latents, screen.show
            paste = screen.paste
            batch_size = min(model.batch_size(batch_size), screen.batch_size)
        with writer:
            for frames in decoded(model, face, motion, batch_size, step, latents):
                for pictures in (frames,) if show is None else show(frames):
                    writer.write(marked(pictures, paste) if mark else pictures)
        return io.NodeOutput(VideoFromFile(str(path)))


class PasteBack(io.ComfyNode):
    """The talking head inside the whole picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VASA_PasteBack",
            display_name="Paste Back",
            category=CATEGORY,
            description="Puts the frames back into the picture that the portrait was cut from. "
            "Outside the person every pixel stays as it was.",
            search_aliases=["vasa paste", "composite", "uncrop", "stitch"],
            inputs=[
                io.Image.Input("frames", tooltip="From Decode Frames."),
                CropSocket.Input("crop", tooltip="From the Load Portrait that made the face."),
                io.Boolean.Input(
                    "lock_background",
                    default=True,
                    tooltip="Keep the original's pixels outside the person; off pastes the whole square, softly.",
                ),
                io.Float.Input(
                    "softness",
                    default=SOFTNESS,
                    min=0.005,
                    max=0.2,
                    step=0.005,
                    advanced=True,
                    tooltip="Width of the soft border, as a part of the crop's edge.",
                ),
            ],
            outputs=[io.Image.Output("frames", tooltip="Whole pictures, as large as the original.")],
        )

    @classmethod
    def execute(cls, frames: Tensor, crop: Framing, lock_background: bool, softness: float) -> io.NodeOutput:
        matte = room("checkpoint").load_matte().matte if lock_background else None
        paste = room("io.paste").PasteBack(crop.original, crop.crop, lock_background, softness, matte)
        height, width = crop.original.shape[1:]
        images = host().pictures(torch.empty(len(frames), height, width, 3))
        step = host().steps(len(frames))
        for index in range(len(frames)):
            picture = paste.compose(as_pictures(frames[index : index + 1]))
            images[index] = picture[0].movedim(0, -1).to(images)
            step(index + 1, picture[0] if index % PREVIEW_EVERY == 0 else None)
        return io.NodeOutput(images)


class Disentangle(io.ComfyNode):
    """One motion on several faces."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        faces = [
            FaceSocket.Input(f"faces_{n}", optional=True, tooltip="More faces, from another Encode Face.")
            for n in (2, 3, 4)
        ]
        return io.Schema(
            node_id="VASA_Disentangle",
            display_name="Disentangle",
            category=CATEGORY,
            description="Shows one motion on several faces side by side: the same movement, other people. "
            "Optionally its head pose and its facial dynamics apart from each other.",
            search_aliases=["vasa grid", "transfer motion", "same motion", "compare faces"],
            inputs=[
                ModelSocket.Input("model", tooltip="From Load VASA Model."),
                MotionSocket.Input("motion", tooltip="The motion that every face shows."),
                FaceSocket.Input("faces", tooltip="From Encode Face; a batch of portraits gives several."),
                *faces,
                io.Combo.Input(
                    "rows",
                    options=list(ROWS),
                    default=ROWS[0],
                    tooltip="One row with the motion, or three: all of it, the head alone, the face alone.",
                ),
                io.Boolean.Input(
                    "show_portraits", default=True, tooltip="Begin with a row of the portraits themselves."
                ),
                batch_input(),
                mark_input(optional=True),
            ],
            outputs=[
                io.Image.Output("frames", tooltip="The grid: a column for each face."),
                io.Float.Output("fps", tooltip="Frames per second, for Create Video."),
            ],
            is_input_list=True,
        )

    @classmethod
    def execute(
        cls,
        model: list[LoadedModel],
        motion: list[Motion],
        faces: list[Face],
        rows: list[str],
        show_portraits: list[bool],
        batch_size: list[int],
        mark: list[bool] | None = None,
        **more: list[Face],
    ) -> io.NodeOutput:
        if len(motion) != 1:
            raise InputError(f"Disentangle shows one motion, got {len(motion)}; connect a single one")
        loaded, course = model[0], motion[0]
        columns = [*faces, *(face for name in sorted(more) for face in more[name] or ())]
        parts = 1 if rows[0] == ROWS[0] else 3
        # graphs from before there was a choice are marked like all others
        lay_mark = room("provenance").mark if (mark or [True])[0] else lambda frames, origin: frames
        size, top, count = loaded.engine.size, int(show_portraits[0]), len(course)
        grid = host().pictures(torch.empty(count, (top + parts) * size, len(columns) * size, 3))
        step = host().steps(count * parts * len(columns))
        for column, face in enumerate(columns):
            across = slice(column * size, (column + 1) * size)
            if top:
                grid[:, :size, across] = face.picture.movedim(0, -1).to(grid)
            for row, part in enumerate(_parts(course, face, loaded)[:parts]):
                first = (column * parts + row) * count
                down, done = slice((top + row) * size, (top + row + 1) * size), 0
                for frames in decoded(loaded, face, part, batch_size[0], _shifted(step, first)):
                    shown = lay_mark(frames, (across.start, down.start))
                    grid[done : done + len(frames), down, across] = shown.movedim(1, -1).to(grid)
                    done += len(frames)
        return io.NodeOutput(grid, float(course.fps))


def _parts(motion: Motion, face: Face, model: LoadedModel) -> list[Motion]:
    """The motion on a face: all of it, its head pose with the portrait's own face, its face with the head at rest."""
    latents = face.on(model.engine)
    whole = model.engine.adopted(motion, latents)
    if not hasattr(latents, "facial_dynamics"):
        raise InputError(f"the engine {face.backend!r} cannot show head and face apart; choose rows motion")
    own_face = latents.facial_dynamics[0].to(whole.facial_dynamics).expand_as(whole.facial_dynamics)
    own_head = latents.head_pose[0].to(whole.head_pose).expand_as(whole.head_pose)
    vectors = ((whole.head_pose, whole.facial_dynamics), (whole.head_pose, own_face), (own_head, whole.facial_dynamics))
    return [Motion(pose, dynamics, whole.fps, whole.backend) for pose, dynamics in vectors]


def _shifted(step: Step, first: int) -> Step:
    return lambda done, preview=None: step(first + done, preview)
