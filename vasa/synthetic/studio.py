"""Random light, camera and background."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .chance import choose, happens, uniform
from .complexion import noise, pick
from .person import Studio

_MUTED = (
    (0.55, 0.53, 0.50), (0.36, 0.38, 0.36), (0.20, 0.19, 0.18), (0.78, 0.76, 0.73), (0.42, 0.46, 0.52),
    (0.30, 0.26, 0.20), (0.52, 0.42, 0.32), (0.26, 0.32, 0.28), (0.62, 0.66, 0.68), (0.46, 0.32, 0.28),
    (0.70, 0.60, 0.50), (0.14, 0.15, 0.18), (0.36, 0.44, 0.40), (0.86, 0.85, 0.84), (0.34, 0.30, 0.36),
    (0.60, 0.20, 0.16), (0.60, 0.46, 0.20), (0.28, 0.40, 0.52),
)  # fmt: skip
_PHOTOGRAPHS = ("coffee", "rocket", "brick", "grass", "gravel", "motorcycle_left")
_LOADED: dict[str, Tensor] = {}


def sample_studio(generator: Generator, size: int) -> Studio:
    """Draw 1 to 3 lights, an ambient level, a background of `size` pixels and a focal length.

    Light colours differ from white by at most 7 %: more turns skins green or grey.
    """
    count = pick((0.3, 0.45, 0.25), generator) + 1
    directions, colours = [], []
    for i in range(count):
        across = uniform(-70, 70, generator) if i == 0 else uniform(-140, 140, generator)
        up = uniform(5, 60, generator) if i == 0 else uniform(-15, 50, generator)
        a, e = math.radians(across), math.radians(up)
        directions.append([math.sin(a) * math.cos(e), math.sin(e), math.cos(a) * math.cos(e)])
        power = uniform(0.6, 1.0, generator) if i == 0 else uniform(0.1, 0.45, generator)
        colours.append(power * _white(generator))
    ambient = uniform(0.15, 0.42, generator)
    return Studio(
        light_directions=torch.tensor(directions),
        light_colours=torch.stack(colours),
        ambient=ambient * _white(generator),
        sky=uniform(0.0, 0.15, generator) * _white(generator),
        background=sample_background(generator, size),
        focal=uniform(1.9, 4.0, generator),
    )


def sample_background(generator: Generator, size: int) -> Tensor:
    """A backdrop: flat, gradient, clouds, blurred lights, rectangles, a room, painted canvas or a photograph.

    Returns:
        [3, size, size] sRGB in [0, 1].
    """
    makers = (_flat, _gradient, _clouds, _bokeh, _rectangles, _room, _canvas, _photograph)
    made = makers[pick((1.3, 2.0, 1.6, 1.2, 1.2, 1.6, 1.5, 1.0), generator)](generator, 256)
    if happens(0.5, generator):
        made = made * _vignette(generator)
    made = made + uniform(0.0, 0.012, generator) * torch.randn(3, 256, 256, generator=generator)
    return F.interpolate(made[None], size=(size, size), mode="bilinear", antialias=True)[0].clamp(0, 1)


def _white(generator: Generator) -> Tensor:
    """White up to +-7 % warmer or cooler."""
    warmth = uniform(-0.07, 0.07, generator)
    return torch.tensor([1 + warmth, 1 + 0.2 * warmth, 1 - warmth])


def _colour(generator: Generator) -> Tensor:
    """A muted colour, [3, 1, 1]; one in twelve is more vivid."""
    colour = torch.tensor(choose(_MUTED, generator))
    colour = torch.lerp(colour, torch.tensor(choose(_MUTED, generator)), uniform(0, 0.5, generator))
    strength = 1.8 if happens(1 / 12, generator) else uniform(0.4, 1.1, generator)
    colour = colour.mean() + (colour - colour.mean()) * strength
    return (colour * uniform(0.7, 1.2, generator)).clamp(0.03, 0.97)[:, None, None]


def _vignette(generator: Generator) -> Tensor:
    axis = torch.linspace(-1, 1, 256)
    x, y = axis - uniform(-0.4, 0.4, generator), axis[:, None] - uniform(-0.4, 0.4, generator)
    return 1 - uniform(0.1, 0.45, generator) * (x * x + y * y).clamp(max=1.6) / 1.6


def _flat(generator: Generator, size: int) -> Tensor:
    return _colour(generator).expand(3, size, size).clone()


def _gradient(generator: Generator, size: int) -> Tensor:
    axis = torch.linspace(-1, 1, size)
    x, y = axis.expand(size, size), axis[:, None].expand(size, size)
    if happens(0.4, generator):
        ramp = 1 - ((x - uniform(-0.5, 0.5, generator)) ** 2 + (y - uniform(-0.5, 0.5, generator)) ** 2).sqrt()
    else:
        angle = uniform(0, 2 * math.pi, generator)
        ramp = 0.5 + 0.5 * (x * math.cos(angle) + y * math.sin(angle))
    first = _colour(generator)
    second = torch.lerp(first, _colour(generator), uniform(0.3, 1.0, generator))
    return torch.lerp(first.expand(3, size, size), second.expand(3, size, size), ramp.clamp(0, 1))


def _fractal(generator: Generator, size: int, start: int, roughness: float) -> Tensor:
    """Noise whose octaves shrink by `roughness`, mapped to 0..1, [size, size]."""
    total = torch.zeros(size, size)
    strength = 1.0
    cells = start
    while cells <= 192:
        total = total + strength * noise(generator, cells, (size, size))[0]
        strength, cells = strength * roughness, cells * 2
    return torch.sigmoid(total * 1.2)


def _clouds(generator: Generator, size: int) -> Tensor:
    first, second = _colour(generator), _colour(generator)
    mask = _fractal(generator, size, choose(range(4), generator) + 2, uniform(0.25, 0.6, generator))
    picture = torch.lerp(first.expand(3, size, size), second.expand(3, size, size), mask)
    if happens(0.5, generator):
        third = _fractal(generator, size, 5, 0.5)
        picture = torch.lerp(picture, _colour(generator).expand(3, size, size), 0.6 * third)
    return picture


def _bokeh(generator: Generator, size: int) -> Tensor:
    picture = _gradient(generator, size) * 0.7
    axis = torch.linspace(-1, 1, size)
    for _ in range(choose(range(14), generator) + 4):
        x, y = uniform(-1, 1, generator), uniform(-1, 1, generator)
        distance = ((axis - x) ** 2 + (axis[:, None] - y) ** 2).sqrt()
        disc = torch.sigmoid((uniform(0.04, 0.22, generator) - distance) * 40)
        light = (_colour(generator) * 1.25 + 0.1).clamp(max=1)
        picture = torch.lerp(picture, light.expand_as(picture), disc * uniform(0.1, 0.55, generator))
    return _soften(picture, uniform(0, 3, generator))


def _rectangles(generator: Generator, size: int) -> Tensor:
    picture = _gradient(generator, size)
    for _ in range(choose(range(9), generator) + 2):
        left, top = (int(uniform(-0.2, 0.9, generator) * size) for _ in range(2))
        wide, high = (int(uniform(0.06, 0.6, generator) * size) for _ in range(2))
        rows, columns = slice(max(top, 0), max(top + high, 0)), slice(max(left, 0), max(left + wide, 0))
        patch = picture[:, rows, columns]
        picture[:, rows, columns] = torch.lerp(patch, _colour(generator).expand_as(patch), uniform(0.5, 1, generator))
    return _soften(picture, uniform(0, 9, generator))


def _room(generator: Generator, size: int) -> Tensor:
    """A wall with a corner, a floor or table line, and a bright window, door or picture on it."""
    picture = _gradient(generator, size) * uniform(0.8, 1.1, generator)
    axis = torch.linspace(0, 1, size)
    x, y = axis.expand(size, size), axis[:, None].expand(size, size)
    corner, lean = uniform(0.1, 0.9, generator), uniform(-0.15, 0.15, generator)
    side = torch.sigmoid((x - corner - lean * (y - 0.5)) * 150)
    picture = picture * (1 - side * uniform(0.05, 0.35, generator))
    if happens(0.6, generator):
        level = uniform(0.55, 0.95, generator)
        floor = torch.sigmoid((y - level - uniform(-0.12, 0.12, generator) * (x - 0.5)) * 120)
        picture = torch.lerp(picture, _colour(generator).expand_as(picture), floor * uniform(0.5, 1, generator))
    for _ in range(choose(range(3), generator) + 1):
        left, top = uniform(-0.1, 0.85, generator), uniform(0.0, 0.5, generator)
        wide, high = uniform(0.12, 0.4, generator), uniform(0.15, 0.6, generator)
        border = uniform(0.01, 0.03, generator)
        frame = _box(x, y, left, top, wide, high)
        pane = _box(x, y, left + border, top + border, wide - 2 * border, high - 2 * border)
        inner = (_colour(generator) * 1.3).clamp(max=0.97) if happens(0.5, generator) else _colour(generator)
        picture = torch.lerp(picture, (_colour(generator) * 0.7).expand_as(picture), frame)
        picture = torch.lerp(picture, inner.expand_as(picture), pane)
    return _soften(picture, uniform(0.5, 7, generator)).clamp(0, 1)


def _canvas(generator: Generator, size: int) -> Tensor:
    """Broad brush strokes over a dark or earthy ground, with weave."""
    base = _clouds(generator, size) * uniform(0.5, 1.0, generator)
    angle = uniform(0, math.pi, generator)
    axis = torch.linspace(-1, 1, size)
    x, y = axis.expand(size, size), axis[:, None].expand(size, size)
    bend = 0.05 * noise(generator, 4, (size, size))[0]
    u, v = x * math.cos(angle) + y * math.sin(angle) + bend, y * math.cos(angle) - x * math.sin(angle) + bend
    strokes = noise(generator, (44, 16), (256, 256))
    found = F.grid_sample(strokes[None], torch.stack([u, v], -1)[None], padding_mode="reflection", align_corners=True)[
        0
    ]
    weave = torch.sin(torch.arange(size) * 2.1)[:, None] * torch.sin(torch.arange(size) * 2.1)
    return (base * (1 + uniform(0.03, 0.10, generator) * found) + 0.012 * weave).clamp(0, 1)


def _photograph(generator: Generator, size: int) -> Tensor:
    """A crop of a natural picture that scikit-image installs with itself; clouds when it is absent."""
    name = choose(_PHOTOGRAPHS, generator)
    picture = _bundled(name)
    if picture is None:
        return _clouds(generator, size)
    side = int(min(picture.shape[1:]) * uniform(0.4, 1.0, generator))
    top = int(uniform(0, picture.shape[1] - side, generator))
    left = int(uniform(0, picture.shape[2] - side, generator))
    crop = picture[:, top : top + side, left : left + side]
    crop = F.interpolate(crop[None], size=(size, size), mode="bilinear", antialias=True, align_corners=False)[0]
    if happens(0.5, generator):
        crop = crop.flip(2)
    crop = torch.lerp(crop, crop.mean(0, keepdim=True) * _colour(generator) * 2, uniform(0, 0.8, generator))
    return _soften(crop.clamp(0, 1), uniform(0, 6, generator))


def _bundled(name: str) -> Tensor | None:
    """A picture that lies in scikit-image's own folder, [3, H, W]; never downloads one."""
    if name not in _LOADED:
        try:
            from skimage import data, io
        except ImportError:
            return None
        from pathlib import Path

        found = [p for p in Path(data.__file__).parent.glob(f"{name}.*") if p.suffix in (".png", ".jpg", ".jpeg")]
        if not found:
            return None
        pixels = torch.from_numpy(io.imread(found[0]).copy()).float() / 255
        pixels = pixels[..., None].expand(-1, -1, 3) if pixels.dim() == 2 else pixels[..., :3]
        _LOADED[name] = pixels.permute(2, 0, 1).contiguous()
    return _LOADED[name]


def _box(x: Tensor, y: Tensor, left: float, top: float, wide: float, high: float) -> Tensor:
    inside = torch.minimum(torch.minimum(x - left, left + wide - x), torch.minimum(y - top, top + high - y))
    return torch.sigmoid(inside * 200)


def _soften(picture: Tensor, radius: float) -> Tensor:
    """Gaussian blur of a [3, H, W] picture by a radius in pixels."""
    if radius < 0.3:
        return picture
    reach = int(3 * radius) + 1
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / radius) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, -1)
    padded = F.pad(picture[None], (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel[:, :, None], groups=3), kernel[..., None], groups=3)[0]
