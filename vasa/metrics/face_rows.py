"""The face model's rows: reenactment, sharpness, pose, identity, disentanglement."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..face.reader import Reading
from ..latents import EXPRESSIONS, FaceLatents
from .bench import Bench
from .identity import percentile, retrieval, similarity
from .people import HeldOut, decode, read, render_drivers
from .picture import face_area, foreground, psnr, sharpness
from .pose import LIMITS_DEGREES, angle_fits, requested_poses, rotation_error
from .probes import explained, named
from .report import Row

LIKENESS, GAIN = "cross-person reenactment at 256 px, foreground PSNR", "the same, above copying the source"
SHARPNESS = "sharpness: gradient energy of the output's face against the true frame"
POSE_ERROR, POSE_FIT = "requested against decoded head pose: mean error", "the same: R², worst angle"
IDENTITY = "identity kept under transfer: same-person retrieval"
EXPRESSION, POSE, PERSON = (f"z_dyn, linear probe: {what}" for what in ("expression R²", "pose R²", "person named"))
_RETRIEVAL_PEOPLE = 100
POSE_DEMANDS = {POSE_ERROR: "≤ 2.5°", POSE_FIT: "≥ 0.97"}
IDENTITY_DEMANDS = {IDENTITY: f"≥ 95 % among {_RETRIEVAL_PEOPLE}"}


def encode_sources(bench: Bench, held: HeldOut) -> list[FaceLatents]:
    """Latents of everybody's first picture."""
    count = bench.counter("encoding people", len(held))
    faces = []
    for index, picture in enumerate(held.images[:, 0]):
        faces.append(bench.pipe.encode(picture))
        count(index + 1)
    return faces


def reenactment_rows(bench: Bench, held: HeldOut, faces: Sequence[FaceLatents]) -> list[Row]:
    """The first picture of a person is moved by what the encoders read in a picture of somebody else.

    That somebody is rendered with the pose and expression of the person's second picture, which is the truth.
    """
    pipe, pairs = bench.pipe, min(bench.sizes.pairs, len(held))
    labels = held.head_pose[:pairs, 1], held.dynamics[:pairs, 1]
    drivers = render_drivers(bench.pack, *labels, pipe.size, bench.seed).to(pipe.device)
    with torch.inference_mode():
        driven = [pipe.models.face.read(some) for some in drivers.split(16)]
    poses, dynamics = (torch.cat(column).cpu() for column in zip(*driven, strict=True))
    truth, source = held.images[:pairs, 1], held.images[:pairs, 0]
    moved = _one_each(bench, "reenactment", faces, poses, dynamics)
    labelled = _one_each(bench, "reenactment by labels", faces, *labels)
    front, skin = foreground(held.part[:pairs, 1], pipe.size), face_area(held.part[:pairs, 1], pipe.size)
    scores = {name: psnr(p, truth, front) for name, p in (("moved", moved), ("labels", labelled), ("copy", source))}
    seen = sharpness(moved, truth, skin)
    gain = scores["moved"].mean() - scores["copy"].mean()
    note = (
        f"{pairs} people ({held.origin}), each moved by another rendered person; mean over pictures; hair, "
        "neck and clothes count as foreground. Driven by exact labels instead of a picture: "
        f"{scores['labels'].mean():.1f} dB. Copying the source: {scores['copy'].mean():.1f} dB. Worst tenth: "
        f"{percentile(scores['moved'], 0.1):.1f} dB."
    )
    softness = (
        "squared brightness gradient on skin, lips, mouth and eyes, median over the same pictures; 10th "
        f"percentile {percentile(seen, 0.1):.2f}, copying the source "
        f"{sharpness(source, truth, skin).median():.2f}."
    )
    return [
        Row(LIKENESS, "≥ 24 dB", f"{scores['moved'].mean():.1f} dB", bool(scores["moved"].mean() >= 24), note),
        Row(GAIN, "≥ 7 dB", f"{gain:.1f} dB", bool(gain >= 7)),
        Row(SHARPNESS, "≥ 0.8", f"{seen.median():.2f}", bool(seen.median() >= 0.8), softness),
    ]


def _one_each(bench: Bench, stage: str, faces: Sequence[FaceLatents], head_pose: Tensor, dynamics: Tensor) -> Tensor:
    count = bench.counter(stage, len(head_pose))
    pictures = []
    for index in range(len(head_pose)):
        one = slice(index, index + 1)
        pictures.append(decode(bench.pipe, faces[index], head_pose[one], dynamics[one]))
        count(index + 1)
    return torch.cat(pictures)


