"""The runtime gives the same frames on every path, and goes on with less where the memory is too small."""

import contextlib
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vasa import Controls, Vasa, batches, compiled, graphs
from vasa.face.blocks import ResBlock
from vasa.graphs import Graphed
from vasa.io.video import yuv420
from vasa.kernels import positions, use_backend
from vasa.latents import Motion

TINY = Path(__file__).parent / "data" / "tiny"
FRAMES = 5


@pytest.fixture(scope="module")
def vasa():
    return Vasa.from_pretrained(TINY, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def face(vasa):
    return vasa.encode(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(scope="module")
def motion(vasa):
    draw = torch.Generator().manual_seed(1)
    return Motion(0.1 * torch.randn(FRAMES, 6, generator=draw), 0.3 * torch.rand(FRAMES, 59, generator=draw))


@torch.inference_mode()
def plain_frames(vasa, face, motion):
    return vasa.models.face.decode(face, motion.head_pose, motion.facial_dynamics).image.clamp(0, 1)


def frames(vasa, face, motion, **options):
    return torch.cat(list(vasa.decode(face, motion, **options)))


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_frames_are_those_of_the_model_at_any_batch_size(vasa, face, motion, batch_size):
    got = list(vasa.decode(face, motion, batch_size=batch_size))
    assert max(len(g) for g in got) == min(batch_size, FRAMES)
    assert torch.allclose(torch.cat(got), plain_frames(vasa, face, motion), atol=1e-4)


def test_triton_kernels_give_the_same_frames_and_the_same_motion(vasa, face, motion, monkeypatch):
    from vasa.kernels import launch

    if not launch.interpreting():
        pytest.skip("needs Triton's interpreter")
    monkeypatch.setenv("VASA_KERNELS_STRICT", "1")
    waveform = 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(2))
    few, motion = Controls(steps=2), Motion(motion.head_pose[:1], motion.facial_dynamics[:1])
    with use_backend("torch"):
        plain = frames(vasa, face, motion), vasa.generate(waveform, face, few).vectors
    with use_backend("triton"):
        fast = frames(vasa, face, motion), vasa.generate(waveform, face, few).vectors
    for got, exact in zip(fast, plain, strict=True):
        assert not torch.equal(got, exact), "the kernels were not used"
        assert torch.allclose(got, exact, atol=2e-3 if got is fast[1] else 1e-4)


def test_a_device_without_trilinear_sampling_gives_the_same_frames(motion, monkeypatch):
    own = Vasa.from_pretrained(TINY, device="cpu", precision="fp32")
    picture, gathered = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)), []
    with use_backend("torch"):
        plain = frames(own, own.encode(picture), motion)
        monkeypatch.setattr(positions, "WITHOUT_SAMPLING", ("cpu",))
        real = positions.gather_3d
        monkeypatch.setattr(positions, "gather_3d", lambda *given: (gathered.append(given), real(*given))[1])
        assert torch.allclose(frames(own, own.encode(picture), motion), plain, atol=1e-5)
    assert len(gathered) >= 3, "encoding, the field and the volume"


def test_frames_are_finished_before_they_travel(vasa, face, motion):
    finished = frames(vasa, face, motion, batch_size=2, finish=yuv420)
    assert torch.equal(finished, yuv420(frames(vasa, face, motion, batch_size=2)))

    def large(pictures):
        if len(pictures) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return yuv420(pictures)

    own = Vasa(vasa.models, vasa.device, vasa.dtype)
    with pytest.warns(RuntimeWarning, match="going on with 2"):
        assert torch.equal(frames(own, face, motion, batch_size=4, finish=large), finished)


