"""Motion Diffusion, Motion From Video, Save Motion, Load Motion, Edit Motion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from .api import VideoFromFile, io
from .engine import Controls, InputError, Motion, room
from .host import VIDEOS, host
from .portrait import file_exists, file_hash
from .sockets import (
    CATEGORY,
    ControlsSocket,
    Face,
    FaceSocket,
    LoadedModel,
    ModelSocket,
    MotionSocket,
    Speech,
    SpeechSocket,
)  # fmt: skip

MOTION_FILES = (".safetensors",)
CONDITIONS, SAMPLERS = room("controls").GUIDED, room("controls").SAMPLERS


class MotionDiffusion(io.ComfyNode):
    """Speech to motion."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        usual = Controls().guidance

        def guidance(condition: str, tooltip: str, **more: Any) -> Any:
            default = usual.get(condition, 0.0)
            return io.Float.Input(
                f"cfg_{condition}", default=default, min=0.0, max=5.0, step=0.05, tooltip=tooltip, **more
            )

        return io.Schema(
            node_id="VASA_MotionDiffusion",
            display_name="Motion Diffusion",
            category=CATEGORY,
            description="Generates head pose and facial dynamics for the speech, in windows, for a clip of any length. "
            "Connect previous_motion to go on from another clip without a jump.",
            search_aliases=["vasa sampler", "audio to motion", "lip sync", "talking head", "continue motion"],
            inputs=[
                ModelSocket.Input("model", tooltip="From Load VASA Model."),
                FaceSocket.Input(
                    "face", tooltip="From Encode Face; the motion is placed on this portrait's shoulders."
                ),
                SpeechSocket.Input("audio_features", tooltip="From Audio Features."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**63 - 1,
                    control_after_generate=True,
                    tooltip="The same seed, inputs and device give the same motion.",
                ),
                io.Int.Input(
                    "steps", default=25, min=1, max=1000, tooltip="Denoising steps per window; 10 is the fast setting."
                ),
                guidance("audio", "How strictly the lips follow the sound (VASA-1: 0.5)."),
                guidance("gaze", "How strictly the gaze follows Control Signals (VASA-1: 1.0)."),
                guidance("distance", "How strictly the distance is kept; 0 leaves it unguided.", advanced=True),
                guidance("emotion", "How strictly the emotion is shown; 0 leaves it unguided.", advanced=True),
                io.Combo.Input(
                    "sampler",
                    options=list(SAMPLERS),
                    default=SAMPLERS[0],
                    advanced=True,
                    tooltip="ddim as in the paper; dpm++ comes closer to it in few steps.",
                ),
                ControlsSocket.Input("controls", optional=True, tooltip="From Control Signals; default: none."),
                MotionSocket.Input(
                    "previous_motion",
                    optional=True,
                    tooltip="The motion of the clip before, made with the same model: this one goes on from its last "
                    "frames without a jump.",
                ),
            ],
            outputs=[MotionSocket.Output("motion", tooltip="One head pose and face for every frame.")],
        )

    @classmethod
    def execute(
        cls,
        model: LoadedModel,
        face: Face,
        audio_features: Speech,
        seed: int,
        steps: int,
        cfg_audio: float,
        cfg_gaze: float,
        cfg_distance: float,
        cfg_emotion: float,
        sampler: str,
        controls: Controls | None = None,
        previous_motion: Motion | None = None,
    ) -> io.NodeOutput:
        scales = dict(zip(CONDITIONS, (cfg_audio, cfg_gaze, cfg_distance, cfg_emotion), strict=True))
        guidance = {name: scale for name, scale in scales.items() if scale > 0}
        wanted = replace(controls or Controls(), seed=seed, steps=steps, guidance=guidance, sampler=sampler)
        step = None

        def progress(done: int, total: int) -> None:
            nonlocal step
            step = step or host().steps(total)
            step(done)

        with model.on_device(ears=audio_features.ears) as engine:
            motion = engine.generate(
                audio_features.waveform, face.on(engine), wanted, previous=previous_motion, progress=progress
            )
        if len(motion) != audio_features.frames:
            raise InputError(
                f"the model made {len(motion)} frames for speech of {audio_features.frames} frames at "
                f"{audio_features.fps:g} fps; connect the same model to Audio Features and to this node"
            )
        return io.NodeOutput(on_cpu(motion))


