"""Shaping generated motion: head, face, lids, and eyes that keep their aim."""

import math
from dataclasses import replace

import pytest
import torch

from vasa.controls import Blink, Controls, HeadPose, Key, Track
from vasa.geometry import AVERAGE_LOG_SCALE, NECK, rotation
from vasa.latents import DYNAMICS, EXPRESSIONS, Motion
from vasa.motion.gaze import FOLLOWERS, MAX_EYE, OVERSHOOT, told, turned_eyes
from vasa.motion.place import generator_rest, place
from vasa.motion.shape import shape
from vasa.synthetic.eyes import MAX_EYE as TRUE_MAX_EYE
from vasa.synthetic.eyes import lids

EYE = [DYNAMICS.index("eyeYaw"), DYNAMICS.index("eyePitch")]
BLINK = [DYNAMICS.index("eyeBlink_L"), DYNAMICS.index("eyeBlink_R")]
MOUTH = [i for i, name in enumerate(DYNAMICS) if name.startswith(("mouth", "jaw"))]
T = 60


def motion(portrait=(0.0,) * 6, frames=T) -> Motion:
    """Something a generator might draw, placed on a portrait (pose relative to the average framing)."""
    generator = torch.Generator().manual_seed(0)
    rest = generator_rest(torch.zeros(1))
    pose = rest + 0.05 * torch.randn(frames, 6, generator=generator)
    dynamics = 0.5 * torch.rand(frames, len(DYNAMICS), generator=generator)
    dynamics[:, EYE] = 0.1 * torch.randn(frames, 2, generator=generator)
    return place(Motion(pose, dynamics, rest=rest), rest + torch.tensor(portrait))


def shaped(controls: Controls, before: Motion | None = None) -> Motion:
    before = motion() if before is None else before
    return shape(before, controls.curves(len(before)), None, DYNAMICS)


def neck(pose):
    return pose[:, 3:5] + pose[:, 5:].exp() * (rotation(pose[:, :3]) @ torch.tensor(NECK))[:, :2]


def test_nothing_asked_for_changes_no_bit():
    before = motion()
    after = shaped(Controls(), before)
    assert torch.equal(after.head_pose, before.head_pose)
    assert torch.equal(after.facial_dynamics, before.facial_dynamics)
    assert torch.equal(after.rest, before.rest)


FULL = Controls(
    gaze=Track((Key(0.0, (0.2, 0.1)), Key(1.0, (-0.2, 0.0)))),
    head_pose=HeadPose((0.1, -0.05, 0.2), Track((Key(0.0, 0.0), Key(2.0, 2.0)))),
    blink=Blink(30.0, (0.8,)),
    expression=Track((Key(0.0, 0.5, "smooth"), Key(2.0, 1.5))),
    mouth=0.7,
)


@pytest.mark.parametrize("piece", [1, 7, 25])
def test_pieces_equal_the_whole(piece):
    before = motion((0.4, 0.1, 0.1, 0.05, 0.02, 0.1))
    whole = shaped(FULL, before)
    pieces = [
        shape(before[start : start + piece], FULL.curves(min(piece, T - start), 25.0, start), None, DYNAMICS)
        for start in range(0, T, piece)
    ]
    assert torch.equal(torch.cat([one.vectors for one in pieces]), whole.vectors)
    window = shape(before[10:30], FULL.curves(T), None, DYNAMICS, start=10)
    assert torch.equal(window.vectors, whole[10:30].vectors)
    with pytest.raises(ValueError, match="30 frames"):
        shape(before[10:30], FULL.curves(20), None, DYNAMICS, start=10)


def test_an_offset_turns_the_head_about_its_neck():
    before, offset = motion((0.3, 0.0, 0.0, 0.1, 0.0, 0.2)), (0.2, -0.1, 0.15)
    after = shaped(Controls(head_pose=HeadPose(offset)), before)
    assert torch.allclose(after.head_pose[:, :3] - before.head_pose[:, :3], torch.tensor(offset), atol=1e-6)
    assert torch.allclose(neck(after.head_pose), neck(before.head_pose), atol=1e-5)
    assert torch.equal(after.head_pose[:, 5], before.head_pose[:, 5])


