"""Laws of the face model, and its sizes."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from vasa.config import BROW_TRUNK, PATCH_TRUNK, TINY, VASA1, VASA_MINI, VasaConfig
from vasa.face.background import agreement, behind
from vasa.face.decoder import Decoder, enlarge, sample_picture, trusted
from vasa.face.encoder import FACE_CENTRE, DynamicsEncoder, align_face, align_grid
from vasa.face.matte import PersonMatte
from vasa.face.model import FaceModel
from vasa.face.near import MARKS, MarkTrunk, PatchTrunks
from vasa.face.patches import mirror_pose
from vasa.face.reader import FaceReader
from vasa.face.surface import HALF, MIDDLE, MeanSurface
from vasa.geometry import (
    identity_grid,
    in_perspective,
    inverse_pose_matrix,
    moved_in_space,
    out_of_perspective,
    pose_matrix,
    rotation,
    turn_between,
)
from vasa.latents import DYNAMICS
from vasa.motion.transformer import Denoiser
from vasa.synthetic.formula import formula_pack
from vasa.synthetic.surface import mean_surface
from vasa.training.data import _MIRROR_LANDMARKS


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return FaceModel(TINY.face).eval()


@pytest.fixture
def portrait():
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def pose(*values):
    return torch.tensor([values])


def test_configurations_survive_json():
    for config in (TINY, VASA_MINI, VASA1):
        assert VasaConfig.from_json(config.to_json()) == config


def test_weights_from_before_brows_were_looked_at_load():
    old = json.loads(VASA_MINI.to_json())
    del old["reader"], old["face"]["dynamics_brows"]
    config = VasaConfig.from_json(json.dumps(old))
    assert config.reader.brows.kind == config.face.dynamics_brows.kind == "none"
    for module in (FaceReader(config.reader), DynamicsEncoder(config.face)):
        assert not any("brow" in name for name in module.state_dict())


def test_brows_and_landmarks_are_seen_alike_on_both_sides(portrait):
    """A face in the mirror: what the left brow showed, the right one shows, and landmarks change sides."""
    torch.manual_seed(0)
    near, there = PatchTrunks(PATCH_TRUNK, 8, BROW_TRUNK), pose(0.2, 0.1, 0.1, 0.05, 0.0, -0.3)
    with torch.inference_mode():
        (seen, marks), (twin, twin_marks) = near(portrait, there), near(portrait.flip(-1), mirror_pose(there))
    brows = slice(-2 * (PatchTrunks._BROW + len(MARKS)), -2 * len(MARKS))
    (left, right), (twin_left, twin_right) = seen[:, brows].chunk(2, dim=-1), twin[:, brows].chunk(2, dim=-1)
    assert torch.allclose(left, twin_right, atol=1e-4) and torch.allclose(right, twin_left, atol=1e-4)
    assert (left - right).abs().max() > 1e-3
    eyes_and_brows = torch.tensor([i for i in range(len(MARKS)) if MARKS[i] < 48])
    across = torch.tensor([MARKS.index(_MIRROR_LANDMARKS[MARKS[i]]) for i in eyes_and_brows])
    assert torch.allclose(twin_marks[:, eyes_and_brows], marks[:, across] * torch.tensor([-1.0, 1.0]), atol=1e-4)


def test_a_warm_spot_is_where_the_landmark_is():
    """A map that is warm in one cell of 4 pixels answers with the middle of these pixels."""
    trunk = MarkTrunk(PATCH_TRUNK, 8, marks=1)
    cells = torch.full((1, 1, 16, 16), -1e4)
    cells[0, 0, 3, 10] = 0
    trunk.maps.forward = lambda x: cells
    _, place = trunk.find(torch.rand(1, 3, 64, 64))
    assert torch.allclose(place[0, 0], torch.tensor([10 * 4 + 1.5, 3 * 4 + 1.5]) / 63 * 2 - 1, atol=1e-5)


def test_untrained_at_the_same_pose_shows_the_portrait(model, portrait):
    """Zero-initialised fields, flows and choices leave warped pixels where they were."""
    with torch.inference_mode():
        p = pose(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        decoded = model.decode(model.encode(portrait, p, torch.zeros(1, 59)), p, torch.zeros(1, 59))
    warped = sample_picture(portrait, enlarge(decoded.flow, 64))
    assert (warped - portrait).abs().mean() < 0.02
    assert decoded.image.shape == portrait.shape and decoded.mask.shape == (1, 1, 64, 64)


def test_untrained_in_plane_turn_moves_source_positions_rigidly(model, portrait):
    """The position volume, warped twice, is the composition of both poses."""
    face = model.encode(portrait, pose(0, 0, 0, 0, 0, 0.0), torch.zeros(1, 59))
    source_positions = face.appearance_volume[:, -2:]
    grid = identity_grid(source_positions.shape[2:])
    assert torch.allclose(source_positions[0].movedim(0, -1), grid[..., :2], atol=1e-4)
    turned = model.encode(portrait, pose(0, 0, 0.5, 0.1, 0, 0.0), torch.zeros(1, 59))
    expected = grid @ rotation(torch.tensor([0, 0, 0.5])).T + torch.tensor([0.1, 0, 0])
    inside = expected.abs().amax(-1) < 1
    got = turned.appearance_volume[0, -2:].movedim(0, -1)
    assert torch.allclose(got[inside], expected[..., :2][inside], atol=1e-4)


def test_mixed_precision_leaves_positions_alone(model, portrait):
    """bf16 steps by 1/256, half a pixel of 256: where a pixel comes from must not depend on the networks' precision."""
    source, driving = pose(0.1, 0, 0, 0.13, -0.07, -0.3), pose(0.3, -0.1, 0.2, 0.11, 0.05, -0.27)
    still = torch.zeros(1, 59)
    with torch.inference_mode():
        exact = model.decode(model.encode(portrait, source, still), driving, still).flow
        crop = align_grid(driving, 16)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model.decode(model.encode(portrait, source, still), driving, still).flow
            assert torch.equal(align_grid(driving, 16), crop)
    assert (rounded - exact).abs().max() < 1e-3


