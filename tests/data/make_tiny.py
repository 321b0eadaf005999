"""Regenerates tests/data/tiny, a random-weight checkpoint small enough to commit: python tests/data/make_tiny.py"""

from pathlib import Path

import torch

from vasa import checkpoint
from vasa.audio import AudioEncoder
from vasa.config import TINY
from vasa.face.model import FaceModel
from vasa.motion.transformer import Denoiser


def main() -> None:
    """Write the checkpoint; motion stays within a few degrees so that frames look like the portrait."""
    torch.manual_seed(0)
    audio = AudioEncoder(TINY.audio)
    motion = Denoiser(TINY.motion, TINY.motion_dim, audio.feature_dim)
    motion.std.fill_(0.1)
    motion.std[5] = 0.02
    motion.mean[5] = -0.288
    motion.low.copy_(motion.mean - 2 * motion.std)
    motion.high.copy_(motion.mean + 2 * motion.std)
    with torch.no_grad():
        motion.head.weight.mul_(5)  # so that another seed is another motion
    face = FaceModel(TINY.face)
    with torch.no_grad():
        face.pose.head.bias[5] = -0.288
        for head in (face.decoder.fine_flow, face.warp_driving.head):
            head.weight.normal_(0, 0.01)
    folder = Path(__file__).parent / "tiny"
    checkpoint.save(folder, TINY, {"face": face, "motion": motion, "audio": audio})


if __name__ == "__main__":
    main()