def test_amplitude_scales_movement_about_the_portraits_rest():
    before = motion((0.3, 0.1, -0.1, 0.1, 0.05, 0.2))
    still = shaped(Controls(head_pose=HeadPose(amplitude=0.0)), before)
    assert torch.allclose(still.head_pose[:, :3], before.rest[:3].expand(T, 3), atol=1e-6)
    twice = shaped(Controls(head_pose=HeadPose(amplitude=2.0)), before)
    turn, turned = (m.head_pose[:, :3] - before.rest[:3] for m in (before, twice))
    assert torch.allclose(turned, 2 * turn, atol=1e-6)
    for one in (still, twice):
        assert torch.equal(one.head_pose[:, 5], before.head_pose[:, 5]), "the distance has a control of its own"
    # a head at rest and twice as near: the picture is enlarged about its middle, so the neck moves down
    near = replace(before, head_pose=before.rest + torch.tensor([0, 0, 0, 0, 0, math.log(2)]).expand(T, 6))
    assert torch.allclose(
        neck(shaped(Controls(head_pose=HeadPose(amplitude=0.0)), near).head_pose)[0] - neck(before.rest[None])[0],
        before.rest[5].exp() * torch.tensor(NECK)[:2],
        atol=1e-5,
    )


@pytest.mark.parametrize(("name", "others"), [("mouth", "expression"), ("expression", "mouth")])
def test_intensities_scale_their_own_channels(name, others):
    before = motion()
    fixed = ("eyeBlink", "eyeLook", "eyeYaw", "eyePitch", "PupilDilate")
    own = MOUTH if name == "mouth" else [
        i for i, n in enumerate(DYNAMICS) if i not in MOUTH and not n.startswith(fixed)
    ]  # fmt: skip
    rest = [i for i in range(len(DYNAMICS)) if i not in own]
    for factor in (0.0, 0.5, 1.5, 2.0):
        after = shaped(Controls(**{name: factor}), before).facial_dynamics
        wanted = (before.facial_dynamics[:, own] * factor).clamp(max=1)
        assert torch.allclose(after[:, own], wanted, atol=1e-6)
        assert torch.equal(after[:, rest], before.facial_dynamics[:, rest])
        assert torch.equal(shaped(Controls(**{name: factor}), before).head_pose, before.head_pose)


def test_a_blink_rate_replaces_the_generated_blinks_and_forced_ones_join_them():
    before = motion(frames=25 * 120)
    before.facial_dynamics[:, BLINK] = 0
    before.facial_dynamics[10:14, BLINK] = 0.9

    def shut(controls):
        closed = shaped(controls, before).facial_dynamics[:, BLINK].amin(1) > 0.8
        return closed & ~torch.cat([torch.zeros(1, dtype=torch.bool), closed[:-1]])

    assert shut(Controls())[:20].sum() == 1 and shut(Controls(blink=Blink(0.0))).sum() == 0
    for rate in (6.0, 20.0, 40.0):
        assert int(shut(Controls(blink=Blink(rate))).sum()) == pytest.approx(rate * 2, abs=1)
    forced = shut(Controls(blink=Blink(at=(1.0, 3.0))))
    assert forced.nonzero()[:, 0].tolist() == [10, 25, 75]
    after = shaped(Controls(blink=Blink(20.0)), before)
    others = [i for i in range(len(DYNAMICS)) if i not in BLINK]
    assert torch.equal(after.facial_dynamics[:, others], before.facial_dynamics[:, others])


def gaze(one: Motion) -> torch.Tensor:
    """Where the eyes look in the camera's frame, (yaw, pitch) [T, 2], by turning a forward ray."""
    eye = torch.nn.functional.pad(one.facial_dynamics[:, EYE], (0, 1))
    ray = rotation(one.head_pose[:, :3]) @ rotation(eye) @ torch.tensor([0.0, 0.0, -1.0])
    return torch.stack([torch.atan2(-ray[:, 0], -ray[:, 2]), torch.asin(ray[:, 1])], dim=1)