def test_one_portrait_many_frames_equals_one_by_one(model, portrait):
    g = torch.Generator().manual_seed(1)
    poses, codes = torch.randn(3, 6, generator=g) * 0.1, torch.randn(3, 59, generator=g) * 0.1
    with torch.inference_mode():
        face = model.encode(portrait)
        together = model.decode(face, poses, codes).image
        single = torch.cat([model.decode(face, poses[i : i + 1], codes[i : i + 1]).image for i in range(3)])
    assert torch.allclose(together, single, atol=1e-5)


def test_shoulders_may_move_apart_from_the_head(portrait):
    """Where only the shoulders' choice is taken, every position follows one affine map of the poses."""
    torch.manual_seed(3)
    model = FaceModel(TINY.face).eval()
    with torch.no_grad():
        model.decoder.choose_depth.bias[1] = 50.0
        model.decoder.shoulders.bias.copy_(torch.tensor([0.1, 0, 0.2, 0, 0.1, -0.1]))
        still = pose(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        flow = model.decode(model.encode(portrait, still, torch.zeros(1, 59)), still, torch.zeros(1, 59)).flow
    expected = identity_grid(flow.shape[2:]) * 1.1 + torch.tensor([0.2, -0.1])
    assert torch.allclose(flow[0].movedim(0, -1), expected, atol=1e-3)


def test_every_parameter_of_the_decode_path_learns(portrait):
    torch.manual_seed(1)
    model = FaceModel(TINY.face)
    with torch.no_grad():  # zero-initialised heads block gradients at the very first step
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.01)
    read_pose, read_code = model.read(portrait)
    decoded = model(portrait, pose(0.1, 0, 0, 0, 0, 0.0), torch.rand(1, 59))
    loss = decoded.image.square().sum() + decoded.painted.sum() + read_pose.sum() + read_code.sum()
    loss.backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert not idle


