"""Clips that go on from a motion: no jump, the exact frames, the same again, and clear refusals."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import vasa
from vasa.continuation import continue_from
from vasa.controls import Blink, HeadPose, Key, Track
from vasa.latents import DYNAMICS
from vasa.motion.plan import WindowPlan
from vasa.stream import Session

TINY_FOLDER = Path(__file__).parent / "data" / "tiny"
CONTROLS = vasa.Controls(steps=2, seed=5)
LIDS = [6 + DYNAMICS.index(f"eyeBlink_{side}") for side in "LR"]


@pytest.fixture(scope="module")
def pipe():
    return vasa.Vasa.from_pretrained(TINY_FOLDER, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def face(pipe):
    return pipe.encode(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)))


def speech(seconds, seed=0):
    noise = torch.rand(round(seconds * 16000), generator=torch.Generator().manual_seed(seed)) - 0.5
    t = torch.arange(len(noise)) / 16000
    return 0.3 * noise * (torch.sin(2 * torch.pi * 1.7 * t) > 0)


@pytest.fixture(scope="module")
def first(pipe, face):
    return pipe.generate(speech(3.0), face, CONTROLS)


def step_at_the_join(first, second):
    """From the last frame of one clip to the next one's first, as a part of the largest step inside either."""
    inside = torch.cat([first.vectors.diff(dim=0), second.vectors.diff(dim=0)]).abs().amax(0)
    return (second.vectors[0] - first.vectors[-1]).abs() / inside.clamp_min(1e-4)


def turned(degrees):
    return HeadPose((math.radians(degrees), 0.0, 0.0))


@pytest.mark.parametrize("before, after", [(0, 0), (20, 0), (0, 20), (20, 20)])
def test_the_join_is_no_larger_a_step_than_others(pipe, face, before, after):
    """Also where a control turned the head, which the generator knows nothing of."""
    first = pipe.generate(speech(3.0), face, replace(CONTROLS, head_pose=turned(before)))
    controls = replace(CONTROLS, seed=6, head_pose=turned(after))
    apart = pipe.generate(speech(2.0, 1), face, controls)
    joined = pipe.generate(speech(2.0, 1), face, controls, previous=first)
    assert len(joined) == 50 and torch.equal(joined.rest, first.rest)
    head, others = step_at_the_join(first, joined).tensor_split([6])
    assert head.max() < 0.6 and others.max() < 1.2
    assert step_at_the_join(first, apart).max() > 2, "else there would be nothing to close"
    assert torch.allclose(joined.head_pose[-20:].mean(0)[0], apart.head_pose[-20:].mean(0)[0], atol=0.06), (
        "two seconds later the head is where its own controls want it"
    )


def test_a_closed_lid_opens_from_where_it_is(pipe, face):
    first = pipe.generate(speech(1.0), face, replace(CONTROLS, blink=Blink(0.0, (0.96,))))
    assert first.vectors[-1, LIDS].min() == 1
    joined = pipe.generate(speech(1.0, 1), face, replace(CONTROLS, blink=Blink(0.0)), previous=first)
    lids = joined.vectors[:, LIDS]
    assert lids[0].min() > 0.9 and lids[5].max() < 0.6 and lids[10:].max() == 0
    assert (lids.diff(dim=0) <= 1e-6).all()


@pytest.mark.parametrize("frames", [1, 4, 5, 9, 14, 15, 22, 40])
def test_any_number_of_frames_can_be_continued(pipe, face, first, frames):
    joined = pipe.generate(speech(1.02, 1), face, replace(CONTROLS, seed=6), previous=first[-frames:])
    assert len(joined) == 26
    assert step_at_the_join(first, joined)[:6].max() < 1


def test_the_same_seed_gives_the_same_clip_and_another_motion_another(pipe, face, first):
    one, same = (pipe.generate(speech(1.0, 1), face, CONTROLS, previous=first) for _ in range(2))
    other = pipe.generate(speech(1.0, 1), face, CONTROLS, previous=first[:60])
    assert torch.equal(one.vectors, same.vectors) and not torch.equal(one.vectors, other.vectors)


def test_controls_count_from_the_new_clips_beginning(pipe, face, first):
    curve = Track([Key(0.0, 0.0), Key(1.0, 1.0)])
    asked = []
    shaped = pipe.shaped
    pipe.shaped = lambda motion, curves, face: asked.append(curves.mouth) or shaped(motion, curves, face)
    pipe.generate(speech(1.0), face, replace(CONTROLS, mouth=curve), previous=first)
    del pipe.shaped
    assert torch.allclose(torch.cat(asked[1:])[:, 0], replace(CONTROLS, mouth=curve).curves(25).mouth[:, 0])


def test_steps_are_counted_exactly(pipe, face, first):
    seen = []
    pipe.generate(speech(4.0, 1), face, CONTROLS, previous=first, progress=lambda *step: seen.append(step))
    assert seen == [(done, 6) for done in range(1, 7)], "three windows of two steps"


def test_a_saved_session_knows_where_its_clip_began(pipe, face, first):
    plan = WindowPlan.live(steps=2)
    controls = replace(CONTROLS, head_pose=HeadPose(Track([Key(0.0, (0.0, 0.0, 0.0)), Key(2.0, (0.3, 0.0, 0.0))])))
    past = continue_from(pipe, first, face, controls, plan).past
    whole, half, rest = (Session(pipe, face, controls, plan, past=past) for _ in range(3))
    sound = speech(2.0, 1)
    expected = fed(whole, sound)
    begun = fed(half, sound[:16000], flush=False)
    rest.resume(half.state())
    assert torch.equal(torch.cat([begun, fed(rest, sound[16000:])]), expected)


def fed(session, sound, flush=True):
    session.push_audio(sound)
    if flush:
        session.flush()
    return torch.cat([motion.vectors for motion in iter(session.pop_motion, None)])


def test_a_motion_of_another_portrait_and_rate_is_taken_up_as_movement(pipe, face, first):
    other = pipe.encode(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(9)))
    other = replace(other, head_pose=face.head_pose + 0.1)
    moved = pipe.adopted(first, other)
    slower = replace(moved, fps=12.5)
    joined = pipe.generate(speech(1.0, 1), other, CONTROLS, previous=first)
    assert step_at_the_join(moved, joined)[:6].max() < 0.6 and torch.equal(joined.rest, other.head_pose[0])
    again = pipe.generate(speech(1.0, 1), other, CONTROLS, previous=slower)
    assert (again.head_pose[0] - slower.head_pose[-1]).abs().max() < 0.1


def test_an_absolute_motion_is_continued_where_it_is(pipe, face, first):
    absolute = replace(first, rest=None)
    joined = pipe.generate(speech(1.0, 1), face, CONTROLS, previous=absolute)
    assert torch.equal(joined.vectors, pipe.generate(speech(1.0, 1), face, CONTROLS, previous=first).vectors)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda m: replace(m, backend="other"), "made for the backend 'other', the model is 'vasa'"),
        (lambda m: m[:0], "at least one frame"),
        (lambda m: replace(m, head_pose=m.head_pose[None], facial_dynamics=m.facial_dynamics[None]), "one previous"),
        (lambda m: replace(m, facial_dynamics=m.facial_dynamics[:, :8]), "8 dynamics channels, the model has 59"),
    ],
    ids=["backend", "empty", "batch", "channels"],
)
def test_motions_that_cannot_be_continued_are_refused(pipe, face, first, change, message):
    with pytest.raises(vasa.InputError, match=message):
        pipe.generate(speech(1.0), face, CONTROLS, previous=change(first))
