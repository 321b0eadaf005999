"""One head followed through a video: a square that keeps it in view, and its motion in one fixed frame.

The square stays where it is while the head is well inside, since a reading shifts a little with the framing; it moves
when the head leaves its middle. Poses are then brought into the frame of the first square, in which a head that
crosses the picture moves and one that the square follows does not stand still.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .errors import InputError
from .geometry import AVERAGE_LOG_SCALE
from .io.face import CropRequest, crop_square, find_faces, portrait_crop, whole_pixels
from .latents import Motion

BATCH = 8
"""Frames read at a time with one square."""
CHECK_SECONDS = 0.5
"""How often it is made sure that the square still shows a face."""
MIDDLE, OUTSIDE = 0.12, 0.3
"""Shift (half squares) and log scale beyond which the square follows, and beyond which a frame is read again."""
GROWTH = 4.0
"""How much larger or smaller than at first the square may become."""
_AGREE_SHIFT, _AGREE_ANGLE = 0.12, 0.25
"""How far readings of one head in three squares may lie apart: half squares, radians."""


@dataclass
class Tracked:
    """What was seen of one head.

    Attributes:
        times: seconds of the frames that show it, ascending, [N].
        motion: head pose and dynamics in these frames, in the frame of the first square, absolute, [N, ...].
        duration: seconds of the whole video.
        lost: stretches (from, to) in seconds where the head was not to be seen.
    """

    times: Tensor
    motion: Motion
    duration: float
    lost: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class _Square:
    x: float
    y: float
    side: float

    def cut(self, picture: Tensor, size: int) -> Tensor:
        return crop_square(picture, self.x, self.y, self.side, size)

    def moved(self, right: float, down: float, factor: float) -> _Square:
        """Shifted by half sides and scaled about its centre."""
        side = self.side * factor
        x, y = self.x + (1 + right) * self.side / 2, self.y + (1 + down) * self.side / 2
        return _Square(x - side / 2, y - side / 2, side)


def track(
    frames: Iterable[tuple[float, Tensor]],
    engine: Any,
    face: int = 0,
    crop: CropRequest = "auto",
    progress: Callable[[int], None] | None = None,
) -> Tracked:
    """Follow one head through a video and read its motion.

    Args:
        frames: (seconds, RGB uint8 [3, H, W]), e.g. of `vasa.io.driving.open_driving_video`.
        engine: reads pictures: `Vasa`, or another with `size`, `read_pose` and `read_motion`.
        face: which one in the first picture that shows a face, 0 = largest.
        crop: "auto" looks for it, and again now and then; "none" or (x, y, size) say where it is in the first frame.
        progress: progress(frames so far), after each of them; may raise to cancel.

    Raises:
        InputError: no frame shows a face.
    """
    tracker = _Tracker(engine, face, crop)
    batch: list[tuple[float, Tensor]] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == BATCH:
            tracker.see(batch)
            batch = []
        if progress is not None:
            progress(tracker.count + len(batch))
    if batch:
        tracker.see(batch)
    return tracker.finished()


class _Tracker:
    def __init__(self, engine: Any, face: int, crop: CropRequest) -> None:
        self.engine, self.face, self.crop = engine, face, crop
        self.count = 0
        self.turns = 0
        self.picture_size: tuple[int, ...] = (0, 0)
        self.square: _Square | None = None
        self.first: _Square | None = None
        self.times: list[float] = []
        self.seen: list[Motion] = []
        self.last_time = self.gap = 0.0
        self.next_check = 0.0
        self.sure_until = 0.0
        """When a check last found the head where the square is."""
        self.since = 0.0
        """When the head was last found anew."""
        self.lost: list[tuple[float, float]] = []
        self.lost_since: float | None = None

    def see(self, batch: list[tuple[float, Tensor]]) -> None:
        """Read some frames that follow those seen so far."""
        self.count += len(batch)
        for time, picture in batch:
            if time >= self.next_check:
                self.next_check = time + CHECK_SECONDS
                self._check(time, torch.rot90(picture, self.turns, (1, 2)))
        times = [time for time, _ in batch]
        self.gap = times[-1] - (times[-2] if len(times) > 1 else self.last_time)
        self.last_time = times[-1]
        if self.square is None or self.lost_since is not None:
            return
        shown = [(time, torch.rot90(picture, self.turns, (1, 2))) for time, picture in batch if time >= self.since]
        if len({picture.shape for _, picture in batch}) > 1:
            raise InputError("the video changes its picture size on the way; convert it to one size")
        motion = self._read([picture for _, picture in shown], self.square)
        self.seen.append(motion)
        self.times += [time for time, _ in shown]
        self._follow(motion)

    def _read(self, pictures: list[Tensor], square: _Square) -> Motion:
        """Motion in the frame of the first square; frames where the head is far off the middle are read again."""
        cuts = torch.stack([square.cut(picture.float() / 255, self.engine.size) for picture in pictures])
        motion = self.engine.read_motion(cuts)
        pose = motion.head_pose.clone()
        dynamics = motion.facial_dynamics.clone()
        poses = _in_frame(pose, square, self.first)
        for i in _off(pose, OUTSIDE).nonzero().flatten().tolist():
            nearer = self._sane(_towards(square, pose[i]))
            again = self.engine.read_motion(nearer.cut(pictures[i].float() / 255, self.engine.size)[None])
            poses[i], dynamics[i] = _in_frame(again.head_pose, nearer, self.first)[0], again.facial_dynamics[0]
        return replace(motion, head_pose=poses, facial_dynamics=dynamics)

    def _follow(self, motion: Motion) -> None:
        """Put the square where the head is now, if it has left its middle."""
        pose = _in_frame(motion.head_pose[-2:].mean(0, keepdim=True), self.first, self.square)
        if bool(_off(pose, MIDDLE)[0]):
            self.square = self._sane(_towards(self.square, pose[0]))

    def _sane(self, square: _Square) -> _Square:
        """The square with its middle in the picture and of a size that a head can take on: misreadings lead nowhere."""
        side = min(max(square.side, self.first.side / GROWTH, 16.0), self.first.side * GROWTH)
        x, y = (
            min(max(start + square.side / 2, 0.0), float(edge)) - side / 2
            for start, edge in ((square.x, self.picture_size[1]), (square.y, self.picture_size[0]))
        )
        return _Square(x, y, side)

    def _check(self, time: float, picture: Tensor) -> None:
        """Find the head at first, and see now and then whether it is still there."""
        if self.square is None:
            self._find(picture)
            self.since = time
            if self.square is not None and time > 0:
                self.lost.append((0.0, time))
        elif self.crop != "auto" or self._is_here(picture):
            # whoever gave the square vouches for a head that no detector may know
            self._found_again(time)
            self.sure_until = time
        elif self._moved_elsewhere(picture):
            self._found_again(time)
            self.sure_until = time
        elif self.lost_since is None:
            # what was read since the last check may already be something else
            self.times = [seen for seen in self.times if seen <= self.sure_until]
            self.seen = [_joined(self.seen)[: len(self.times)]] if self.times else []
            self.lost_since = self.times[-1] + self.gap if self.times else 0.0

    def _find(self, picture: Tensor) -> None:
        try:
            found = portrait_crop(
                picture.float() / 255, self.crop, self.face, self.engine.size, self.engine.read_pose
            )  # fmt: skip
        except InputError:
            if self.crop != "auto":
                raise
            return
        self.turns = found.quarter_turns
        self.picture_size = picture.shape[1:]
        self.square = self.first = _Square(*whole_pixels(found.x, found.y, found.side))

    def _is_here(self, picture: Tensor) -> bool:
        """Whether the square shows a head: a detector sees one in it, or shifted squares agree on where it is."""
        picture = picture.float() / 255
        wide = self.square.moved(0, 0, 1.3)
        for box in find_faces(wide.cut(picture, 192)):
            x, y = (2 * c / 192 - 1 for c in box.centre)
            if box.quarter_turns == 0 and math.hypot(x, y) < 0.5:
                return True
        squares = [self.square, self.square.moved(0.2, -0.12, 1.15), self.square.moved(-0.2, 0.12, 1.0)]
        cuts = torch.stack([square.cut(picture, self.engine.size) for square in squares])
        poses = self.engine.read_motion(cuts).head_pose
        poses = torch.cat([_in_frame(p[None], s, self.square) for p, s in zip(poses, squares, strict=True)])
        apart = (poses.amax(0) - poses.amin(0)).tolist()
        return max(apart[:3]) < _AGREE_ANGLE and max(apart[3:]) < _AGREE_SHIFT

    def _moved_elsewhere(self, picture: Tensor) -> bool:
        """Look for the head in the whole picture; True if there is one, where the square then is."""
        try:
            found = portrait_crop(picture.float() / 255, "auto", 0, self.engine.size, self.engine.read_pose)
        except InputError:
            return False
        if found.quarter_turns:
            return False
        self.square = _Square(*whole_pixels(found.x, found.y, found.side))
        return True

    def _found_again(self, time: float) -> None:
        if self.lost_since is not None:
            self.lost.append((self.lost_since, time))
            self.lost_since, self.since = None, time

    def finished(self) -> Tracked:
        duration = self.last_time + self.gap
        if self.lost_since is not None:
            self.lost.append((self.lost_since, duration))
        if not self.times:
            what = "no face was" if self.face == 0 else f"no {self.face + 1} faces were"
            raise InputError(
                f"{what} found in the driving video; show a face from the front in its first frames, "
                "or give its square with --driver-crop X,Y,SIZE"
            )
        return Tracked(torch.tensor(self.times, dtype=torch.float64), _joined(self.seen), duration, self.lost)


def _joined(pieces: list[Motion]) -> Motion:
    vectors = torch.cat([piece.vectors for piece in pieces])
    return Motion.from_vectors(vectors, pieces[0].fps, pieces[0].backend)


def _in_frame(head_pose: Tensor, square: _Square, frame: _Square) -> Tensor:
    """Poses [N, 6] read in one square as they are in another one's unit cube."""
    ratio = square.side / frame.side
    centre = [(a + square.side / 2 - b - frame.side / 2) * 2 / frame.side for a, b in
              ((square.x, frame.x), (square.y, frame.y))]  # fmt: skip
    t = head_pose[:, 3:5] * ratio + head_pose.new_tensor(centre)
    return torch.cat([head_pose[:, :3], t, head_pose[:, 5:] + math.log(ratio)], dim=-1)


def _off(head_pose: Tensor, limit: float) -> Tensor:
    """Where the head is off the average framing by more than `limit`, [N] bool."""
    scale = head_pose[:, 5] - AVERAGE_LOG_SCALE
    return (head_pose[:, 3:5].abs().amax(1) > limit) | (scale.abs() > limit)


def _towards(square: _Square, head_pose: Tensor) -> _Square:
    """The square that has the head in its middle, at average scale; a step of at most half the square."""
    x, y = (min(max(float(v), -1.0), 1.0) for v in head_pose[3:5])
    factor = math.exp(min(max(float(head_pose[5]) - AVERAGE_LOG_SCALE, -0.5), 0.5))
    return square.moved(x, y, factor)