def test_aligned_crop_undoes_translation_scale_and_roll():
    grid = align_grid(pose(0.0, 0.0, 0.4, 0.2, -0.1, -0.5), 5)
    centre = rotation(torch.tensor([0.0, 0.0, 0.4])) @ torch.tensor(FACE_CENTRE)
    expected = torch.tensor(-0.5).exp() * centre[:2] + torch.tensor([0.2, -0.1])
    assert torch.allclose(grid[0, 2, 2], expected, atol=1e-5)
    step = grid[0, 2, 3] - grid[0, 2, 2]
    assert torch.atan2(step[1], step[0]) == pytest.approx(0.4, abs=1e-4)
    assert align_face(torch.rand(1, 3, 64, 64), pose(0, 0, 0, 0, 0, 0), 32).shape == (1, 3, 32, 32)


def on_a_plane(depth, **sizes):
    """A mean face that is flat."""
    surface = MeanSurface(replace(TINY.face, surface=16, surface_fields=8, **sizes)).eval()
    surface.depth.data.fill_(depth)
    return surface


def test_the_surface_is_found_where_geometry_says():
    here, there = pose(0.25, 0.05, 0.1, 0.05, 0.0, -0.3), pose(-0.3, 0.1, 0.0, 0.0, 0.05, -0.2)
    z, near = torch.zeros(1, 59), torch.tensor([0.4])
    points = torch.cat([0.5 * identity_grid((9, 9)), torch.full((9, 9, 1), -0.3)], dim=-1).movedim(-1, 0)[None]
    shown, seen = (in_perspective(moved_in_space(pose_matrix(p), points), near)[:, :2] for p in (there, here))
    with torch.inference_mode():
        flow, met = on_a_plane(-0.3)(here, z, there, z, near, 64)
    found = F.grid_sample(flow, shown.movedim(1, -1), align_corners=True)
    assert torch.allclose(found, seen, atol=2e-3), (found - seen).abs().max()
    assert F.grid_sample(met, shown.movedim(1, -1), align_corners=True).min() > 0.99


