"""What happens to a picture after it was rendered: a painter's or a camera's treatment, things in the way.

`stylise` treats all pictures of one person alike, as frames of one painting or film; `sensor` treats every
picture on its own; `add_occluder` puts a hand, a microphone or a blot before the face. Pictures are
[N, 3, S, S] in [0, 1], on any device; the generator is a CPU generator.
"""

from __future__ import annotations

import io
import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .chance import choose, happens, uniform
from .complexion import noise, pick

_LUMA = (0.299, 0.587, 0.114)


def stylise(images: Tensor, generator: Generator) -> Tensor:
    """Turn frames of one person into a painting, drawing, cartoon or graded film; one look for all frames."""
    scale = images.shape[-1] / 256
    look = pick((3.0, 2.0, 2.0, 1.0, 2.0), generator)
    if look == 0:
        images = kuwahara(images, max(1, round(uniform(1.6, 4.4, generator) * scale)))
        images = _canvas(images, generator, uniform(0.0, 0.06, generator))
    elif look == 1:
        images = flatten(images, max(1, round(uniform(2, 5, generator) * scale)), uniform(0.001, 0.006, generator))
        images = _posterise(images, uniform(5, 11, generator), uniform(0.3, 0.9, generator))
        images = _outline(images, uniform(0.0, 0.7, generator), scale)
    elif look == 2:
        images = flatten(images, max(1, round(uniform(2, 4, generator) * scale)), uniform(0.001, 0.005, generator))
        images = _saturate(images, uniform(1.0, 1.4, generator))
    elif look == 3:
        images = _pencil(images, generator, scale)
    return grade(images, generator)


def grade(images: Tensor, generator: Generator) -> Tensor:
    """Colour grading: gamma, contrast, saturation, split toning, balance; now and then sepia or grey."""
    warmth, green = uniform(-0.10, 0.10, generator), uniform(-0.02, 0.02, generator)
    balance = images.new_tensor([1 + warmth, 1 + green, 1 - warmth])[:, None, None]
    images = (images * balance).clamp(1e-3, 1.0) ** uniform(0.75, 1.3, generator)
    contrast = uniform(0.8, 1.25, generator)
    images = 0.45 + (images - 0.45) * contrast
    images = _saturate(images, uniform(0.5, 1.3, generator))
    light = _luma(images)
    shade = images.new_tensor([uniform(-0.05, 0.05, generator) for _ in range(3)])[:, None, None]
    images = images + shade * (1 - light) - 0.7 * shade * light
    draw = uniform(0.0, 1.0, generator)
    if draw < 0.08:
        images = _luma(images).expand_as(images)
    elif draw < 0.20:
        sepia = images.new_tensor([1.07, 0.94, 0.74])[:, None, None]
        images = torch.lerp(images, _luma(images) * sepia, uniform(0.5, 1.0, generator))
    return images.clamp(0, 1)


def sensor(images: Tensor, generator: Generator) -> Tensor:
    """A mild camera for every picture: exposure, balance, vignette, sharpness, resampling, noise, JPEG."""
    count, size = len(images), images.shape[-1]

    def draw(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(count, generator=generator)).to(images)[:, None, None, None]

    def some(share: float) -> Tensor:
        return (torch.rand(count, generator=generator) < share).to(images)[:, None, None, None]

    out = images * draw(0.85, 1.15)
    warmth = draw(-0.05, 0.05)
    out = out * torch.cat([1 + warmth, torch.ones_like(warmth), 1 - warmth], dim=1)
    axis = torch.linspace(-1, 1, size, device=images.device, dtype=images.dtype)
    out = out * (1 - some(0.3) * draw(0.0, 0.25) * (axis**2 + axis[:, None] ** 2) / 2)
    out = (out.clamp(1e-3, 1.0) ** draw(0.85, 1.18)).clamp(0, 1)
    soft = _gaussian(out, draw(0.4, 1.4).flatten() * size / 256)
    amount = torch.where(some(0.35) > 0, draw(0.2, 1.0), -some(0.3) * draw(0.0, 0.7))
    out = torch.lerp(out, soft, amount)
    small = int(uniform(0.4, 0.8, generator) * size)
    coarse = F.interpolate(out, size=(small, small), mode="bilinear", antialias=True, align_corners=False)
    coarse = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    out = torch.where(some(0.2) > 0, coarse, out)
    grain = torch.randn(out.shape, generator=generator).to(images)
    out = (out + some(0.5) * draw(0.0, 0.03) * grain).clamp(0, 1)
    return jpeg(out, generator, share=0.35)


