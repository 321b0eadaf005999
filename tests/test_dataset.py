"""Shards: what is stored, that it repeats, and that its flow is right."""

import pytest
import torch
import torch.nn.functional as F

from vasa.errors import InputError
from vasa.geometry import identity_grid
from vasa.synthetic.assets import load_pack
from vasa.synthetic.dataset import SOURCES, load_shard, person_seed, render_person, write_shard

PEOPLE, FRAMES, SIZE = 2, 3, 64


@pytest.fixture(scope="module")
def pack():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("VASA_ASSETS", raising=False)
        return load_pack()


@pytest.fixture(scope="module")
def shard(pack, tmp_path_factory):
    path = tmp_path_factory.mktemp("shard") / "train.safetensors"
    write_shard(path, pack, PEOPLE, FRAMES, SIZE, seed=1)
    assert [p.name for p in path.parent.iterdir()] == ["train.safetensors"]
    return load_shard(path)


def test_what_a_shard_holds(shard):
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in shard.items()}
    pairs, half = (PEOPLE, FRAMES, min(FRAMES, SOURCES)), SIZE // 2
    assert shapes == {
        "images": ((PEOPLE, FRAMES, 3, SIZE, SIZE), torch.uint8),
        "head_pose": ((PEOPLE, FRAMES, 6), torch.float32),
        "dynamics": ((PEOPLE, FRAMES, 59), torch.float32),
        "landmarks": ((PEOPLE, FRAMES, 68, 2), torch.float32),
        "part": ((PEOPLE, FRAMES, SIZE // 2, SIZE // 2), torch.uint8),
        "flow": ((*pairs, 2, half, half), torch.float16),
        "visible": ((*pairs, half, half), torch.uint8),
        "seed": ((PEOPLE,), torch.int64),
    }


def test_a_frame_flows_to_itself(shard):
    grid = identity_grid((SIZE // 2, SIZE // 2)).permute(2, 0, 1)
    for frame in range(min(FRAMES, SOURCES)):
        flow, visible = shard["flow"][:, frame, frame].float(), shard["visible"][:, frame, frame]
        assert (flow - grid).abs().max() < 2e-3
        assert visible.float().mean() > 0.97


def test_warping_a_frame_by_the_flow_gives_the_other(shard):
    images = shard["images"].float() / 255
    grid = identity_grid((SIZE // 2, SIZE // 2))[None]
    warped_error = copied_error = 0.0
    for person in range(PEOPLE):
        for target in range(FRAMES):
            for source in set(range(min(FRAMES, SOURCES))) - {target}:
                flow = shard["flow"][person, target, source].float().permute(1, 2, 0)[None]
                moved = (flow[0] - grid[0]).norm(dim=-1) > 0.01
                seen = shard["visible"][person, target, source].bool() & moved
                pictures = [
                    F.grid_sample(images[person, frame][None], place, align_corners=True)[0]
                    for frame, place in ((target, grid), (source, flow), (source, grid))
                ]
                warped_error += (pictures[1] - pictures[0])[:, seen].square().sum()
                copied_error += (pictures[2] - pictures[0])[:, seen].square().sum()
    assert warped_error < 0.4 * copied_error


def test_people_repeat_by_seed_and_splits_never_share_one(pack, shard):
    again = render_person(pack, FRAMES, SIZE, person_seed(1, 0, "train"))
    assert torch.equal(again["images"], shard["images"][0]) and torch.equal(again["flow"], shard["flow"][0])
    train = {person_seed(s, i, "train") for s in range(30) for i in range(64)}
    test = {person_seed(s, i, "test") for s in range(30) for i in range(64)}
    assert len(train) == len(test) == 30 * 64 and not train & test


def test_a_wrong_split_is_refused(pack, tmp_path):
    with pytest.raises(InputError, match="split"):
        write_shard(tmp_path / "x", pack, 1, 1, SIZE, 0, split="holiday")