def test_expressions_move_the_surface():
    """Where a chin is drawn lower than in the portrait, its pixels come from higher up, and only there."""
    surface, p = on_a_plane(-0.4), pose(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    surface.fields.data[3, 1, 5:] = 0.2  # the lower half goes down
    still, raised, far = torch.zeros(1, 59), torch.zeros(1, 59), torch.zeros(1)
    raised[0, 3] = 0.5
    with torch.inference_mode():
        rest, lower, back, same = (
            surface(p, a, p, b, far, 64)[0]
            for a, b in ((still, still), (still, raised), (raised, still), (raised, raised))
        )
    chin = (..., slice(52, 60), slice(28, 36))
    assert torch.allclose((lower - rest)[:, 1][chin], torch.tensor(-0.1), atol=1e-3)
    assert torch.allclose((back - rest)[:, 1][chin], torch.tensor(0.1), atol=1e-3)
    assert torch.allclose(same, rest, atol=1e-3) and (lower - rest)[:, :, :28].abs().max() < 1e-4
    assert (lower - rest)[:, 0].abs().max() < 1e-4


def test_the_mean_head_is_a_surface():
    depth, support, fields = mean_surface(formula_pack(), MIDDLE, HALF, 32)
    nose, temple = depth[0, 16:18, 15:17].min(), depth[0, 16, 9]
    assert nose < temple - 0.05, "the nose is nearer than the temples"
    assert support[0, 16, 16] == 1 and support[0, 0, 0] == 0
    jaw = fields[DYNAMICS.index("jawOpen"), 1]
    assert jaw[22:25, 14:18].max() > 0.1 and jaw[:10].abs().max() < 0.02, "the jaw takes the chin down, not the brow"


def test_a_model_that_chooses_the_surface_follows_it(portrait):
    torch.manual_seed(0)
    model, z = FaceModel(replace(TINY.face, closeness=0.4, surface=16, surface_fields=8)).eval(), torch.zeros(1, 59)
    here, there = pose(0.2, 0.0, 0.0, 0.0, 0.0, -0.2), pose(-0.2, 0.1, 0.0, 0.0, 0.0, -0.2)
    with torch.inference_mode():
        face = model.encode(portrait, here, z)
        model.decoder.choose_depth.bias[0] = 30.0
        chosen = model.drawn(face, there, z).flow
        model.decoder.choose_depth.bias[0] = -30.0
        avoided = model.drawn(face, there, z).flow
        exact, _ = model.surface(here, z, there, z, model.closeness(face.identity_code), 64)
    assert chosen.shape[-1] == 64 and torch.allclose(chosen[..., 24:40, 24:40], exact[..., 24:40, 24:40], atol=5e-3)
    assert (avoided - exact)[..., 24:40, 24:40].abs().max() > 0.02


def test_a_background_is_spread_over_its_person():
    slope = identity_grid((64, 64)).movedim(-1, 0)[None, :1].expand(-1, 3, -1, -1) / 4 + 0.5
    person = torch.zeros(1, 1, 32, 32)
    person[..., 10:22, 12:20] = 1
    shown = F.interpolate(person, size=64).expand(-1, 3, -1, -1) * (1 - 2 * slope) + slope  # far from the slope
    plate = behind(shown, person)
    assert (plate - slope).abs().max() < 0.06 and (plate - slope)[..., :16, :].abs().max() < 1e-3
    assert torch.allclose(behind(slope, person * 0), slope, atol=1e-3)
    assert behind(slope, torch.ones_like(person)).isfinite().all(), "a portrait that is all person"
    large = F.pad(torch.ones(1, 1, 44, 44), (10, 10, 10, 10))
    assert behind(large.expand(-1, 3, -1, -1), large).max() < 1e-3, "nothing of a large person is left"


def test_a_pixel_comes_from_where_the_portrait_shows_the_same():
    own = torch.ones(1, 1, 128, 128)
    own[..., 40:88, 40:88] = 0
    still, gone = identity_grid((128, 128)).movedim(-1, 0)[None], torch.ones_like(own)
    assert torch.equal(agreement(own, own, still), gone), "where nothing has moved all of it agrees"
    left = agreement(gone, own, still)[0, 0]
    assert left[40:88, 40:88].max() == 0 and left[:39].min() == 1, "what is behind does not come from the person"
    taken = agreement(0 * gone, own, still)[0, 0]
    assert taken[:40].max() == 0 and taken[40:88, 40:88].min() == 1, "nor the person from what is behind"
    shifted = still + torch.tensor([32 / 63.5, 0.0])[None, :, None, None]
    moved = agreement(own.roll(-32, -1), own, shifted)
    assert moved[..., :94].min() > 0.99, "a person that has moved comes from where it stood"
    doubt = agreement(own * 0.2 + 0.45, own * 0.2 + 0.1, still)
    assert torch.allclose(doubt, torch.tensor(0.5), atol=1e-5)


def test_a_model_does_not_trust_what_a_head_has_left(portrait):
    torch.manual_seed(0)
    model, z = FaceModel(replace(TINY.face, background=True)).eval(), torch.zeros(1, 59)
    p, person = pose(0.0, 0.0, 0.0, 0.0, 0.0, 0.0), torch.ones(1, 1, 32, 32)
    with torch.inference_mode():
        model.decoder.behind.weight.normal_(std=0.1)
        face = model.encode(portrait, p, z, person)
        unmoved = model.decode(face, p, z)
        assert torch.equal(trusted(unmoved), unmoved.mask)
        half = face.uncovered.clone()
        half[..., : half.shape[-2] // 2, :] = 1 - half[..., : half.shape[-2] // 2, :].round()
        turned = model.decode(replace(face, uncovered=half), p, z)
    share = trusted(turned)
    assert share[..., :24, :].max() < 0.05 and torch.equal(share[..., 48:, :], turned.mask[..., 48:, :])
    assert torch.allclose(turned.image[..., :24, :], turned.painted[..., :24, :], atol=0.05)


def test_what_is_uncovered_can_be_painted_with_the_background(portrait):
    torch.manual_seed(0)
    model, z = FaceModel(replace(TINY.face, background=True)).eval(), torch.zeros(1, 59)
    p, person = pose(0.0, 0.0, 0.0, 0.0, 0.0, 0.0), torch.ones(1, 1, 32, 32)
    person[..., :8] = 0
    with pytest.raises(ValueError, match="expected the person's matte"):
        model.encode(portrait, p, z)
    with torch.inference_mode():
        face = model.encode(portrait, p, z, person)
        model.decoder.behind.bias.fill_(30.0)
        painted = model.drawn(face, p.expand(2, -1), z.expand(2, -1)).painted
    assert torch.allclose(painted, behind(portrait, person).expand(2, -1, -1, -1), atol=1e-4)
    assert (painted - portrait)[..., 32:].abs().max() > 0.1


def test_an_untrained_model_moves_pixels_as_a_near_camera_sees_them(portrait):
    """One plane of the volume chosen everywhere: the flow is that of this plane, seen twice in perspective."""
    torch.manual_seed(0)
    config = replace(TINY.face, closeness=0.4)
    model, z = FaceModel(config).eval(), torch.zeros(1, 59)
    here, there = pose(0.15, 0.05, 0.1, 0.05, 0.0, -0.3), pose(-0.1, 0.1, 0.0, 0.0, 0.05, -0.2)
    plane = 1
    model.decoder.choose_depth.bias.data.fill_(-30.0)[-config.volume_depth + plane] = 30.0
    depth = torch.linspace(-1, 1, config.volume_depth)[plane]
    grid = identity_grid((16, 16)).movedim(-1, 0)[None]
    posed = torch.cat([grid, depth.expand(1, 1, 16, 16)], dim=1)
    near = torch.tensor([0.4])
    canonical = moved_in_space(inverse_pose_matrix(there), out_of_perspective(posed, near))
    exact = in_perspective(moved_in_space(pose_matrix(here), canonical), near)[:, :2]
    with torch.inference_mode():
        flow = model.drawn(model.encode(portrait, here, z), there, z).flow
    flow = F.interpolate(flow, size=16, mode="bilinear", align_corners=True)
    middle = (..., slice(4, 12), slice(4, 12))
    assert torch.allclose(flow[middle], exact[middle], atol=6e-3), (flow - exact)[middle].abs().max()
    parallel = moved_in_space(pose_matrix(here), moved_in_space(inverse_pose_matrix(there), posed))[:, :2]
    assert (parallel - exact)[middle].abs().max() > 0.02, "the camera matters"


def test_depths_move_the_flow_as_far_as_the_head_turns(portrait):
    torch.manual_seed(0)
    model = FaceModel(replace(TINY.face, relief=True)).eval()
    here, there = pose(0.3, 0.1, 0.0, 0.0, 0.0, -0.5), pose(-0.2, 0.1, 0.4, 0.1, 0.0, -0.3)
    z = torch.zeros(1, 59)
    with torch.inference_mode():
        face = model.encode(portrait, here, z)
        before = model.decode(face, there, z).flow
        model.decoder.fine_flow.bias[-(model.decoder.shuffle**2) :] = 0.1
        moved = model.decode(face, there, z).flow - before
        unmoved = model.decode(face, here, z).flow
        model.decoder.fine_flow.bias.zero_()
        assert torch.allclose(unmoved, model.decode(face, here, z).flow, atol=1e-6), "no turn, no movement"
    lean = turn_between(here, there)[:, :2, 2]
    assert torch.allclose(moved, 0.1 * lean[..., None, None].expand_as(moved), atol=1e-5)
    # two points that the driving picture shows in one place, the second 0.1 deeper
    point = torch.tensor([0.2, -0.1, 0.5])
    points = torch.stack([point, point + 0.1 * rotation(there[0, :3])[2]], dim=1)
    shown, seen = ((pose_matrix(p)[0, :2, :3] @ points) for p in (there, here))
    assert torch.allclose(shown[:, 0], shown[:, 1], atol=1e-5)
    assert torch.allclose(seen[:, 1] - seen[:, 0], 0.1 * lean[0], atol=1e-5)


def test_flow_enlarges_without_shifting():
    flow = identity_grid((8, 8)).movedim(-1, 0)[None]
    assert torch.allclose(enlarge(flow, 29), identity_grid((29, 29)).movedim(-1, 0)[None], atol=1e-5)


def test_reader_reports_landmarks_in_the_picture():
    torch.manual_seed(0)
    reader = FaceReader(VASA_MINI.reader).eval()
    reading = reader(torch.rand(2, 3, 96, 96), torch.tensor([[0, 0, 0, 0.3, 0, -1.0]] * 2))
    assert reading.landmarks.shape == (2, 68, 2)
    assert (reading.landmarks[..., 0].mean() - 0.3).abs() < 0.3, "they lie about the crop"
    assert torch.allclose(reading.identity.norm(dim=-1), torch.ones(2), atol=1e-5)
    assert torch.allclose(reading.emotion.exp().sum(-1), torch.ones(2), atol=1e-5)


def flops(function) -> float:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() / 1e9


def test_mini_is_cheap_to_decode():
    with torch.device("meta"):
        model = FaceModel(VASA_MINI.face)
        portrait, p, z = torch.empty(1, 3, 256, 256), torch.empty(1, 6), torch.empty(1, 59)
        person = torch.empty(1, 1, 128, 128)
        face = model.encode(portrait, p, z, person)
        assert flops(lambda: model.decode(face, p, z)) < 8
        assert flops(lambda: model.encode(portrait, p, z, person)) < 8


VASA1_TABLE = {
    # module: (million parameters, GFLOP) of the research notes; docs/paper.md repeats it
    "appearance": (7.1, 568), "identity": (24.6, 10.8), "pose": (11.4, 1.2), "embed_driving": (1.3, None),
    "warp_driving": (9.0, 8.1), "unet": (72.0, 2022), "decoder": (41.1, 503),
}  # fmt: skip


def test_vasa1_has_the_sizes_of_the_paper():
    with torch.device("meta"):
        config = VASA1.face
        model = FaceModel(config)
        portrait = torch.empty(1, 3, 512, 512)
        volume = torch.empty(1, 96, 16, 64, 64)
        calls = {
            "appearance": lambda: model.appearance(portrait),
            "identity": lambda: model.identity(portrait),
            "pose": lambda: model.pose(portrait),
            "warp_driving": lambda: model.warp_driving(torch.empty(1, 512, 4, 4)),
            "unet": lambda: model.unet(volume),
            "decoder": lambda: model.decoder(volume.transpose(1, 2).flatten(1, 2), torch.empty(1, 128)),
        }
        for name, (parameters, cost) in VASA1_TABLE.items():
            mine = sum(p.numel() for p in getattr(model, name).parameters()) / 1e6
            assert mine == pytest.approx(parameters, rel=0.25), name
            if cost is not None:
                assert flops(calls[name]) == pytest.approx(cost, rel=0.05), name
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(188, rel=0.03)
        generator = Denoiser(VASA1.motion, VASA1.motion_dim, 769)
        assert sum(p.numel() for p in generator.parameters()) / 1e6 == pytest.approx(26.8, rel=0.03)
        picture = Decoder(config)(volume.transpose(1, 2).flatten(1, 2), torch.empty(1, 128))
        assert picture.shape == (1, 3, 512, 512)


def test_shipped_parts_fit_their_limits():
    """At most 30 MB in half precision, 15 MB a file; the reader 3 MB."""
    from vasa.audio import AudioEncoder

    audio = AudioEncoder(VASA_MINI.audio)
    parts = {
        "face": FaceModel(VASA_MINI.face),
        "motion": Denoiser(VASA_MINI.motion, VASA_MINI.motion_dim, audio.feature_dim),
        "audio": audio,
        "reader": FaceReader(VASA_MINI.reader),
        "matte": PersonMatte(),
    }
    megabytes = {k: sum(p.numel() for p in m.parameters()) * 2 / 1e6 for k, m in parts.items()}
    assert sum(megabytes.values()) < 30 and max(megabytes.values()) < 15 and megabytes["reader"] < 3
