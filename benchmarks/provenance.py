"""How well the presence mark hides and how well it is found: python benchmarks/provenance.py [clip.mp4 ...]

Clips are 256 px videos without a mark (`animate(..., mark=False)`). For each: PSNR after marking, the detector's
score by clip length after our own encoding, and after worse ones. False alarms: other keys' patterns are looked for in
the unmarked clip, which is as good as as many unmarked clips.
"""

from __future__ import annotations

import io
import sys

import av
import torch
from torch import Tensor

from vasa import provenance
from vasa.io.video import read_video, yuv420

LENGTHS = (1, 5, 20, 100)
ENCODINGS = {"CRF 18": (18, 1.0), "CRF 23": (23, 1.0), "CRF 28": (28, 1.0), "CRF 23, half size": (23, 0.5)}
WRONG_KEYS = 300


def encoded(frames: Tensor, crf: int, scale: float) -> Tensor:
    """Frames [n, 3, H, W] through x264 as VideoWriter sets it, and back."""
    if scale != 1:
        frames = torch.nn.functional.interpolate(frames, scale_factor=scale, mode="bilinear", antialias=True)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": str(crf), "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[2:], "yuv420p"
        for planes in yuv420(frames).numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer) as container:
        pictures = [torch.from_numpy(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    return torch.stack(pictures).permute(0, 3, 1, 2).float() / 255


def psnr(reference: Tensor, frames: Tensor) -> float:
    return float(-10 * (reference - frames).square().mean().log10())


def main() -> None:
    for path in sys.argv[1:]:
        clean = torch.stack([frame for frame, _ in zip(read_video(path).frames, range(max(LENGTHS)), strict=False)])
        marked = provenance.mark(clean)
        print(f"{path}: {len(clean)} frames, {psnr(clean, marked):.1f} dB")
        for name, (crf, scale) in ENCODINGS.items():
            seen = encoded(marked, crf, scale)
            scores = {n: provenance.find_mark(iter(seen[:n])) for n in LENGTHS if n <= len(clean)}
            print(
                f"  {name:<18}",
                *(f"{n} frames {m.score:.1f}{'' if m.found else ' missed'}" for n, m in scores.items()),
                sep="  ",
                flush=True,
            )
        seen = encoded(clean[:20], 18, 1.0)
        tile = sum(provenance.folded(provenance.residual(provenance.luma(frame[None]))[0, 0]) for frame in seen)
        scores = [provenance.scores(tile, key) for key in range(WRONG_KEYS)]
        here = max(float(one[0, 0]) for one in scores)
        anywhere = max(float(one.max()) for one in scores)
        print(
            f"  unmarked, {WRONG_KEYS} patterns: highest score {here:.1f} in place, {anywhere:.1f} at any shift",
            flush=True,
        )


if __name__ == "__main__":
    main()