def test_positive_gaze_is_left_and_down():
    look = Motion(torch.zeros(1, 6), torch.zeros(1, len(DYNAMICS)))
    look.facial_dynamics[0, EYE] = torch.tensor([0.2, 0.1])
    assert torch.allclose(gaze(look), torch.tensor([[0.2, 0.1]]), atol=3e-3)


@pytest.mark.parametrize("portrait", [(0.0,) * 6, (0.45, 0.0, 0.0, 0, 0, 0), (0.3, -0.15, 0.0, 0, 0, 0)], ids=str)
@pytest.mark.parametrize("offset", [(0.0, 0.0, 0.0), (-0.2, 0.1, 0.0)], ids=str)
def test_eyes_keep_their_aim_on_a_turned_head(portrait, offset):
    frontal = motion()
    after = shaped(Controls(head_pose=HeadPose(offset, 0.5)), motion(portrait))
    added = after.head_pose[:, :2] + after.facial_dynamics[:, EYE]
    wanted = frontal.head_pose[:, :2] + frontal.facial_dynamics[:, EYE]
    free = (after.facial_dynamics[:, EYE].abs() < torch.tensor(MAX_EYE) - 1e-4).all(1)
    assert free.float().mean() > 0.6
    assert torch.allclose(added[free], wanted[free], atol=1e-5)
    if not any(offset) and not any(portrait):
        assert free.all()


@pytest.mark.parametrize("roll", [-0.3, 0.3])
@pytest.mark.parametrize("target", [(0.3, 0.0), (-0.2, 0.15)])
def test_eyes_keep_their_aim_on_a_tilted_head(roll, target):
    still = Motion(torch.zeros(1, 6), torch.zeros(1, len(DYNAMICS)), rest=torch.zeros(6))
    still.facial_dynamics[:, EYE] = torch.tensor(target)
    after = shaped(Controls(gaze=target, head_pose=HeadPose((0.1, 0.0, roll))), still)
    assert (gaze(after)[0] - torch.tensor(target)).rad2deg().abs().max() < 1.0
    untilted = replace(after, facial_dynamics=still.facial_dynamics)
    assert (gaze(untilted)[0] - torch.tensor(target)).rad2deg().abs().max() > 2.5


def test_lids_and_skin_follow_the_eyes_as_in_the_rendered_people():
    generator = torch.Generator().manual_seed(1)
    eye, new = (0.25 * torch.randn(40, 2, generator=generator).clamp(-1, 1) for _ in range(2))
    closure = torch.rand(40, generator=generator)
    before, wanted = (torch.cat([lids(e, closure), e], dim=1) for e in (eye, new))
    after = turned_eyes(before, DYNAMICS, torch.zeros(40, 2), eye - new, torch.zeros(40))
    assert torch.allclose(after[:, EYE], wanted[:, EYE], atol=1e-6)
    assert set(FOLLOWERS) == {name for name in EXPRESSIONS if name.startswith("eyeLook")}
    for name in FOLLOWERS:
        assert torch.allclose(after[:, DYNAMICS.index(name)], wanted[:, DYNAMICS.index(name)], atol=1e-5), name
    assert MAX_EYE == pytest.approx(TRUE_MAX_EYE)


def test_without_names_only_the_head_is_shaped():
    before = motion()
    after = shape(before, FULL.curves(T), None, ())
    assert torch.equal(after.facial_dynamics, before.facial_dynamics)
    assert not torch.equal(after.head_pose, before.head_pose)
    assert torch.allclose(before.rest, torch.tensor([0, 0, 0, 0, 0, AVERAGE_LOG_SCALE]))


def test_a_guided_generator_is_told_less_so_that_it_does_not_overshoot():
    asked = torch.tensor([[0.3, -0.1]])
    assert torch.equal(told(asked, {}), asked) and torch.equal(told(asked, {"audio": 2.0}), asked)
    assert torch.allclose(told(asked, {"gaze": 1.0}) * (1 + OVERSHOOT), asked)
    assert torch.equal(told(asked, {"gaze": 3.0}), told(asked, {"gaze": 1.0}))
