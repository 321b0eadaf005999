"""Compile every kernel for GPUs that are not here and count what comes out: registers, spills, shared memory, SASS.

    python benchmarks/aot.py                       # table for all targets
    python benchmarks/aot.py --target sm_89 --json

Needs Triton's Linux wheel (it contains ptxas and the disassembler) and no GPU. The launchers run as they are, with
empty CPU tensors of vasa-1's shapes, so that specialisation is exactly the run-time one; only the launch is left out.
Must not share a process with Triton's interpreter.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

TARGETS = {
    "sm_80": ("cuda", 80, 32),
    "sm_86": ("cuda", 86, 32),
    "sm_89": ("cuda", 89, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_120": ("cuda", 120, 32),
    "gfx942": ("hip", "gfx942", 64),
    "gfx1100": ("hip", "gfx1100", 32),
}
SHARED_LIMIT_KB = {"sm_80": 163, "sm_86": 99, "sm_89": 99, "sm_90": 227, "sm_120": 99, "gfx942": 64, "gfx1100": 64}


@dataclass
class Row:
    """One compiled kernel.

    Attributes:
        case: which launch it belongs to.
        kernel: name of the function.
        target: architecture.
        registers: per thread.
        spilled: bytes of stack (NVIDIA) or spilled vector registers (AMD).
        shared: bytes of shared memory.
        instructions: static instructions of the program.
        per_element: instructions per element of the tile it works on; of the attention, per score. Of a loop that is
            not unrolled: one turn with all that stands around the loop, an upper bound.
        wide_loads: 16-byte loads.
        tensor_core: matrix instructions.
    """

    case: str
    kernel: str
    target: str
    registers: int
    spilled: int
    shared: int
    instructions: int
    per_element: float
    wide_loads: int
    tensor_core: int


class _Driver:
    """Stands for a device that is not here; each target needs its own index, Triton caches binaries by it."""

    def __init__(self, index: int, target: object) -> None:
        self.index, self.target = index, target

    def get_current_target(self) -> object:
        return self.target

    def get_current_device(self) -> int:
        return self.index

    def get_current_stream(self, device: int) -> int:
        return 0


def cases() -> dict[str, Callable[[], object]]:
    """Name -> a launch with vasa-1's shapes in bf16."""
    from vasa.kernels import attention, norm, step, warp3d, warp3d_gradients

    half = torch.bfloat16
    size = (16, 64, 64)
    layout3d, layout2d = dict(memory_format=torch.channels_last_3d), dict(memory_format=torch.channels_last)
    volume = torch.empty(1, 96, *size, dtype=half, **layout3d)
    theta, flow, grid = torch.empty(2, 3, 4), torch.empty(2, 3, *size), torch.empty(2, *size, 3)
    kind = dict(zeros=True, align=True, collapse=False)
    features = torch.empty(2, 128, 256, 256, dtype=half, **layout2d)
    scale, shift = torch.empty(2, 2, 128, dtype=half)
    affine = torch.empty(2, 128, dtype=half)
    tokens = torch.empty(3, 61, 512, dtype=half)
    packed = torch.empty(3, 61, 3, 8, 64, dtype=half).permute(2, 0, 3, 1, 4)
    predictions, x_t = torch.empty(3, 1, 50, 134), torch.empty(1, 50, 134)
    bounds = torch.empty(134)
    return {
        "warp fused": lambda: warp3d.warp(
            volume, theta, flow, None, None, size, rigid_first=True, zeros=True, align=True, collapse=True
        ),
        "warp fused fp32, 26 channels": lambda: warp3d.warp(
            torch.empty(1, 26, 8, 16, 16, **layout3d), theta, torch.empty(2, 3, 8, 16, 16), None, None, (8, 16, 16),
            rigid_first=True, zeros=False, align=True, collapse=True,
        ),
        "sample": lambda: warp3d.warp(volume, None, None, grid, None, size, rigid_first=False, **kind),
        "sample gradient, volume": lambda: warp3d_gradients.grad_volume(
            torch.empty(2, 96, *size, dtype=half, **layout3d), grid, (1, 96, *size), **kind
        ),
        "sample gradient, grid": lambda: warp3d_gradients.grad_grid(
            torch.empty(2, 96, *size, dtype=half, **layout3d), volume, grid, **kind
        ),
        "group norm": lambda: norm.group_norm_silu(features, 8, affine[0], affine[1], 1e-5, scale, shift),
        "residual layer norm": lambda: norm.residual_layer_norm(tokens, tokens, tokens[0, 0], tokens[0, 1], 1e-5),
        "guided step": lambda: step.guided_step(
            predictions, torch.empty(3), x_t, torch.empty(4), bounds, bounds
        ),
        "attention 61": lambda: attention.short_attention(*packed, None, None, None, 0.125),
        "attention 61, causal": lambda: attention.short_attention(*packed, None, None, 11, 0.125),
        "attention 160, bias, lengths": lambda: attention.short_attention(
            *torch.empty(3, 160, 3, 8, 64, dtype=half).permute(2, 0, 3, 1, 4), torch.empty(1, 8, 160, 160, dtype=half),
            torch.empty(3, dtype=torch.int64), None, 0.125,
        ),
    }  # fmt: skip


