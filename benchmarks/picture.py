"""Pasting back into large pictures: memory, time per frame, and how still the background stands.

    python benchmarks/picture.py --sizes 1280x720,3840x2160,8660x5773 --frames 25

Each size runs in a process of its own, so that its peak memory is its own. The picture is the example portrait,
enlarged to `--share` of the picture's height, before a gradient with fine noise, which shows every lost pixel.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from vasa import Vasa
from vasa.io.face import Crop, crop_square
from vasa.io.image import load_image
from vasa.io.video import VideoWriter, read_video
from vasa.latents import Motion
from vasa.screen import Screen

ROOT = Path(__file__).resolve().parents[1]


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(size: tuple[int, int], frames: int, share: float) -> dict[str, float | str]:
    """One size, in this process."""
    width, height = size
    vasa = Vasa.from_pretrained("vasa-mini", device="cpu")
    portrait = load_image(ROOT / "examples" / "portrait.png").pixels
    idle = megabytes()
    ground = torch.linspace(0.2, 0.7, width).expand(3, height, width)
    picture = ground.contiguous().add_(
        torch.rand(height, width, generator=torch.Generator().manual_seed(0)), alpha=0.05
    )
    edge = round(share * height) // 2 * 2
    left, top = (width - edge) // 2, height - edge
    picture[:, top:, left : left + edge] = F.interpolate(portrait[None], size=(edge, edge), mode="bicubic")[0]
    crop = Crop(crop_square(picture, left, top, edge, vasa.size), left, top, edge)
    latents = vasa.encode(crop.picture)
    # a slow nod and turn of 12 degrees with an opening mouth
    phase = torch.linspace(0, 2 * torch.pi, frames)
    pose = latents.head_pose.repeat(frames, 1)
    pose[:, 0] += 0.2 * phase.sin()
    pose[:, 3] += 0.06 * phase.sin()
    motion = Motion(pose, latents.facial_dynamics.repeat(frames, 1))
    screen = Screen(vasa.size, latents, picture, crop, paste_back=True)
    spent = {"decode": 0.0, "compose": 0.0, "write": 0.0}
    still, moved = torch.zeros(screen.paste._patch.shape[1:]), None

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.mp4"
        left, top, _, _ = screen.paste.rectangle
        with VideoWriter(path, screen._size, 25.0, backdrop=(picture, left, top)) as writer:
            decoded = vasa.decode(screen.latents, motion, batch_size=screen.batch_size)
            while True:
                started = time.perf_counter()
                batch = next(decoded, None)
                spent["decode"] += time.perf_counter() - started
                if batch is None:
                    break
                for frame in batch.split(1):
                    started = time.perf_counter()
                    patch = screen.paste.patches(frame)
                    spent["compose"] += time.perf_counter() - started
                    weight = screen.paste.weights(frame)
                    moved = weight if moved is None else torch.maximum(moved, weight)
                    still = torch.maximum(still, (patch[0] - screen.paste._patch).abs().amax(0))
                    started = time.perf_counter()
                    writer.write(patch)
                    spent["write"] += time.perf_counter() - started
        peak = megabytes()
        seen = read_video(path).frames
        first, worst = next(seen)[:, :top], 0.0
        if height <= 2200:
            worst = max((frame[:, :top] - first).abs().max().item() for frame in seen)
    outside = screen.paste._rows_of(moved)(0, 1 << 31)[0, 0] == 0
    jitter = still[outside].max().item()
    return {
        "picture": f"{width}x{height}",
        "crop": edge,
        "frames at": screen.latents.portrait.shape[-1],
        **{name: round(seconds / frames, 3) for name, seconds in spent.items()},
        "idle MB": round(idle),
        "peak MB": round(peak),
        "jitter": jitter,
        "after H.264, above the crop": round(worst, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1280x720,3840x2160,8660x5773")
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.6)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        size = tuple(int(side) for side in given.one.split("x"))
        print(json.dumps(measure(size, given.frames, given.share)))
        return
    for index, size in enumerate(given.sizes.split(",")):
        command = [sys.executable, __file__, "--one", size, "--frames", str(given.frames), "--share", str(given.share)]
        row = json.loads(subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout)
        if not index:
            print("| " + " | ".join(row) + " |\n" + "|---" * len(row) + "|")
        print("| " + " | ".join(str(value) for value in row.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
