"""Random people, studios and labels."""

import pytest
import torch
from torch import Generator

from vasa.geometry import AVERAGE_LOG_SCALE
from vasa.latents import EMOTIONS, EXPRESSIONS
from vasa.synthetic.assets import load_pack
from vasa.synthetic.complexion import recolour, sample_tone
from vasa.synthetic.emotions import EMOTION_SHAPES, sample_emotion
from vasa.synthetic.people import held_out_hair, held_out_skin, sample_person
from vasa.synthetic.stills import sample_face, sample_labels
from vasa.synthetic.studio import sample_background, sample_studio
from vasa.synthetic.surface_map import surface_map


@pytest.fixture(scope="module")
def pack():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("VASA_ASSETS", raising=False)
        return load_pack()


def people_of(pack, count, split="train"):
    return [sample_person(pack, Generator().manual_seed(seed), split) for seed in range(count)]


def test_equal_seeds_give_equal_people_and_splits_differ(pack):
    first, second = (sample_person(pack, Generator().manual_seed(3)) for _ in range(2))
    other = sample_person(pack, Generator().manual_seed(3), "test")
    assert torch.equal(first.skin, second.skin) and torch.equal(first.shape, second.shape)
    assert not torch.equal(first.shape, other.shape)


def test_lips_meet_at_rest(pack):
    upper, lower = pack.landmarks[[61, 62, 63]], pack.landmarks[[67, 66, 65]]
    for person in people_of(pack, 6):
        head = pack.neutral + torch.einsum("i,ivc->vc", person.shape, pack.identity)
        before = (head[upper, 1] - head[lower, 1]).mean()
        head = head + torch.einsum("e,evc->vc", person.rest, pack.expression)
        after = (head[upper, 1] - head[lower, 1]).mean()
        assert abs(after) <= max(0.02, 0.05 * abs(before))


def test_people_are_within_their_ranges(pack):
    for person in people_of(pack, 6):
        assert person.skin.shape == (3, 512, 1024) and person.cloth.shape == (3, 256, 256)
        for picture in (person.skin, person.cloth, *(mesh.texture for mesh in person.hair)):
            assert torch.isfinite(picture).all() and picture.min() >= 0 and picture.max() <= 1
        assert 1.0 <= person.eye_scale <= 1.35 and 1.0 <= person.head_scale <= 1.35
        for mesh in person.hair:
            assert torch.isfinite(mesh.vertices).all() and mesh.faces.max() < len(mesh.vertices)


def test_no_skin_is_green_or_grey(pack):
    surface = surface_map(pack)
    x, y, z = surface.position
    cheek = (x.abs() > 2) & (x.abs() < 5) & (y > -1.5) & (y < 1.5) & (z > 6) & surface.inside
    for person in people_of(pack, 8):
        red, green, blue = person.skin[:, cheek].mean(1).tolist()
        assert red > 1.1 * green > 1.1 * 0.95 * blue


def test_recolour_reaches_the_tone(pack):
    surface, tone = surface_map(pack), torch.tensor([0.7, 0.5, 0.375])
    x, y, z = surface.position
    cheek = (x.abs() > 2) & (x.abs() < 5.5) & (y > -2) & (y < 2) & (z > 6) & surface.inside
    for skin in list(pack.skins.values())[:3]:
        assert torch.allclose(recolour(skin, tone, surface)[:, cheek].mean(1), tone, atol=0.05)


def test_tones_span_light_and_dark():
    generator = Generator().manual_seed(0)
    light = torch.stack([sample_tone(generator) for _ in range(200)]).mean(1)
    assert light.min() < 0.32 and light.max() > 0.75


