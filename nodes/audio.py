"""Load Speech, Audio Features."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .api import io
from .engine import InputError, room
from .hearing import CoreEncoder, check_hears
from .host import SOUNDS, VIDEOS, host
from .portrait import file_exists, file_hash
from .sockets import CATEGORY, LoadedModel, ModelSocket, Speech, SpeechSocket


class LoadSpeech(io.ComfyNode):
    """The sound of an audio or video file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VASA_LoadSpeech",
            display_name="Load Speech",
            category=CATEGORY,
            description="Loads speech from an audio or video file; comes with a sample clip.",
            search_aliases=["vasa audio", "load voice", "speech", "load audio"],
            inputs=[
                io.Combo.Input(
                    "audio",
                    options=host().input_files(SOUNDS + VIDEOS),
                    upload=io.UploadType.audio,
                    tooltip="wav, mp3, m4a, flac, ogg, or a video whose sound is used. "
                    "Names ending in [sample] come with the pack.",
                )
            ],
            outputs=[io.Audio.Output("audio", tooltip="The whole clip at its own sample rate.")],
        )

    @classmethod
    def validate_inputs(cls, audio: str) -> bool | str:
        return file_exists(audio)

    @classmethod
    def fingerprint_inputs(cls, audio: str) -> str:
        return file_hash(audio)

    @classmethod
    def execute(cls, audio: str) -> io.NodeOutput:
        library, path = room("io.audio"), host().input_path(audio)
        heard = library.load_audio(path)
        with library.open_media(path, "speech") as container:
            rate = container.streams.audio[0].codec_context.sample_rate
        for notice in heard.notices:
            host().notice(notice)
        blocks = list(library.iterate_soundtrack(path, rate))
        waveform = torch.from_numpy(np.concatenate(blocks, axis=1))
        samples = math.ceil(Fraction(len(heard.waveform), heard.sample_rate) * rate)
        return io.NodeOutput({"waveform": waveform[None, :, :samples], "sample_rate": rate})


class AudioFeatures(io.ComfyNode):
    """Sound as the motion generator hears it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        seconds = {"min": 0.0, "max": 36000.0, "step": 0.01, "default": 0.0}
        return io.Schema(
            node_id="VASA_AudioFeatures",
            display_name="Audio Features",
            category=CATEGORY,
            description="Prepares speech for Motion Diffusion: mono, 16 kHz, a good level, an exact number of frames. "
            "The features themselves are computed window by window while the motion is generated, so that a clip may "
            "have any length.",
            search_aliases=["vasa audio", "wav2vec", "speech features", "audio encoder"],
            inputs=[
                ModelSocket.Input("model", tooltip="From Load VASA Model; it sets the frame rate."),
                io.Audio.Input(
                    "audio",
                    tooltip="Speech at any sample rate, mono or stereo. A batch gives a list, and everything behind it "
                    "runs once for each clip.",
                ),
                io.Float.Input("start_time", tooltip="Seconds of the clip that are left out at the start.", **seconds),
                io.Float.Input("duration", tooltip="Seconds to use; 0 uses the whole clip.", **seconds),
                io.AudioEncoder.Input(
                    "audio_encoder",
                    optional=True,
                    tooltip="From Load Audio Encoder, for models trained on a public one that is not in their folder "
                    "(vasa-1: wav2vec2-base-960h). Others, vasa-mini too, bring their own and refuse this.",
                ),
            ],
            outputs=[
                SpeechSocket.Output("audio_features", tooltip="For Motion Diffusion.", is_output_list=True),
                io.Audio.Output(
                    "audio", tooltip="The part that is used, for the video's sound track.", is_output_list=True
                ),
                io.Int.Output(
                    "frame_count",
                    tooltip="Frames of the video: seconds times frame rate, rounded up.",
                    is_output_list=True,
                ),
                io.Float.Output("fps", tooltip="Frames per second.", is_output_list=True),
            ],
        )

    @classmethod
    def execute(
        cls, model: LoadedModel, audio: Any, start_time: float, duration: float, audio_encoder: Any = None
    ) -> io.NodeOutput:
        ears = None if audio_encoder is None else CoreEncoder(audio_encoder)
        check_hears(model.engine, ears)
        clips, rate = clips_of(audio)
        total = Fraction(clips.shape[2], rate)
        if start_time >= total:
            raise InputError(
                f"start_time {start_time:g} s lies beyond the clip, which has {float(total):.2f} s; lower it"
            )
        first = round(start_time * rate)
        clips = clips[:, :, first : first + round(duration * rate) if duration else None]
        fps = float(model.engine.fps)
        frames = room("io.video").num_frames(Fraction(clips.shape[2], rate), fps)
        speeches = []
        for clip in clips:
            heard = room("io.audio").hear(clip, rate)
            for notice in heard.notices:
                host().notice(notice)
            speeches.append(Speech(heard.waveform, frames, fps, ears))
        sounds = [{"waveform": clip[None], "sample_rate": rate} for clip in clips]
        return io.NodeOutput(speeches, sounds, [frames] * len(clips), [fps] * len(clips))


def clips_of(audio: Any) -> tuple[Tensor, int]:
    """The clips [B, C, N] and the rate of ComfyUI's AUDIO.

    Raises:
        InputError: no sound (a silent video gives None), or not AUDIO.
    """
    if audio is None:
        raise InputError("there is no sound here: the video has no audio track; connect speech")
    try:
        waveform, rate = audio["waveform"], int(audio["sample_rate"])
    except (KeyError, TypeError) as error:
        raise InputError(
            "expected AUDIO with a waveform and a sample rate; connect Load Speech or Load Audio"
        ) from error
    waveform = waveform.detach().float().cpu()
    return (waveform if waveform.dim() == 3 else torch.atleast_2d(waveform)[None]), rate


def samples_of(audio: Any) -> tuple[Tensor, int]:
    """The samples [C, N] of the one clip of ComfyUI's AUDIO, and its rate.

    Raises:
        InputError: as `clips_of`, or several clips.
    """
    clips, rate = clips_of(audio)
    if len(clips) != 1:
        raise InputError(
            f"expected one clip, got a batch of {len(clips)}; connect the audio of Audio Features, clip by clip"
        )
    return clips[0], rate
