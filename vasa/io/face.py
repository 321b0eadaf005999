"""Where the face is in a picture, and the square crop the model sees.

Detectors come whole inside their packages: MediaPipe 0.10.14 where the user has it, else scikit-image's LBP
cascade. Nothing is ever downloaded.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

CropRequest = Literal["auto", "none"] | tuple[float, float, float]
DETECTION_SIDE = 640
"""Longest side of the picture the detectors look at, pixels."""
AVERAGE_SCALE = 0.75
"""Scale s of the head pose at the average framing."""
CROP_PER_FACE = 1.9
"""Edge of the crop at the average framing over edge of the face box: the median over 40 rendered
people, whose middle half lies between 1.72 and 2.00."""
CENTRE_BELOW_BOX = -0.03
"""The crop's centre lies this much below the face box's centre, in box edges."""

LARGEST_HEAD = 1.25
"""How much larger than at the average framing a head may be, where the picture ends close to it."""
FARTHEST_SHIFT = 0.125
"""How far from the crop's middle, in crop edges, it may then be."""

MIN_WINDOWS = 14
"""Windows that must agree on a face; portraits give 30 to 180, false alarms at most about 10."""

_PUPILS_PER_BOX = 0.42
"""Distance of the pupils in a cascade box; with the next, how other detectors are mapped onto that box."""
_EYE_LINE_IN_BOX = 0.38
_SMALL_FACE = 60


@dataclass(frozen=True)
class FaceBox:
    """A face: a square from mid-forehead to the lower lip or chin, in pixels.

    Attributes:
        x: left edge, in the picture turned by `quarter_turns`.
        y: top edge.
        size: edge.
        quarter_turns: anticlockwise quarter turns that bring the picture upright, mostly 0.
    """

    x: float
    y: float
    size: float
    quarter_turns: int = 0

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.size / 2, self.y + self.size / 2


@dataclass(frozen=True)
class Crop:
    """The square picture a model sees.

    Attributes:
        picture: [3, size, size] in [0, 1].
        x: left edge of the square in the (turned) source picture, pixels; may be negative.
        y: top edge.
        side: edge in source pixels.
        quarter_turns: anticlockwise quarter turns that the source picture was given.
        notices: sentences the user should see.
    """

    picture: Tensor
    x: float
    y: float
    side: float
    quarter_turns: int = 0
    notices: list[str] = field(default_factory=list)

    @property
    def square(self) -> tuple[int, int, int]:
        """(left, top, edge) in whole pixels: what `crop_square` really cut."""
        return whole_pixels(self.x, self.y, self.side)


