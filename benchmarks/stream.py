"""Live streaming: what each plan costs, latency, silence, and whether an hour stays flat.

    python benchmarks/stream.py                                  # plans, latency and silence of vasa-mini
    python benchmarks/stream.py --minutes 60 --hop 10            # also memory and time a frame over an hour of sound
    python benchmarks/stream.py --only hour --model tests/data/tiny --minutes 60 --hop 10 --steps 2

Markdown tables on stdout. Times are wall times of this machine as it is; the load average is printed with them.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from vasa import Controls, Vasa  # noqa: E402
from vasa.io.audio import load_audio  # noqa: E402
from vasa.io.face import portrait_crop  # noqa: E402
from vasa.io.image import load_image  # noqa: E402
from vasa.io.transport import TransportStream  # noqa: E402
from vasa.latents import DYNAMICS, FaceLatents  # noqa: E402
from vasa.live import HOPS, frames_at_a_time, measured, run_live  # noqa: E402
from vasa.metrics.motion_quality import blink_peaks  # noqa: E402
from vasa.motion.plan import WindowPlan  # noqa: E402
from vasa.stream import Session  # noqa: E402

RATE = 16_000


class Spoken:
    """A speech file over and over, block by block, as if it came out of a pipe."""

    sample_rate = RATE

    def __init__(self, waveform: np.ndarray, seconds: float, block: int = 640) -> None:
        self._waveform, self._left, self._block, self._at = waveform, round(seconds * RATE), block, 0
        self.ended = False

    def next(self, timeout: float | None = None) -> np.ndarray | None:
        if self._left <= 0:
            self.ended = True
            return None
        count = min(self._block, self._left)
        index = (self._at + np.arange(count)) % len(self._waveform)
        self._at, self._left = self._at + count, self._left - count
        return self._waveform[index]


def memory() -> float:
    """Resident memory now, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def plans(pipe: Vasa, face: FaceLatents, steps: int) -> Iterator[str]:
    """What a window and a frame cost for every hop."""
    yield "| hop + look-ahead | drawn | window | a frame of it | decoding a frame | share of real time |"
    yield "|---|---|---|---|---|---|"
    for hop in HOPS[:5]:
        plan = WindowPlan.live(hop, 2, steps)
        pace = measured(pipe, face, {hop: plan})
        window = 1000 * pace.window[hop]
        yield (
            f"| {hop} + 2 | {plan.window} | {window:.0f} ms | {window / hop:.1f} ms | {1000 * pace.frame:.1f} ms | "
            f"{100 * pace.load(hop, pipe.fps):.0f} % |"
        )


def latency(pipe: Vasa, face: FaceLatents, speech: np.ndarray, plan: WindowPlan, seconds: float) -> str:
    """Hop ready to first frame out, by the clock and in processor time; the latter is what an idle machine takes."""
    session = Session(pipe, face, Controls(), plan)
    session.push_audio(np.resize(speech, round(seconds * RATE)))
    session.flush()
    wall, busy, frames = [], [], 0
    began = time.process_time()
    while True:
        clocks = time.perf_counter(), time.process_time()
        if (motion := session.pop_motion()) is None:
            break
        for number, pictures in enumerate(pipe.decode(face, motion, batch_size=frames_at_a_time(pipe))):
            frames += len(pictures)
            if number == 0:
                wall.append(time.perf_counter() - clocks[0])
                busy.append(time.process_time() - clocks[1])
    speed = frames / (time.process_time() - began)
    columns = [f"{1000 * np.quantile(times, q):.0f} ms" for times in (wall, busy) for q in (0.5, 0.95, 0.99)]
    return f"| {plan.hop} + {plan.look_ahead} | {plan.steps} | {' | '.join(columns)} | {speed:.1f} | {frames} |"