class SaveMotion(io.ComfyNode):
    """A motion as a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VASA_SaveMotion",
            display_name="Save Motion",
            category=CATEGORY,
            description="Writes the motion as .safetensors into the output folder, to be shown on other faces later.",
            search_aliases=["vasa save", "export motion"],
            inputs=[
                MotionSocket.Input("motion", tooltip="Any motion."),
                io.String.Input(
                    "filename_prefix", default="motion/vasa", tooltip="Name, with folders, inside the output folder."
                ),
            ],
            outputs=[MotionSocket.Output("motion", tooltip="The same motion.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, motion: Motion, filename_prefix: str) -> io.NodeOutput:
        path = host().output_path(filename_prefix, MOTION_FILES[0])
        room("motion_file").save_motion(path, motion)
        host().saved.append(path)
        return io.NodeOutput(motion, ui={"text": [path.name]})


class LoadMotion(io.ComfyNode):
    """A motion from a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VASA_LoadMotion",
            display_name="Load Motion",
            category=CATEGORY,
            description="Loads a motion from the output folder (Save Motion) or the input folder.",
            search_aliases=["vasa load", "import motion"],
            inputs=[
                io.Combo.Input(
                    "motion_file",
                    options=host().input_files(MOTION_FILES) + host().output_files(MOTION_FILES),
                    tooltip="A .safetensors motion; press R to refresh the list.",
                )
            ],
            outputs=[MotionSocket.Output("motion", tooltip="For Decode Frames, Decode Video or Edit Motion.")],
        )

    @classmethod
    def validate_inputs(cls, motion_file: str) -> bool | str:
        return file_exists(motion_file)

    @classmethod
    def fingerprint_inputs(cls, motion_file: str) -> str:
        return file_hash(motion_file)

    @classmethod
    def execute(cls, motion_file: str) -> io.NodeOutput:
        return io.NodeOutput(room("motion_file").load_motion(host().input_path(motion_file)))


class EditMotion(io.ComfyNode):
    """Other pace, another head, round and round."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VASA_EditMotion",
            display_name="Edit Motion",
            category=CATEGORY,
            description="Changes a motion: takes the head pose from another one, calms the head, changes the pace, "
            "repeats it without a seam, appends another. In this order.",
            search_aliases=["vasa edit", "retime", "loop motion", "swap pose", "smooth", "splice"],
            inputs=[
                MotionSocket.Input("motion", tooltip="The motion to change; its face is kept."),
                io.Float.Input(
                    "speed", default=1.0, min=0.1, max=10.0, step=0.05, tooltip="2 plays it in half the time."
                ),
                io.Float.Input(
                    "smooth_head",
                    default=0.0,
                    min=0.0,
                    max=2.0,
                    step=0.02,
                    tooltip="Seconds over which the head's movement is calmed; lips and lids stay as they are.",
                ),
                io.Int.Input(
                    "loop",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="0: no loop; else how often a seamless loop is repeated.",
                ),
                io.Int.Input(
                    "overlap",
                    default=25,
                    min=0,
                    max=500,
                    advanced=True,
                    tooltip="Frames over which a loop's end or an appended motion is faded.",
                ),
                MotionSocket.Input(
                    "pose_from", optional=True, tooltip="Head pose of this motion, facial dynamics of the first."
                ),
                MotionSocket.Input("append", optional=True, tooltip="A motion that follows at the end."),
            ],
            outputs=[MotionSocket.Output("motion", tooltip="The changed motion.")],
        )

    @classmethod
    def execute(
        cls,
        motion: Motion,
        speed: float,
        smooth_head: float,
        loop: int,
        overlap: int,
        pose_from: Motion | None = None,
        append: Motion | None = None,
    ) -> io.NodeOutput:
        edit, names = room("motion.edit"), names_of(motion)
        if pose_from is not None:
            motion = edit.swap(pose_from, motion, names)
        if smooth_head > 0:
            motion = edit.smooth_pose(motion, smooth_head)
        if speed != 1:
            motion = edit.retime(motion, speed=speed)
        if loop:
            motion = edit.loop(motion, overlap, loop)
        if append is not None:
            motion = edit.splice(motion, append, overlap, names)
        return io.NodeOutput(motion)


class LoadDrivingVideo(io.ComfyNode):
    """A video file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VASA_LoadDrivingVideo",
            display_name="Load Driving Video",
            category=CATEGORY,
            description="Loads a video of a person whose movement another face is to show; comes with a sample.",
            search_aliases=["vasa video", "load video", "driving video"],
            inputs=[
                io.Combo.Input(
                    "video",
                    options=host().input_files(VIDEOS),
                    upload=io.UploadType.video,
                    tooltip="mp4, mov, mkv, webm. Names ending in [sample] come with the pack.",
                )
            ],
            outputs=[io.Video.Output("video", tooltip="For Motion From Video.")],
        )

    @classmethod
    def validate_inputs(cls, video: str) -> bool | str:
        return file_exists(video)

    @classmethod
    def fingerprint_inputs(cls, video: str) -> str:
        return file_hash(video)

    @classmethod
    def execute(cls, video: str) -> io.NodeOutput:
        return io.NodeOutput(VideoFromFile(str(host().input_path(video))))