def find_faces(image: Tensor) -> list[FaceBox]:
    """Faces in a picture, largest first.

    Looks at the picture as it is, then with its contrast evened out, then turned by 90, 270 and 180 degrees,
    and stops at the first of these that shows a face.

    Args:
        image: RGB in [0, 1], [3, H, W].

    Returns:
        Boxes; empty when no face is found.
    """
    scale = min(1.0, DETECTION_SIDE / max(image.shape[1:]))
    small = image.detach().float().cpu()
    if scale < 1:
        size = [max(1, round(edge * scale)) for edge in image.shape[1:]]
        small = F.interpolate(small[None], size=size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    upright = (small * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    for pictures in (
        [(upright, 0)],
        [(_evened(upright), 0)],
        [(_rotated(upright, turns), turns) for turns in (1, 2, 3)],
    ):
        found = [(_detect(picture), turns) for picture, turns in pictures]
        sightings, turns = max(found, key=lambda one: max((s.strength for s in one[0]), default=0))
        if sightings:
            back = image.shape[2] / upright.shape[1]
            boxes = [FaceBox(s.x * back, s.y * back, s.size * back, turns) for s in sightings]
            return sorted(boxes, key=lambda box: -box.size)
    return []


def crop_square(image: Tensor, x: float, y: float, size: float, out: int) -> Tensor:
    """Cut a square out of a picture and resize it, antialiased; outside, the picture's edge is continued.

    Args:
        image: [3, H, W].
        x: left edge, pixels.
        y: top edge, pixels.
        size: edge, pixels.
        out: edge of the result, pixels.

    Returns:
        [3, out, out].
    """
    left, top, edge = whole_pixels(x, y, size)
    height, width = image.shape[1:]
    rows = torch.arange(top, top + edge, device=image.device).clamp(0, height - 1)
    columns = torch.arange(left, left + edge, device=image.device).clamp(0, width - 1)
    square = image[:, rows][:, :, columns]
    outside = max(-left, -top, left + edge - width, top + edge - height)
    if outside > 0:
        square = _soften_continuation(square, left, top, height, width)
    return F.interpolate(square[None], size=(out, out), mode="bicubic", antialias=True)[0].clamp(0, 1)


def upright(image: Tensor, quarter_turns: int) -> Tensor:
    """A picture [3, H, W] given anticlockwise quarter turns; without any, itself: `torch.rot90` would copy it."""
    return torch.rot90(image, quarter_turns, (1, 2)) if quarter_turns % 4 else image


def whole_pixels(x: float, y: float, size: float) -> tuple[int, int, int]:
    """A square's corner and edge, rounded to pixels as `crop_square` does."""
    return round(x), round(y), max(2, round(size))


def portrait_crop(
    image: Tensor,
    crop: CropRequest = "auto",
    face: int = 0,
    size: int = 256,
    refine: Callable[[Tensor], Tensor] | None = None,
    boxes: list[FaceBox] | None = None,
) -> Crop:
    """The square around one face at the framing the models know: head centre in the middle, average scale.

    Args:
        image: RGB in [0, 1], [3, H, W].
        crop: "auto" finds the face; "none" takes the largest centred square; (x, y, size) a square in pixels.
        face: which face, 0 = largest.
        size: edge of the result, pixels.
        refine: reads the head pose [6] off a crop; corrects the detector's framing in two steps.
        boxes: what `find_faces` gave for the picture, if that is known already.

    Raises:
        InputError: no face, no such face, or a square that misses the picture.
    """
    height, width = image.shape[1:]
    if crop == "none":
        edge = min(height, width)
        notices = [] if height == width else ["the portrait is not square; its middle is used"]
        return _cut(image, (width - edge) / 2, (height - edge) / 2, edge, size, 0, notices)
    if crop != "auto":
        x, y, edge = crop
        if not all(map(math.isfinite, crop)) or edge < 16 or x >= width or y >= height or min(x, y) + edge <= 0:
            raise InputError(
                f"the crop {x:g},{y:g},{edge:g} misses the {width}x{height} portrait; "
                "give X,Y of its top left corner and SIZE (at least 16) in pixels"
            )
        return _cut(image, x, y, edge, size, 0, [])
    box, notices = _choose(find_faces(image) if boxes is None else boxes, face)
    turned = upright(image, box.quarter_turns)
    edge = CROP_PER_FACE * box.size
    centre_x, centre_y = box.centre[0], box.centre[1] + CENTRE_BELOW_BOX * box.size
    if refine is not None:
        centre_x, centre_y, edge = _refined(turned, centre_x, centre_y, edge, size, refine)
    centre_x, centre_y, edge = _inside(turned, centre_x, centre_y, edge)
    return _cut(turned, centre_x - edge / 2, centre_y - edge / 2, edge, size, box.quarter_turns, notices)


def detector_name() -> str:
    """Which detector `find_faces` uses on this machine."""
    return "MediaPipe face mesh" if _mesh() is not None else "scikit-image LBP cascade"


def _choose(boxes: list[FaceBox], face: int) -> tuple[FaceBox, list[str]]:
    if not boxes:
        raise InputError(
            "no face was found in the portrait; give its square with --crop X,Y,SIZE, "
            "or --crop none if the picture is already cropped to the head"
        )
    if not 0 <= face < len(boxes):
        raise InputError(
            f"face {face} was asked for, but the portrait shows {len(boxes)}, counted from 0 by size; "
            "see them with `vasa crop`"
        )
    box, notices = boxes[face], []
    if len(boxes) > 1:
        which = "the largest" if face == 0 else f"number {face}"
        notices.append(f"the portrait shows {len(boxes)} faces; {which} is used (choose with --face)")
    if box.quarter_turns:
        notices.append(f"the portrait lies on its side; it is turned by {90 * box.quarter_turns} degrees")
    if box.size < _SMALL_FACE:
        notices.append(f"the face is only about {box.size:.0f} pixels wide; the video will look soft")
    return box, notices


def _refined(
    image: Tensor,
    centre_x: float,
    centre_y: float,
    edge: float,
    size: int,
    refine: Callable[[Tensor], Tensor],
) -> tuple[float, float, float]:
    """Move and scale the square until the pose read off it is centred and of average scale.

    The reading is trusted only near the detector's box: one that disagrees by more has misread the picture.
    """
    start = (centre_x, centre_y, edge)
    for _ in range(2):
        picture = crop_square(image, centre_x - edge / 2, centre_y - edge / 2, edge, size)
        t_x, t_y, log_s = (float(value) for value in refine(picture)[3:6])
        if not math.isfinite(t_x + t_y + log_s):
            return start
        centre_x, centre_y = centre_x + t_x * edge / 2, centre_y + t_y * edge / 2
        edge *= math.exp(log_s) / AVERAGE_SCALE
        shift = math.hypot(centre_x - start[0], centre_y - start[1])
        if shift > 0.25 * start[2] or not 0.65 < edge / start[2] < 1.55:
            return start
    return centre_x, centre_y, edge


def _inside(image: Tensor, centre_x: float, centre_y: float, edge: float) -> tuple[float, float, float]:
    """Shrink and shift the square into the picture, as far as the models tolerate another framing.

    They were trained on heads up to a quarter larger and an eighth of the square off its middle; real picture beats
    continued border.
    """
    height, width = image.shape[1:]
    edge = max(min(edge, height, width), edge / LARGEST_HEAD)
    room = FARTHEST_SHIFT * edge
    moved = []
    for centre, side in ((centre_x, width), (centre_y, height)):
        inside = min(max(centre, edge / 2), side - edge / 2) if side >= edge else side / 2
        moved.append(centre + min(max(inside - centre, -room), room))
    return moved[0], moved[1], edge


def _cut(image: Tensor, x: float, y: float, edge: float, size: int, turns: int, notices: list[str]) -> Crop:
    height, width = image.shape[1:]
    outside = max(-x, -y, x + edge - width, y + edge - height)
    if outside > 0.04 * edge:
        notices = [
            *notices,
            "the head is close to the border of the portrait, whose edge is continued",
        ]
    return Crop(crop_square(image, x, y, edge, size), x, y, edge, turns, notices)


def _soften_continuation(square: Tensor, left: int, top: int, height: int, width: int) -> Tensor:
    """Blur what lies outside the picture, more with distance, so that a continued edge shows no streaks."""
    edge = square.shape[1]
    index = torch.arange(edge, device=square.device)
    beyond_y = torch.maximum(-(index + top), index + top - height + 1).clamp(min=0)
    beyond_x = torch.maximum(-(index + left), index + left - width + 1).clamp(min=0)
    share = (torch.maximum(beyond_y[:, None], beyond_x[None]) / (0.08 * edge)).clamp(max=1).to(square)
    coarse = F.interpolate(square[None], size=(16, 16), mode="area")
    coarse = F.interpolate(coarse, size=(edge, edge), mode="bicubic", align_corners=False)[0]
    return torch.lerp(square, coarse, share)


def _evened(picture: np.ndarray) -> np.ndarray:
    """Histogram-equalised grey, as RGB: brings back faces that are very dark or very bright."""
    grey = picture.mean(axis=2).astype(np.uint8)
    counts = np.bincount(grey.ravel(), minlength=256).cumsum()
    levels = (255 * counts / counts[-1]).astype(np.uint8)
    return np.repeat(levels[grey][..., None], 3, axis=2)


def _rotated(picture: np.ndarray, quarter_turns: int) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(picture, quarter_turns))


@dataclass(frozen=True)
class _Sighting:
    """A face box in detection pixels and how strongly it was seen."""

    x: float
    y: float
    size: float
    strength: float


def _detect(picture: np.ndarray) -> list[_Sighting]:
    """Faces in an [H, W, 3] uint8 picture, one sighting each."""
    if _mesh() is not None:
        return _mesh_sightings(picture)
    windows = _cascade_windows(picture)
    mirrored = _cascade_windows(np.ascontiguousarray(picture[:, ::-1]))
    mirrored[:, 0] = picture.shape[1] - mirrored[:, 0]
    return _merged(np.concatenate([windows, mirrored]))


def _cascade_windows(picture: np.ndarray) -> np.ndarray:
    """Every window in which the cascade sees a face, unmerged: (centre x, centre y, edge), [N, 3]."""
    found = _cascade().detect_multi_scale(
        picture, scale_factor=1.1, step_ratio=1, min_size=(36, 36), max_size=picture.shape[:2],
        min_neighbor_number=1, intersection_score_threshold=1.01,
    )  # fmt: skip
    rows = [(w["c"] + w["width"] / 2, w["r"] + w["height"] / 2, w["width"]) for w in found]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def _merged(windows: np.ndarray) -> list[_Sighting]:
    """Windows that agree become one sighting each, where enough of them do.

    Over a face, the cascade answers in dozens of neighbouring windows of the picture and its mirror image;
    over anything else in a few, and seldom in both.
    """
    sightings: list[_Sighting] = []
    while len(windows):
        apart = np.abs(windows[:, None, :2] - windows[None, :, :2]).max(axis=2) / windows[None, :, 2]
        ratio = windows[:, None, 2] / windows[None, :, 2]
        agree = (apart < 0.25) & (ratio > 0.7) & (ratio < 1.43)
        best = agree[:, agree.sum(axis=0).argmax()]
        strength = int(best.sum())
        if strength < MIN_WINDOWS:
            break
        x, y, size = np.median(windows[best], axis=0).tolist()
        covered = np.abs(windows[:, :2] - (x, y)).max(axis=1) < size / 2
        windows = windows[~(best | covered)]
        sightings.append(_Sighting(x - size / 2, y - size / 2, size, strength))
    return sightings


@functools.cache
def _cascade():
    """scikit-image's LBP face cascade."""
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    return Cascade(lbp_frontal_face_cascade_filename())


@functools.cache
def _mesh():
    """MediaPipe's face mesh, if a version that brings its models along is installed."""
    try:
        from mediapipe.python.solutions.face_mesh import FaceMesh

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return FaceMesh(static_image_mode=True, max_num_faces=8, refine_landmarks=True)
    except (ImportError, FileNotFoundError, RuntimeError):
        return None


def _mesh_sightings(picture: np.ndarray) -> list[_Sighting]:
    """The boxes the cascade would give for MediaPipe's faces, from pupils, brow and chin."""
    height, width = picture.shape[:2]
    boxes = []
    for face in _mesh().process(picture).multi_face_landmarks or []:
        points = np.array([(p.x * width, p.y * height) for p in face.landmark])
        right, left, forehead, chin = points[468], points[473], points[10], points[152]
        # A turned head narrows the pupils' distance but not the height of the face.
        size = max(float(np.hypot(*(left - right))) / _PUPILS_PER_BOX, float(np.hypot(*(chin - forehead))) / 1.2)
        x, y = (left + right) / 2
        boxes.append(_Sighting(float(x) - size / 2, float(y) - _EYE_LINE_IN_BOX * size, size, strength=size))
    return boxes