def pose_rows(bench: Bench, held: HeldOut, faces: Sequence[FaceLatents], truly_seen: Reading) -> list[Row]:
    """Random head poses are asked for and read off the decoded pictures.

    Args:
        bench, held, faces: model, people, and their latents.
        truly_seen: what the reader sees in the people's own pictures, P·F of them.
    """
    generator, count = bench.generator(1), bench.counter("poses", min(bench.sizes.pairs, len(faces)))
    asked, seen = [], []
    for index, face in enumerate(faces[: bench.sizes.pairs]):
        poses = requested_poses(face.head_pose[0].cpu(), bench.sizes.poses, generator)
        frames = decode(bench.pipe, face, poses, face.facial_dynamics.cpu().expand(len(poses), -1))
        asked.append(poses)
        seen.append(read(bench.pipe, frames).head_pose)
        count(index + 1)
    asked, seen = torch.stack(asked), torch.stack(seen)  # [P, K, 6]
    error, fits = rotation_error(seen, asked), angle_fits(seen, asked, own_offset=True)
    truly = truly_seen.head_pose.unflatten(0, held.head_pose.shape[:2])
    own, own_fits = (angle_fits(truly, held.head_pose, own_offset) for own_offset in (False, True))
    limits = "yaw ±{:.0f}°, pitch ±{:.0f}°, roll ±{:.0f}°".format(*LIMITS_DEGREES)
    note = (
        f"{error.numel()} decoded pictures of {len(error)} people, {limits}, mean over the three angles. The reader "
        f"itself errs by {rotation_error(truly, held.head_pose).mean():.1f}° on true pictures. 95th percentile of the "
        f"error: {percentile(error.flatten(), 0.95):.1f}°."
    )
    told = (
        f"R²: {_listed(fits)}, every face with an offset of its own, for the reader cannot tell from one picture where "
        f"a head is level: {_listed(own_fits)} on true pictures, without offsets {_listed(own)}. Decoded, without "
        f"offsets: {_listed(angle_fits(seen, asked))}."
    )
    worst = min(fits.values())
    return [
        Row(POSE_ERROR, POSE_DEMANDS[POSE_ERROR], f"{error.mean():.1f}°", bool(error.mean() <= 2.5), note),
        Row(POSE_FIT, POSE_DEMANDS[POSE_FIT], f"{worst:.3f}", worst >= 0.97, told),
    ]


def _listed(fits: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in fits.items())


def identity_rows(bench: Bench, held: HeldOut, faces: Sequence[FaceLatents], truly_seen: Reading) -> list[Row]:
    """Everybody under the pose and expression of the next person, looked up among all source pictures."""
    lent = [held.head_pose[:, 1].roll(-1, 0), held.dynamics[:, 1].roll(-1, 0)]
    shown = read(bench.pipe, _one_each(bench, "identity", faces, *lent)).identity
    own = truly_seen.identity.unflatten(0, held.images.shape[:2])
    found, ceiling = retrieval(shown, own[:, 0]), retrieval(own[:, 1], own[:, 0])
    stranger = similarity(own[:, 0], own[:, 0].roll(1, 0)).mean()
    note = (
        "queries: decoded pictures, each with another person's pose and expression; gallery: the source "
        f"pictures of {len(held)} people. Other true pictures as queries: {ceiling:.0%}. Mean similarity to "
        f"the source {similarity(shown, own[:, 0]).mean():.2f}, true pictures "
        f"{similarity(own[:, 1], own[:, 0]).mean():.2f}, strangers {stranger:.2f}."
    )
    met = found >= 0.95 if len(held) >= _RETRIEVAL_PEOPLE else None
    return [Row(IDENTITY, IDENTITY_DEMANDS[IDENTITY], f"{found:.0%} among {len(held)}", met, note)]


def probe_rows(bench: Bench, held: HeldOut) -> list[Row]:
    """What a linear map finds in the dynamics code of true pictures."""
    pictures, pipe = held.images.flatten(0, 1), bench.pipe
    count = bench.counter("dynamics codes", len(pictures))
    codes = []
    for some in pictures.split(32):
        with torch.inference_mode():
            codes.append(pipe.models.face.read(some.to(pipe.device))[1].cpu())
        count(sum(map(len, codes)))
    codes = torch.cat(codes)
    frames = held.images.shape[1]
    people = torch.arange(len(held)).repeat_interleave(frames)
    order = torch.arange(frames).repeat(len(held))
    expression = explained(codes, held.dynamics.flatten(0, 1)[:, : len(EXPRESSIONS)], people)
    pose = explained(codes, held.head_pose.flatten(0, 1)[:, :3], people)
    who, chance = named(codes, people, order), 1 / len(held)
    note = (
        f"closed-form ridge on the {codes.shape[1]} channels of E_dyn, {len(pictures)} pictures of "
        f"{len(held)} people, fitted on 70 % of the people and scored on the others; expression: all 57 "
        "weights together, pose: yaw, pitch and roll together; below 0 is worse than guessing the mean."
    )
    limit = chance + 0.05
    naming = f"linear classifier fitted on the person's other {frames - 1} pictures; chance is {chance:.1%}."
    return [
        Row(EXPRESSION, "> 0.9", f"{expression:.2f}", expression > 0.9, note),
        Row(POSE, "< 0.1", f"{pose:.2f}", pose < 0.1),
        Row(PERSON, "≤ chance + 5 %", f"{who:.1%} (limit {limit:.1%})", who <= limit, naming),
    ]