def test_copies_wait_for_the_device_that_has_the_pictures(monkeypatch):
    """Which need not be the current one. Streams are stand-ins that take notes."""
    notes, current = [], ["main of cuda:0"]

    class Event:
        def record(self, stream=None):
            notes.append(("record", stream or current[-1]))

        def wait(self):
            notes.append(("wait", current[-1]))

    @contextlib.contextmanager
    def on(stream):
        current.append(stream)
        yield
        current.pop()

    pictures = SimpleNamespace(
        device=torch.device("cuda", 1), shape=(1, 3), dtype=torch.float32,
        record_stream=lambda stream: notes.append(("keep until", stream)),
    )  # fmt: skip
    landing = SimpleNamespace(copy_=lambda source, non_blocking: notes.append(("copy", current[-1])))
    cuda = SimpleNamespace(
        Event=Event, stream=on, current_stream=lambda device=None: f"main of {device}" if device else current[-1]
    )
    monkeypatch.setattr(batches, "torch", SimpleNamespace(
        cuda=cuda, empty=lambda *_, pin_memory, **__: landing if pin_memory else None,
    ))  # fmt: skip
    monkeypatch.setattr(batches, "_copies", lambda device: f"copies of {device}")
    assert batches._to_cpu(pictures)[0] is landing
    assert notes == [
        ("record", "main of cuda:1"), ("wait", "copies of cuda:1"), ("copy", "copies of cuda:1"),
        ("keep until", "copies of cuda:1"), ("record", "copies of cuda:1"),
    ]  # fmt: skip


@pytest.mark.parametrize("factors", [(2, 2), (2, 2, 2), (1, 2, 2)], ids=str)
def test_enlarging_folded_into_a_convolution_is_exact(factors):
    torch.manual_seed(0)
    block = ResBlock(8, 16, 8, dims=len(factors)).double().requires_grad_(False)
    x = torch.randn(2, 8, *(3, 5, 4)[-len(factors) :], dtype=torch.float64)
    plain = block.enlarged(x, factors)
    block.fold(factors, torch.float64)
    assert torch.allclose(block.enlarged(x, factors), plain, atol=1e-6)  # the taps are summed in float32
    assert block.enlarged(x, (1,) * len(factors)).shape[2:] == x.shape[2:], "other factors are not folded"


def test_half_precision_is_near(face, motion):
    half = Vasa.from_pretrained(TINY, device="cpu", precision="bf16")
    exact = plain_frames(half, face, motion)
    assert (frames(half, face, motion) - exact).abs().mean() < 0.02


def test_changed_weights_are_noticed(face, motion):
    own = Vasa.from_pretrained(TINY, device="cpu", precision="fp32")
    before = frames(own, face, motion)
    with torch.no_grad():
        own.models.face.decoder.head.bias.add_(1.0)
    after = frames(own, face, motion)
    assert not torch.allclose(before, after, atol=1e-3)
    assert torch.allclose(after, plain_frames(own, face, motion), atol=1e-4)


def test_too_little_memory_halves_the_batch_and_says_so(vasa, face, motion, monkeypatch):
    own = Vasa(vasa.models, vasa.device, vasa.dtype)
    real, sizes = own.renderer._pictures, []

    def small(head_pose, *rest):
        sizes.append(len(head_pose))
        if len(head_pose) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(head_pose, *rest)

    monkeypatch.setattr(own.renderer, "_pictures", small)
    with pytest.warns(RuntimeWarning, match="going on with 2"):
        got = frames(own, face, motion, batch_size=5)
    assert sizes == [5, 2, 2, 1] and own.largest_batch == 2
    assert torch.allclose(got, plain_frames(vasa, face, motion), atol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frames(own, face, motion, batch_size=5)  # it remembers


def test_memory_for_not_even_one_frame_is_an_error(vasa, face, motion, monkeypatch):
    own = Vasa(vasa.models, vasa.device, vasa.dtype)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(own.renderer, "_pictures", full)
    with pytest.raises(torch.OutOfMemoryError):
        frames(own, face, motion, batch_size=1)


@pytest.fixture
def recorded(monkeypatch):
    """Recording on the CPU: a replay runs the function again on the fixed buffers."""
    made = []

    def record(function, inputs):
        outputs = tuple(out.clone() for out in function(*inputs))
        made.append(inputs)

        def replay():
            for to, value in zip(outputs, function(*inputs), strict=True):
                to.copy_(value)

        return replay, outputs

    monkeypatch.setattr(graphs, "record", record)
    monkeypatch.setattr(graphs, "graphs_wanted", lambda tensors: True)
    return made


def test_a_replay_sees_new_values_and_one_recording_serves_a_shape(recorded):
    double = Graphed(lambda x, y: (2 * x if y is None else 2 * x + y,), "doubling")
    for value in (1.0, 2.0):
        assert double(torch.full((3,), value), None)[0].tolist() == [2 * value] * 3
    assert len(recorded) == 1
    double(torch.ones(4), None)
    double(torch.ones(3), torch.ones(3))
    assert len(recorded) == 3
    double.forget()
    double(torch.ones(3), None)
    assert len(recorded) == 4


def test_an_output_that_comes_back_as_input_is_read_again(recorded):
    step = Graphed(lambda x, by: (x + by,), "counting")
    x, by = torch.zeros(2), torch.ones(2)
    for _ in range(4):
        (x,) = step(x, by)
    assert x.tolist() == [4.0, 4.0]


def test_recorded_paths_give_the_same_motion_and_frames(vasa, face, motion, recorded):
    own = Vasa(vasa.models, vasa.device, vasa.dtype)
    waveform = 0.1 * torch.randn(24_000, generator=torch.Generator().manual_seed(2))
    few = Controls(steps=2)
    got = own.generate(waveform, face, few).vectors, frames(own, face, motion, batch_size=2)
    assert len(recorded) >= 3, "motion, full batches and the rest"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "graphs_wanted", lambda tensors: False)
        exact = own.generate(waveform, face, few).vectors, plain_frames(vasa, face, motion)
    assert torch.allclose(got[0], exact[0], atol=1e-5)
    assert torch.allclose(got[1], exact[1], atol=1e-4)