def jpeg(images: Tensor, generator: Generator, share: float = 1.0) -> Tensor:
    """Compress a share of the pictures at a random quality of 35 to 95."""
    from PIL import Image

    out = images.clone()
    for i in range(len(images)):
        if not happens(share, generator):
            continue
        quality = int(uniform(35, 96, generator))
        pixels = (images[i].float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        store = io.BytesIO()
        Image.fromarray(pixels).save(store, format="JPEG", quality=quality)
        with Image.open(store) as decoded:
            data = torch.frombuffer(bytearray(decoded.convert("RGB").tobytes()), dtype=torch.uint8)
        out[i] = (data.view(*pixels.shape).permute(2, 0, 1).float() / 255).to(images)
    return out


def kuwahara(images: Tensor, radius: int) -> Tensor:
    """Kuwahara's filter, softened: the mean of the four squares that meet in a pixel, the calm ones counting most."""
    side = radius + 1
    padded = F.pad(images, (radius, radius, radius, radius), mode="reflect")
    light = _luma(padded)
    mean = F.avg_pool2d(padded, side, stride=1)
    spread = (F.avg_pool2d(light**2, side, stride=1) - F.avg_pool2d(light, side, stride=1) ** 2).clamp(min=0)
    trust = 1 / (spread + 3e-4) ** 3 * 1e-9
    height, width = images.shape[-2:]
    total, weight = torch.zeros_like(images), torch.zeros_like(light[..., :height, :width])
    for top in (0, radius):
        for left in (0, radius):
            window = (..., slice(top, top + height), slice(left, left + width))
            total = total + mean[window] * trust[window]
            weight = weight + trust[window]
    return total / weight


def flatten(images: Tensor, radius: int, tolerance: float) -> Tensor:
    """Edge-preserving smoothing: a guided filter with the picture's lightness as guide (He et al. 2010)."""

    def box(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (radius, radius, radius, radius), mode="reflect"), 2 * radius + 1, stride=1)

    light = _luma(images)
    mean_light, mean = box(light), box(images)
    slope = (box(light * images) - mean_light * mean) / (box(light * light) - mean_light**2 + tolerance)
    return (box(slope) * light + box(mean - slope * mean_light)).clamp(0, 1)