def test_training_people_never_wear_what_is_held_out(pack, monkeypatch):
    class Watched(dict):
        worn: set = set()

        def __getitem__(self, name):
            self.worn.add(name)
            return super().__getitem__(name)

    skins, hair = Watched(pack.skins), Watched(pack.hair)
    Watched.worn = set()
    watched = type(pack)(**{**pack.__dict__, "skins": skins, "hair": hair})
    people_of(watched, 12)
    kept = {held_out_hair(pack)} | ({held_out_skin(pack)} if len(pack.skins) > 1 else set())
    assert not Watched.worn & kept


def test_labels_stay_within_their_ranges():
    generator = Generator().manual_seed(1)
    labels = [sample_labels(generator, 16) for _ in range(20)]
    pose = torch.cat([each.head_pose for each in labels])
    dynamics = torch.cat([each.dynamics for each in labels])
    assert pose.shape == (320, 6) and dynamics.shape == (320, 59)
    assert (pose[:, :3].abs() <= torch.tensor([0.62, 0.39, 0.32])).all()
    assert pose[:, 3:5].abs().max() <= 0.2 and (pose[:, 5] - AVERAGE_LOG_SCALE).abs().max() <= 0.47
    assert dynamics[:, :57].min() >= 0 and dynamics[:, :57].max() <= 1
    assert (dynamics[:, 57:].abs() <= torch.tensor([0.44, 0.27])).all()
    assert pose[:, 0].std() > 0.15
    sizes = torch.stack([each.head_pose[:, 5] for each in labels])
    away = (sizes - sizes.median(1, keepdim=True).values).abs()
    assert away.max() <= 0.33 and 0.1 < (away > 0.1).float().mean() < 0.3, "some come close or draw back, most do not"
    assert sizes.median(1).values.std() > 0.04


def test_pose_range_narrows_the_pose():
    narrow = sample_labels(Generator().manual_seed(0), 200, pose_range=0.3).head_pose
    assert narrow[:, 0].abs().max() <= 0.19


def test_lids_follow_the_gaze():
    generator = Generator().manual_seed(2)
    faces = torch.stack([sample_face(generator) for _ in range(400)])
    open_eyes = faces[:, EXPRESSIONS.index("eyeBlink_L")] < 0.1
    down, yaw, pitch = faces[:, EXPRESSIONS.index("eyeLookDown_L")], faces[:, 57], faces[:, 58]
    assert (down[open_eyes & (pitch > 0.1)] > 0.15).all()
    inwards = faces[:, EXPRESSIONS.index("eyeLookIn_L")]
    assert (inwards[yaw > 0.1] > 0).all() and (inwards[yaw < -0.05] == 0).all()
    blinks = faces[:, EXPRESSIONS.index("eyeBlink_L")] > 0.6
    assert 0.05 < blinks.float().mean() < 0.3


def test_emotions():
    assert EMOTION_SHAPES.shape == (len(EMOTIONS), 57) and not EMOTION_SHAPES[0].any()
    generator = Generator().manual_seed(0)
    drawn = torch.stack([sample_emotion(generator) for _ in range(100)])
    assert torch.allclose(drawn.sum(1), torch.ones(100)) and (drawn >= 0).all()
    assert (drawn.amax(0) > 0.5).all()


def test_studios_are_lit_by_nearly_white_light():
    for seed in range(20):
        studio = sample_studio(Generator().manual_seed(seed), 32)
        colours = torch.cat([studio.light_colours, studio.ambient[None], studio.sky[None] + 1e-6])
        assert (colours / colours.mean(1, keepdim=True) - 1).abs().max() <= 0.085
        assert (studio.light_directions.norm(dim=1) - 1).abs().max() < 1e-5
        assert 1.9 <= studio.focal <= 4.0 and studio.background.shape == (3, 32, 32)
        assert studio.background.min() >= 0 and studio.background.max() <= 1


def test_backgrounds_differ():
    generator = Generator().manual_seed(0)
    pictures = torch.stack([sample_background(generator, 24) for _ in range(40)])
    assert pictures.std(dim=(2, 3)).mean(1).gt(0.05).float().mean() > 0.3