def test_what_cannot_be_recorded_runs_plainly_and_says_so_once(recorded, monkeypatch):
    def refuse(function, inputs):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "record", refuse)
    double = Graphed(lambda x: (2 * x,), "doubling")
    with pytest.warns(RuntimeWarning, match="doubling could not be recorded"):
        assert double(torch.ones(2))[0].tolist() == [2.0, 2.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert double(torch.ones(2))[0].tolist() == [2.0, 2.0]


def test_memory_that_runs_out_while_recording_does_not_end_recording(recorded, monkeypatch):
    def broken(function, inputs):
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")  # noqa: B012

    double = Graphed(lambda x: (2 * x,), "doubling")
    with monkeypatch.context() as patch:
        patch.setattr(graphs, "record", broken)
        with pytest.raises(torch.OutOfMemoryError):
            double(torch.ones(2))
    assert double(torch.ones(2))[0].tolist() == [2.0, 2.0] and len(recorded) == 1


def test_nothing_is_recorded_off_cuda_or_against_the_users_will(monkeypatch):
    assert not graphs.graphs_wanted((torch.ones(2),))
    monkeypatch.setenv("VASA_GRAPHS", "0")
    assert not graphs.graphs_wanted((torch.empty(2, device="meta"), None))


def test_compiling_is_asked_for_and_gives_the_same_frames(vasa, face, motion, monkeypatch):
    monkeypatch.setenv("VASA_COMPILE", "aot_eager")
    torch.compiler.reset()
    traced = []
    real = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda *given, **options: (traced.append(options), real(*given, **options))[1]
    )
    own = Vasa(vasa.models, vasa.device, vasa.dtype)
    with use_backend("torch"):
        got = frames(own, face, motion, batch_size=5)
    assert traced == [{"backend": "aot_eager", "dynamic": False}]
    assert torch.allclose(got, plain_frames(vasa, face, motion), atol=1e-4)


def test_what_cannot_be_compiled_runs_plainly_and_says_so_once(vasa, face, motion, monkeypatch):
    monkeypatch.setenv("VASA_COMPILE", "no_such_compiler")
    own = Vasa(vasa.models, vasa.device, vasa.dtype)
    with pytest.warns(RuntimeWarning, match="decoding could not be compiled .*no_such_compiler"):
        got = frames(own, face, motion, batch_size=5)
    assert torch.allclose(got, plain_frames(vasa, face, motion), atol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frames(own, face, motion, batch_size=2)


@pytest.mark.parametrize("word, backend", [("", None), ("0", None), ("1", "inductor"), ("aot_eager", "aot_eager")])
def test_nothing_is_compiled_unasked(monkeypatch, word, backend):
    monkeypatch.setenv("VASA_COMPILE", word)
    assert compiled.wanted() == backend
    if backend is None:
        assert compiled.compiled(len, "counting") is len
