"""The adversary of the face model: a patch discriminator at two scales (MegaPortraits, section 3; pix2pixHD).

Letters: `B` batch, `S` picture edge.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

WIDTHS = (48, 96, 192, 384)
_FINE_GAIN = 16.0
"""Fine detail has a fiftieth of the picture's range; unenlarged, spectral norm let it vanish (docs/log.md)."""


class PatchDiscriminator(nn.Module):
    """Says of every patch of a picture how real it looks, [B, 3, S, S] -> every layer's features, then the score.

    It is shown the picture and, enlarged, what the picture loses at half its size.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        layers, previous = [], 6
        for index, width in enumerate(widths):
            stride = 2 if index < len(widths) - 1 else 1
            layers.append(spectral_norm(nn.Conv2d(previous, width, 4, stride, 1)))
            previous = width
        self.layers = nn.ModuleList(layers)
        self.score = spectral_norm(nn.Conv2d(previous, 1, 4, 1, 1))

    def forward(self, picture: Tensor) -> list[Tensor]:
        coarse = F.interpolate(F.avg_pool2d(picture, 2), scale_factor=2.0, mode="bilinear", align_corners=False)
        x, features = torch.cat([picture * 2 - 1, (picture - coarse) * _FINE_GAIN], dim=1), []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return [*features, self.score(x)]


class Adversary(nn.Module):
    """Two patch discriminators, of the picture and of the picture at half its size, and their optimiser.

    Args:
        rate: learning rate; it stays.
        warmup: steps in which only the discriminators learn; the generator's share then grows for as many again.
    """

    def __init__(self, rate: float = 5e-4, warmup: int = 100) -> None:
        super().__init__()
        self.scales = nn.ModuleList([PatchDiscriminator(), PatchDiscriminator()])
        self.warmup = warmup
        self._optimiser = torch.optim.AdamW(self.parameters(), lr=rate, betas=(0.5, 0.999), weight_decay=0.0)

    def share(self, step: int) -> float:
        """How much of the adversarial losses counts at a step, 0..1."""
        return min(1.0, max(0.0, step / self.warmup - 1))

    def learn(self, made: Tensor, real: Tensor) -> Tensor:
        """One step of the discriminators by the hinge loss; returns it: 2 where they cannot tell, 0 where they can."""
        self.requires_grad_(True)
        loss = made.new_zeros(())
        for fake, true in zip(self._judged(made.detach()), self._judged(real), strict=True):
            loss = loss + F.relu(1 + fake[-1].float()).mean() + F.relu(1 - true[-1].float()).mean()
        loss = loss / len(self.scales)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._optimiser.step()
        return loss.detach()

    def losses(self, made: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """(adversarial, feature matching) of the generator: -D(made), and L1 of every layer's features."""
        self.requires_grad_(False)
        with torch.no_grad():
            wanted = self._judged(real)
        adversarial = matching = made.new_zeros(())
        for fake, true in zip(self._judged(made), wanted, strict=True):
            adversarial = adversarial - fake[-1].float().mean()
            for a, b in zip(fake[:-1], true[:-1], strict=True):
                matching = matching + (a.float() - b.float()).abs().mean() / (len(fake) - 1)
        return adversarial / len(self.scales), matching / len(self.scales)

    def _judged(self, pictures: Tensor) -> list[list[Tensor]]:
        return [self.scales[0](pictures), self.scales[1](F.avg_pool2d(pictures, 2))]