def add_occluder(images: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Put a hand, a microphone or a soft blot before a random part of every picture.

    Returns:
        The pictures, and where they are covered, [N, 1, S, S] in [0, 1].
    """
    covers, masks = [], []
    for image in images:
        picture, mask = _occluder(image.shape[-1], generator)
        covers.append(picture)
        masks.append(mask)
    mask = torch.stack(masks).to(images)
    return torch.lerp(images, torch.stack(covers).to(images), mask), mask


def _occluder(size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    axis = torch.linspace(-1, 1, size)
    x, y = axis.expand(size, size), axis[:, None].expand(size, size)
    cx, cy = uniform(-0.8, 0.8, generator), uniform(0.0, 0.9, generator)
    kind = choose(range(3), generator)
    if kind == 0:
        tone = torch.tensor([0.86, 0.64, 0.52]) * uniform(0.3, 1.1, generator)
        base = uniform(-2.6, -0.5, generator)
        distance = ((x - cx) ** 2 + (y - cy) ** 2).sqrt() - 0.2
        for finger in range(4):
            angle = base + 0.28 * finger
            tip = (cx + 0.5 * math.cos(angle), cy + 0.5 * math.sin(angle))
            distance = torch.minimum(distance, _capsule(x, y, (cx, cy), tip, 0.065))
        arm = (cx - 0.9 * math.cos(base + 0.4), cy - 0.9 * math.sin(base + 0.4))
        distance = torch.minimum(distance, _capsule(x, y, (cx, cy), arm, 0.14))
    elif kind == 1:
        tone = torch.tensor([0.12, 0.12, 0.13]) * uniform(0.5, 2.5, generator)
        distance = ((x - cx) ** 2 + (y - cy) ** 2).sqrt() - uniform(0.10, 0.20, generator)
        distance = torch.minimum(distance, _capsule(x, y, (cx, cy), (cx + uniform(-0.5, 0.5, generator), 1.6), 0.07))
    else:
        tone = torch.rand(3, generator=generator)
        wave = 0.12 * noise(generator, 5, (size, size))[0]
        distance = ((x - cx) ** 2 + (y - cy) ** 2).sqrt() - uniform(0.15, 0.4, generator) + wave
    shade = (0.75 + 1.2 * (-distance).clamp(0, 0.25)) * (1 + 0.05 * noise(generator, size // 12, (size, size))[0])
    return (tone[:, None, None] * shade).clamp(0, 1), torch.sigmoid(-distance[None] * size * 0.7)


def _capsule(x: Tensor, y: Tensor, a: tuple[float, float], b: tuple[float, float], radius: float) -> Tensor:
    dx, dy = b[0] - a[0], b[1] - a[1]
    t = (((x - a[0]) * dx + (y - a[1]) * dy) / (dx * dx + dy * dy)).clamp(0, 1)
    return ((x - a[0] - t * dx) ** 2 + (y - a[1] - t * dy) ** 2).sqrt() - radius


def _luma(images: Tensor) -> Tensor:
    return (images * images.new_tensor(_LUMA)[:, None, None]).sum(-3, keepdim=True)


def _saturate(images: Tensor, strength: float) -> Tensor:
    light = _luma(images)
    return (light + (images - light) * strength).clamp(0, 1)


def _posterise(images: Tensor, levels: float, strength: float) -> Tensor:
    """Pull lightness towards a few levels, with soft steps."""
    light = _luma(images)
    fine = light * levels
    step = fine.floor() + torch.sigmoid((fine - fine.floor() - 0.5) * 10)
    return torch.lerp(images, images * (step / levels) / light.clamp(min=0.02), strength).clamp(0, 1)


def _outline(images: Tensor, strength: float, scale: float) -> Tensor:
    """Dark lines along edges of the lightness."""
    sigma = torch.full((len(images),), max(0.5, scale))
    fine, coarse = _gaussian(_luma(images), sigma), _gaussian(_luma(images), sigma * 1.8)
    ink = torch.sigmoid((coarse - fine - 0.02) * 180)
    return images * (1 - strength * ink)


def _pencil(images: Tensor, generator: Generator, scale: float) -> Tensor:
    """Graphite or coloured pencil: lightness divided by its blurred self."""
    light = _luma(images)
    sigma = torch.full((len(images),), max(1.0, uniform(4, 9, generator) * scale))
    sketch = (light / _gaussian(light, sigma).clamp(min=0.05)).clamp(0, 1.05) ** uniform(1.2, 2.4, generator)
    keep = uniform(0.25, 0.7, generator)
    tone = torch.lerp(sketch, light, keep)
    colour = images / light.clamp(min=0.03) * tone
    sketch = torch.lerp(
        tone.expand_as(images), colour, uniform(0.0, 1.0, generator) if happens(0.6, generator) else 0.0
    )
    return _canvas(sketch.clamp(0, 1), generator, uniform(0.01, 0.04, generator))


def _canvas(images: Tensor, generator: Generator, strength: float) -> Tensor:
    """Weave and strokes of the ground, fixed in the picture plane."""
    size = images.shape[-1]
    ramp = torch.arange(size, dtype=torch.float32) * 256 / size
    weave = torch.sin(ramp * 2.2)[:, None] * torch.sin(ramp * 2.2)
    strokes = noise(generator, (size // 3, size // 9), (size, size))[0]
    if happens(0.5, generator):
        strokes = strokes.T
    return (images * (1 + strength * (0.6 * weave + 0.7 * strokes)).to(images)).clamp(0, 1)


def _gaussian(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur every picture with its own deviation in pixels, [N]."""
    reach = max(1, math.ceil(2.5 * float(sigma.max())))
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma.to(images.device).float()[:, None].clamp(min=1e-2)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(images.dtype)
    count, channels, height, width = images.shape
    kernel = kernel.repeat_interleave(channels, 0)[:, None]
    folded = images.reshape(1, count * channels, height, width)
    folded = F.pad(folded, (reach, reach, reach, reach), mode="replicate")
    folded = F.conv2d(folded, kernel[:, :, None, :], groups=count * channels)
    folded = F.conv2d(folded, kernel[:, :, :, None], groups=count * channels)
    return folded.view(images.shape)
