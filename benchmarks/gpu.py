"""Everything that needs a GPU, in one call: is it right, is it repeatable, is it fast.

    python benchmarks/gpu.py --out "$OUT"          # within ten minutes on one GPU
    TRITON_INTERPRET=1 python benchmarks/gpu.py --rehearse --out out     # the checks without a GPU, small

1. Every kernel against float64: all modes, dtypes, three seeds, outputs poisoned with NaN between guard bands; the same
   bits in twenty runs, for every kernel without atomic additions. Pieces run beside each other, since most of the time
   goes into compiling.
2. compute-sanitizer's memcheck over the small shapes, where it is installed.
3. Whole frames and motion on every path: kernels, plain PyTorch, graphs off, fp16, one by one, left on the device, on
   streams of their own, with too little memory.
4. The tables of `vasa bench` for vasa-1, vasa-mini and the LivePortrait family, and the goals read off them.

Nothing is timed if 1 or 3 fails, unless --even-if-wrong. Every step is written to OUT as soon as it is done
(report.md, sanitizer.txt, bench-*.csv), none is begun that might outlast --limit, and a step that breaks is reported
and does not end the run. Exit code 0: nothing is wrong; missed goals are printed, not failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("VASA_KERNELS", "triton")
os.environ.setdefault("VASA_KERNELS_STRICT", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch  # noqa: E402
from gpu_checks import SHAPES, check, other_device, slices  # noqa: E402
from gpu_goals import goals  # noqa: E402
from gpu_paths import environment, family_agrees, paths_agree, tight  # noqa: E402

from vasa.backends.liveportrait.config import RendererConfig  # noqa: E402
from vasa.bench.table import machine  # noqa: E402
from vasa.kernels import dispatch  # noqa: E402

SANITIZER_SECONDS = 150
TINY = str(Path(__file__).resolve().parents[1] / "tests" / "data" / "tiny")


class Report:
    """What is printed and kept, in order, with the seconds since the start."""

    def __init__(self, out: Path, limit: float) -> None:
        self.out, self.limit, self.began, self.wrong = out, limit, time.monotonic(), False
        self.path = out / "report.md"
        self.path.write_text("")

    @property
    def left(self) -> float:
        """Seconds until the limit."""
        return self.limit - (time.monotonic() - self.began)

    def say(self, *lines: str) -> None:
        """Print and keep."""
        for line in lines:
            print(line, flush=True)
        with open(self.path, "a") as file:
            file.write("\n".join(lines) + "\n")

    def step(self, what: str, seconds: float, run, *arguments) -> object:
        """Do something that takes about so many seconds, if they are left; an error is reported."""
        if self.left < seconds:
            self.say(f"\n## {what}\nnot begun: {self.left:.0f} s were left")
            return None
        self.say(f"\n## {what}\n(after {time.monotonic() - self.began:.0f} s)\n")
        try:
            return run(self, *arguments)
        except Exception:
            self.wrong = True
            self.say("broke:", "```", traceback.format_exc(), "```")
            return None


def correctness(report: Report, pieces: list[str], small: bool, workers: int) -> None:
    """All pieces, each in a process of its own."""
    words = ["--small"] if small else []

    def run(piece: str) -> tuple[str, subprocess.CompletedProcess]:
        command = [sys.executable, __file__, "--piece", piece, *words]
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        return piece, subprocess.run(
            command, capture_output=True, text=True, env=os.environ | threads, timeout=max(report.left, 1)
        )

    # the largest first: their kernels take longest
    with ThreadPoolExecutor(workers) as pool:
        for piece, done in pool.map(run, pieces):
            last = done.stdout.strip().splitlines()
            if done.returncode:
                report.wrong = True
                report.say(f"WRONG {piece}:", *(last or [done.stderr[-1500:]]))
            else:
                report.say(f"{piece}: {last[-1]}")


def sanitize(report: Report) -> None:
    """compute-sanitizer over the small shapes, every allocation its own so that it sees where each ends."""
    tool = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if tool is None:
        report.say("compute-sanitizer is not installed: not run")
        return
    pieces = [f"float32 {n}" for n in range(2)] + ["bfloat16 1", "float32 rest", "bfloat16 rest"]
    command = [tool, "--tool", "memcheck", "--error-exitcode", "9", sys.executable, __file__, "--small"]
    command += [word for piece in pieces for word in ("--piece", piece)]
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    log = report.out / "sanitizer.txt"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=min(SANITIZER_SECONDS, report.left)
        )
    except subprocess.TimeoutExpired as error:
        log.write_text((error.stdout or b"").decode(errors="replace") + (error.stderr or b"").decode(errors="replace"))
        report.say(f"memcheck: not finished in {error.timeout:.0f} s, see {log.name}")
        return
    log.write_text(done.stdout + done.stderr)
    errors = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR SUMMARY" in line]
    report.wrong |= done.returncode != 0
    report.say(f"memcheck: {'no error' if done.returncode == 0 else 'FAILED'}; {' '.join(errors)}")


def tables(report: Report, model: str, seconds: float) -> None:
    """One table of `vasa bench`, its CSV, and for vasa-1 the goals."""
    os.environ["VASA_KERNELS"] = "auto"  # the tables show what users get
    from vasa.bench.family import NAME, bench_family
    from vasa.bench.run import bench
    from vasa.bench.table import to_csv, to_markdown

    measure = bench_family if model == NAME else lambda **how: bench(model, **how)
    rows, place = measure(device="cuda", seconds=seconds, progress=lambda line: print(f"  {line}", flush=True))
    (report.out / f"bench-{model}.csv").write_text(to_csv(rows, place))
    report.say(to_markdown(rows, place))
    if model == "vasa-1":
        report.say(*(f"- {line}" for line in goals(rows)))


def everything(report: Report, seconds: float, even_if_wrong: bool) -> None:
    """All steps, the most telling first."""
    device = torch.device("cuda", torch.cuda.current_device())
    report.say("# vasa on a GPU", machine(device))
    report.say(*(f"- {name}: {choice}" for name, choice in dispatch.backend_report(device).items()))
    workers = max(2, min(12, (os.cpu_count() or 2) - 2))
    pieces = sorted(slices(), key=lambda piece: piece.endswith("rest") or -int(piece.split()[1]))
    report.step("Correctness", 60, correctness, pieces, False, workers)
    report.say(f"other GPU: {other_device()}")
    with environment(VASA_KERNELS="auto"):  # what users get
        report.step("Every path", 30, lambda r: r.say(*paths_agree(device, r, "vasa-mini")))
        report.step("The LivePortrait family's path", 15, lambda r: r.say(*family_agrees(device, r, RendererConfig())))
    if report.wrong and not even_if_wrong:
        report.say("\nsomething is wrong: nothing is timed")
        report.step("compute-sanitizer", 30, sanitize)
        return
    report.step("Speed of vasa-1", 60, tables, "vasa-1", seconds)
    report.step("Speed of vasa-mini", 40, tables, "vasa-mini", seconds)
    report.step("Speed of the LivePortrait family", 40, tables, "liveportrait", seconds)
    report.step("Too little memory", 15, lambda r: r.say(*tight(device, r)))
    report.step("compute-sanitizer", 30, sanitize)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for tables and logs")
    parser.add_argument("--limit", type=float, default=560.0, help="seconds after which nothing more is begun")
    parser.add_argument("--seconds", type=float, default=0.7, help="time for each contestant")
    parser.add_argument("--even-if-wrong", action="store_true", help="time what is wrong, too")
    parser.add_argument("--rehearse", action="store_true", help="small checks on the CPU, in Triton's interpreter")
    parser.add_argument("--piece", action="append", choices=slices(), help=argparse.SUPPRESS)
    parser.add_argument("--small", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.piece:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        judges = [check(piece, device, given.small) for piece in given.piece]
        wrong = [line for judge in judges for line in judge.wrong]
        print(*(f"WRONG {line}" for line in wrong[:40]), sep="\n")
        print(f"{sum(judge.checked for judge in judges)} checks, {len(wrong)} wrong")
        return 1 if wrong else 0
    given.out.mkdir(parents=True, exist_ok=True)
    report = Report(given.out, given.limit)
    if given.rehearse:
        pieces = [piece for piece in slices() if piece.endswith("rest") or int(piece.split()[1]) < len(SHAPES) - 2]
        report.step("Correctness", 0, correctness, pieces, True, 1)
        report.step("Every path", 0, lambda r: r.say(*paths_agree(torch.device("cpu"), r, TINY)))
        small = RendererConfig(
            input_size=32, image_size=64, width=8, volume_channels=8, volume_depth=4, flow_halvings=1
        )
        report.step("The family", 0, lambda r: r.say(*family_agrees(torch.device("cpu"), r, small)))
    elif not torch.cuda.is_available():
        print("no GPU here; everything that needs none is tested by pytest")
        return 2
    else:
        everything(report, given.seconds, given.even_if_wrong)
    report.say(f"\n{'WRONG' if report.wrong else 'nothing is wrong'}, {time.monotonic() - report.began:.0f} s")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