class MotionFromVideo(io.ComfyNode):
    """A filmed person drives the portrait."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VASA_MotionFromVideo",
            display_name="Motion From Video",
            category=CATEGORY,
            description="Reads head pose and facial dynamics off a video of a person, to show them on another face.",
            search_aliases=["vasa drive", "driving video", "reenactment", "expression transfer", "live portrait"],
            inputs=[
                ModelSocket.Input("model", tooltip="From Load VASA Model."),
                io.Video.Input("video", tooltip="A video of one person, e.g. from Load Driving Video or Load Video."),
                io.Boolean.Input(
                    "relative",
                    default=True,
                    tooltip="On: movement since the first frame, about the portrait's own pose. "
                    "Off: the video's poses as they are.",
                ),
            ],
            outputs=[
                MotionSocket.Output("motion", tooltip="One head pose and face for every frame of the video."),
                io.Audio.Output("audio", tooltip="The video's sound; nothing if it has none."),
            ],
        )

    @classmethod
    def execute(cls, model: LoadedModel, video: Any, relative: bool) -> io.NodeOutput:
        path = file_of(video)
        step = None

        def progress(done: int, total: int) -> None:
            nonlocal step
            step = step or host().steps(total)
            step(done)

        notices: list[str] = []
        with model.on_device() as engine:
            motion = room("drive").motion_from_video(
                engine, path, relative=relative, notices=notices, progress=progress
            )
        for notice in notices:
            host().notice(notice)
        sound = room("io.video").read_video(path).audio
        audio = sound and {"waveform": sound.waveform[None, None], "sample_rate": sound.sample_rate}
        return io.NodeOutput(on_cpu(motion), audio)


def names_of(motion: Motion) -> tuple[str, ...]:
    """Meaning of a motion's dynamics channels, which files carry and sockets do not."""
    names = room("latents").DYNAMICS
    return names if motion.backend == "vasa" and motion.facial_dynamics.shape[-1] == len(names) else ()


def on_cpu(motion: Motion) -> Motion:
    """The motion where it travels between nodes."""
    rest = None if motion.rest is None else motion.rest.cpu()
    return replace(motion, head_pose=motion.head_pose.cpu(), facial_dynamics=motion.facial_dynamics.cpu(), rest=rest)


def file_of(video: Any) -> Path:
    """A file with the content of ComfyUI's VIDEO, which may be a part of a file or exist only in memory."""
    window = getattr(video, "get_active_trim_window", lambda: (0.0, 0.0))()
    source = getattr(video, "get_stream_source", lambda: None)()
    if isinstance(source, str) and not any(window):
        return Path(source)
    path = host().temporary_path(".mp4")
    video.save_to(str(path))
    return path