def compile_for(targets: list[str], wanted: list[str] | None = None) -> Iterator[Row]:
    """Compile the cases for each target."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    compiled: list[tuple[object, dict]] = []
    plain_run = JITFunction.run

    def only_compile(self, *arguments, grid, warmup, **options):
        kernel = plain_run(self, *arguments, grid=grid, warmup=True, **options)
        names = [p.name for p in self.params]
        compiled.append((kernel, dict(zip(names, arguments, strict=False)) | options))
        return kernel

    JITFunction.run = only_compile
    try:
        for index, target in enumerate(targets):
            driver.set_active(_Driver(index, GPUTarget(*TARGETS[target])))
            for name, start in cases().items():
                if wanted is not None and name not in wanted:
                    continue
                compiled.clear()
                start()
                yield from (_row(name, target, kernel, given) for kernel, given in compiled)
    finally:
        JITFunction.run = plain_run


def side_by_side(targets: list[str], wanted: list[str] | None = None) -> Iterator[Row]:
    """`compile_for` in a process for each target: nearly all of the time is spent in Triton's compilers."""
    jobs = min(len(targets), len(os.sched_getaffinity(0)))
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=1) as pool:
        for rows in pool.imap(functools.partial(_all_of, wanted), targets, chunksize=1):
            yield from rows


def _all_of(wanted: list[str] | None, target: str) -> list[Row]:
    return list(compile_for([target], wanted))


def _row(case: str, target: str, kernel: object, given: dict) -> Row:
    warp_size = TARGETS[target][2]
    elements = {
        "_warp_forward": ("BLOCK_P", "C"), "_warp_grad_volume": ("BLOCK_P", "BLOCK_C"),
        "_warp_grad_grid": ("BLOCK_P", "BLOCK_C"),
        "_affine_silu": ("BLOCK_P", "BLOCK_C"), "_channel_statistics": ("ROWS", "BLOCK_C"),
        "_group_affine": ("BLOCK_N", "BLOCK_C"), "_residual_layer_norm": ("BLOCK_D",), "_guided_step": ("BLOCK",),
        "_attention": ("BLOCK_L", "BLOCK_S"),
    }[kernel.name]  # fmt: skip
    tile = math.prod(given[name] for name in elements)
    measure = _amd if target.startswith("gfx") else _nvidia
    registers, spilled, instructions, wide, matrix = measure(kernel, target)
    threads = given.get("num_warps", 4) * warp_size
    per_element = round(instructions * threads / tile, 1)
    return Row(
        case, kernel.name, target, registers, spilled, kernel.metadata.shared, instructions, per_element, wide, matrix
    )


def _nvidia(kernel: object, target: str) -> tuple[int, int, int, int, int]:
    tools = Path(sys.modules["triton"].__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = subprocess.run([_tool(tools, "cuobjdump"), "-res-usage", file.name], capture_output=True, text=True)
        sass = subprocess.run([_tool(tools, "nvdisasm"), "-c", file.name], capture_output=True, text=True).stdout
    registers = int(re.search(r"REG:(\d+)", usage.stdout).group(1))
    stack = int(re.search(r"STACK:(\d+)", usage.stdout).group(1))
    lines = [line for line in sass.splitlines() if re.search(r"/\*[0-9a-f]{4,}\*/", line)]
    lines = [line for line in lines if " NOP" not in line]
    return (
        registers, stack, len(lines), sum("LDG" in line and ".128" in line for line in lines),
        sum(bool(re.search(r"\b(HMMA|HGMMA|QGMMA|IMMA)\b", line)) for line in lines),
    )  # fmt: skip


def _tool(folder: Path, name: str) -> str:
    inside = folder / name
    return str(inside) if inside.exists() else str(shutil.which(name))


def _amd(kernel: object, target: str) -> tuple[int, int, int, int, int]:
    text = kernel.asm["amdgcn"]
    read = lambda key: int(re.search(rf"\.{key}:\s+(\d+)", text).group(1))  # noqa: E731
    body = [line for line in text.splitlines() if re.match(r"\s+[vsg]\w*_\w+|\s+(buffer|global|ds|flat)_", line)]
    return (
        read("vgpr_count"), read("vgpr_spill_count") + read("private_segment_fixed_size"), len(body),
        sum("load_dwordx4" in line or "load_b128" in line for line in body),
        sum("mfma" in line or "wmma" in line for line in body),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", action="append", choices=TARGETS)
    parser.add_argument("--case", action="append")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        rows = side_by_side(given.target or list(TARGETS), given.case)
        if given.json:
            print(json.dumps([asdict(row) for row in rows]))
            return
        print(
            "| case | kernel | target | registers | spilled | shared | instructions | per element | 16 B loads | MMA |"
        )
        print("|---|---|---|--:|--:|--:|--:|--:|--:|--:|")
        for row in rows:
            print("| " + " | ".join(str(value) for value in asdict(row).values()) + " |", flush=True)


if __name__ == "__main__":
    main()