def silence(pipe: Vasa, face: FaceLatents, speech: np.ndarray, plan: WindowPlan) -> Iterator[str]:
    """Speech, ten seconds of nothing, speech: does the mouth close, does the face live, does it go on smoothly."""
    spoken = torch.from_numpy(speech[: 4 * RATE])
    session = Session(pipe, face, None, plan)
    for piece in (spoken, torch.zeros(10 * RATE), spoken):
        session.push_audio(piece)
    session.flush()
    vectors = torch.cat([motion.vectors for motion in iter(session.pop_motion, None)]).cpu()
    begin, end = 100, 350  # frames of the pause
    names = {name: 6 + i for i, name in enumerate(DYNAMICS)}
    jaw = vectors[:, names["jawOpen"]]
    steps = (vectors.diff(dim=0) / pipe.models.motion.std.cpu()).square().mean(1).sqrt()
    talking = torch.cat([steps[: begin - 1], steps[end + 25 :]])
    pose = vectors[:, :3].rad2deg()
    yield "| measure | figure |"
    yield "|---|---|"
    yield f"| jaw in the pause (from 0.6 s on), share of its 95th percentile in speech | {100 * jaw[begin + 15 : end].mean() / jaw[:begin].quantile(0.95):.0f} % |"  # noqa: E501
    yield f"| largest step of the first second after the pause, over the largest while talking | {steps[end - 1 : end + 24].max() / talking.max():.2f} |"  # noqa: E501
    yield f"| head movement in the pause, mean change a frame, over that in speech | {pose[begin:end].diff(dim=0).abs().mean() / pose[:begin].diff(dim=0).abs().mean():.2f} |"  # noqa: E501
    lids = vectors[begin:end, [names["eyeBlink_L"], names["eyeBlink_R"]]].mean(1)
    yield f"| blinks in the pause | {len(blink_peaks(lids))} in 10 s |"


def hour(pipe: Vasa, face: FaceLatents, speech: np.ndarray, plan: WindowPlan, minutes: float) -> Iterator[str]:
    """Memory, time a frame, and pictures against sound, at twelve points of a long run."""
    stream, marks = TransportStream(pipe.size, pipe.fps, RATE), []
    total = round(minutes * 60 * pipe.fps)
    started, busy, worst = time.perf_counter(), time.process_time(), 0.0
    rows = []

    def write(frames: torch.Tensor, samples: np.ndarray) -> None:
        nonlocal started, busy, worst
        stream.write(frames, samples)
        worst = max(worst, abs(stream.drift))
        if stream.frames_written * 12 // total > len(marks):
            marks.append(stream.frames_written)
            now = time.perf_counter()
            made = marks[-1] - (marks[-2] if len(marks) > 1 else 0)
            rows.append(
                f"| {marks[-1] / pipe.fps / 60:.1f} | {memory():.0f} MB | {1000 * (now - started) / made:.1f} ms | "
                f"{1000 * (time.process_time() - busy) / made:.1f} ms | "
                f"{1000 * worst:.3f} ms |"
            )
            print(rows[-1], file=sys.stderr, flush=True)
            started, busy, worst = time.perf_counter(), time.process_time(), 0.0

    run_live(Session(pipe, face, Controls(), plan), Spoken(speech, minutes * 60, 6400), write)
    yield "| minute | resident memory | time a frame | CPU time a frame | largest difference of pictures and sound |"
    yield "|---|---|---|---|---|"
    yield from rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vasa-mini")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", choices=("plans", "latency", "silence", "hour"))
    parser.add_argument("--seconds", type=float, default=20.0, help="of speech for the latency table")
    parser.add_argument("--minutes", type=float, default=0.0, help="of speech for the memory curve; 0 leaves it out")
    parser.add_argument("--hop", type=int, default=10, help="of the memory curve")
    parser.add_argument("--steps", type=int, default=10)
    given = parser.parse_args()
    pipe = Vasa.from_pretrained(given.model, device=given.device)
    picture = load_image(ROOT / "examples" / "portrait.png")
    face = pipe.encode(portrait_crop(picture.pixels, "auto", size=pipe.size).picture)
    speech = load_audio(ROOT / "examples" / "speech.wav").waveform.numpy()
    print(
        f"{pipe.config.name} on {pipe.device} ({pipe.dtype}), {torch.get_num_threads()} threads, PyTorch "
        f"{torch.__version__}, load {os.getloadavg()[0]:.1f} at the start\n"
    )
    if given.only in (None, "plans"):
        print("## Plans\n", *plans(pipe, face, given.steps), sep="\n", end="\n\n")
    if given.only in (None, "latency"):
        print("## Latency: hop ready to first frame out\n")
        print("| hop + look-ahead | steps | p50 | p95 | p99 | CPU p50 | CPU p95 | CPU p99 | frames/CPU s | frames |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        for hop in (5, 10, 20):
            print(latency(pipe, face, speech, WindowPlan.live(hop, 2, given.steps), given.seconds), flush=True)
        print()
    if given.only in (None, "silence"):
        print("## Silence\n", *silence(pipe, face, speech, WindowPlan.live(5, 2, given.steps)), sep="\n", end="\n\n")
    if given.minutes and given.only in (None, "hour"):
        plan = WindowPlan.live(given.hop, 2, given.steps)
        print(f"## {given.minutes:g} minutes, hop {plan.hop} + {plan.look_ahead}, {plan.steps} steps\n")
        print(*hour(pipe, face, speech, plan, given.minutes), sep="\n")
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
