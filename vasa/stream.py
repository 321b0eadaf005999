"""The engine as a session: sound goes in piece by piece, frames come out; a file is a session fed at once.

The audio sample index is the only clock: frame i belongs to the samples from i / fps on. Nothing here looks at the
time of day, so what comes out depends on the samples and the order of calls, never on how the sound was cut.
"""

from __future__ import annotations

import json
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .aside import Aside
from .controls import Blink, Controls
from .errors import InputError
from .latents import FaceLatents, Motion
from .motion.idle import REACH, speaking
from .motion.plan import Span, WindowPlan
from .motion.schedule import EASE, ControlSchedule
from .motion.sound import Resampler, SoundBuffer, mono
from .motion.windows import MotionState, next_window, stride_of

LIVE = Controls(blink=Blink(rate=15.0))
"""Controls of a session that is given none. A window of a few frames hardly ever begins a blink by itself, so that a
rate is asked for."""


class Full(RuntimeError):
    """More sound is waiting than the session holds; take frames first, then push again."""


class Session:
    """One face that listens to one stream of sound.

    Frames are made when they are asked for. `push_audio`, `push_silence`, `set_controls` and `interrupt` may be
    called from another thread than the one that takes them.

    Args:
        vasa: the engine (`Vasa`, or one of the same interface).
        face: the portrait's latents.
        controls: what the user asks for; their seed is the session's. Default: `LIVE`, which blinks.
        plan: how the sound is cut into windows; default `vasa.live_plan()`.
        idle: how much the head moves while nobody speaks, 0 (only eyes, lids and mouth) .. 2; 1 = as generated.
        max_pending: seconds of sound that may wait; beyond it `push_audio` refuses (back-pressure). None: no bound.
        past: what a motion before handed over (`vasa.continuation`). The clock then begins behind its frames, which
            were silent; controls count from there.
        progress: called after every denoising step; may raise to cancel.

    Raises:
        InputError: a plan whose windows are larger than the model's or than the sound that may wait, or `idle` out of
            range.
    """

    def __init__(
        self,
        vasa: Any,
        face: FaceLatents,
        controls: Controls | None = None,
        plan: WindowPlan | None = None,
        *,
        idle: float = 1.0,
        max_pending: float | None = 30.0,
        past: MotionState | None = None,
        progress: Callable[[], None] | None = None,
    ) -> None:
        controls = vasa.accepted(controls or LIVE)
        if not 0 <= idle <= 2:
            raise InputError(f"idle must be between 0 and 2, got {idle}")
        self.vasa, self.face = vasa, face
        self.plan = plan or vasa.live_plan()
        self.max_pending = max_pending
        self.idle = idle
        self.seed = controls.seed
        self.silence = 0
        """Samples of silence that `idle_until` has put in so far."""
        self._progress = progress
        self._rate, self._fps = vasa.models.audio.config.sample_rate, vasa.fps
        self._denoiser = vasa.generator_for(face)
        if past is not None:
            self.plan = replace(self.plan, lead=0)  # it begins with the known frames of the motion before
        self._fit(self.plan)
        self._state = past or MotionState()
        self._schedule = ControlSchedule([(0, controls)], self._state.frame)
        self._sound = SoundBuffer(torch.zeros(math.ceil(self._state.frame * self._rate / self._fps)))
        self._resampler: Resampler | None = None
        self._speaking = False
        """Whether sound was pushed since the last flush."""
        self._walls: list[int] = []
        """Frames at which an utterance ended: before them nothing is heard of what comes behind."""
        self._drawn: deque[tuple[Motion, Any]] = deque()
        """Motion that was generated and not yet given out, and what must be waited for before it is read."""
        self._aside = Aside(torch.device(vasa.device))
        self._drops = 0
        self._changed = threading.Condition(threading.RLock())

    def _fit(self, plan: WindowPlan) -> None:
        config = self._denoiser.config
        largest = plan.largest(config.num_previous)
        if largest > config.window:
            raise InputError(
                f"the plan draws windows of up to {largest} frames, the model at most {config.window}; "
                "choose a smaller window, hop or look-ahead"
            )
        needed = (max(plan.span(0, 0).kept, plan.hop) + plan.look_ahead) / self._fps
        if self.max_pending is not None and self.max_pending < needed:
            raise InputError(f"max_pending must be at least {needed:.1f} s for this plan, got {self.max_pending} s")

    # --- the clock

    def _sample(self, frame: int) -> int:
        """Index of the first sample of a frame."""
        return round(frame * self._rate / self._fps)

    @property
    def frame(self) -> int:
        """Index of the next frame to come out; it begins at second frame / fps of the sound."""
        return self._state.frame - sum(len(motion) for motion, _ in self._drawn)

    @property
    def seconds(self) -> float:
        """Sound taken so far, silence included."""
        return self._sound.end / self._rate

    @property
    def room(self) -> int:
        """Samples at 16 kHz that can still be pushed."""
        if self.max_pending is None:
            return 1 << 62
        with self._changed:
            pending = self._sound.end - self._sample(self._state.frame)
            return max(0, round(self.max_pending * self._rate) - pending)

    @property
    def frames_ready(self) -> int:
        """Frames that can be taken now."""
        with self._changed:
            frame = self._state.frame
            while (kept := self._kept(self._span(frame))) > 0:
                frame += kept
            return frame - self.frame

    def _span(self, frame: int) -> Span:
        return self.plan.span(frame, self._denoiser.config.num_previous)

    def _kept(self, span: Span) -> int:
        """New frames that the window can give with the sound that is there."""
        first = span.start + span.known
        wall = next((w for w in self._walls if w > first), None)
        if wall is not None:
            return min(span.kept, wall - first)
        return span.kept if self._sound.end >= self._sample(span.needs) else 0

    # --- sound in

    def push_audio(self, samples: Tensor | np.ndarray, sample_rate: int = 16_000, *, timeout: float = 0.0) -> None:
        """Append sound.

        Args:
            samples: mono, float in [-1, 1] or int16, [N].
            sample_rate: Hz; may change only after `flush`.
            timeout: seconds to wait for room.

        Raises:
            Full: no room within `timeout`; nothing was taken.
            InputError: not mono, not finite, or another rate than before.
        """
        waveform = mono(samples)
        with self._changed:
            if sample_rate != (self._rate if self._resampler is None else self._resampler.rate):
                self._change_rate(sample_rate)
            coming = waveform.shape[0] * self._rate // sample_rate
            if not self._changed.wait_for(lambda: self.room >= coming, timeout):
                raise Full(
                    f"{coming / self._rate:.1f} s of sound do not fit: {self.room / self._rate:.1f} s of "
                    f"{self.max_pending} s are free; take frames first, push less, or raise max_pending"
                )
            self._sound.append(waveform if self._resampler is None else self._resampler(waveform))
            self._speaking = True

    def _change_rate(self, sample_rate: int) -> None:
        if self._speaking:
            rate = self._rate if self._resampler is None else self._resampler.rate
            raise InputError(f"the sound had {rate} Hz before and now {sample_rate}; call flush between the two")
        if not 4000 <= sample_rate <= 384_000:
            raise InputError(f"the sample rate must be between 4000 and 384000 Hz, got {sample_rate}")
        self._resampler = None if sample_rate == self._rate else Resampler(sample_rate, self._rate)

    def push_silence(self, frames: int) -> None:
        """Append so many frames of silence, room or not: the mouth closes and the face idles."""
        with self._changed:
            self._end_resampling()
            self._sound.append(torch.zeros(self._sample(frames)))

    def idle_until(self, frame: int) -> None:
        """Put silence behind the sound until all frames before `frame` can be made.

        A live driver calls it when a frame is due and no sound has come: the mouth closes and the face idles.
        """
        with self._changed:
            end, due = self._state.frame, self._sound.end
            while end < frame:
                span = self._span(end)
                if (kept := self._kept(span)) == 0:
                    kept, due = span.kept, max(due, self._sample(span.needs))
                end += kept
            if due > self._sound.end:
                self._end_resampling()
                missing = max(0, due - self._sound.end)
                self._sound.append(torch.zeros(missing))
                self.silence += missing

    def flush(self) -> None:
        """End of an utterance: whatever was pushed gets its frames, as if silence followed.

        The sound is filled up to a whole frame with silence; what is pushed afterwards begins there.
        """
        with self._changed:
            self._end_resampling()
            wall = math.ceil(self._sound.end * self._fps / self._rate - 1e-6)
            self._sound.append(torch.zeros(max(0, self._sample(wall) - self._sound.end)))
            self._speaking = False
            if wall > self._state.frame:
                self._walls.append(wall)

    def _end_resampling(self) -> None:
        if self._resampler is not None:
            self._sound.append(self._resampler.flush())

    # --- control

    def set_controls(self, controls: Controls) -> None:
        """Other controls from the next generated hop on, eased in over 0.4 s.

        Their curves count the session's time, not that of the change. The seed stays the session's.

        Raises:
            InputError: something is asked for that this engine cannot do.
        """
        controls = self.vasa.accepted(controls)
        with self._changed:
            self._schedule.change(self._state.frame, controls)

    def interrupt(self) -> None:
        """Drop the sound and the motion that are pending.

        What is pushed next continues from the last frame given out; with silence the mouth closes.
        """
        with self._changed:
            self._state = self._state.back_at(self.frame)
            self._drawn.clear()
            self._drops += 1
            self._resampler = None if self._resampler is None else Resampler(self._resampler.rate, self._rate)
            self._sound.keep(last=self._sample(self._state.frame))
            self._walls, self._speaking = [], False
            self._changed.notify_all()

    # --- frames out

    def pop_motion(self) -> Motion | None:
        """Motion of the next hop, placed on the portrait; None while more sound is needed."""
        while True:
            with self._changed:
                taken = self._drawn.popleft() if self._drawn else None
            if taken is not None:
                return self._met(*taken)
            if not self._draw():
                return None

    def pop_frames(self, batch_size: int = 8, every: int = 1) -> Tensor:
        """Pictures of the next hop, [n, 3, S, S] in [0, 1]; n = 0 while more sound is needed.

        Args:
            batch_size: frames decoded at a time.
            every: decode the hop's first frame and every so-manieth after it.
        """
        motion = self.pop_motion()
        if motion is None:
            return torch.zeros(0, 3, self.vasa.size, self.vasa.size)
        return torch.cat(list(self.vasa.decode(self.face, motion[::every], batch_size=batch_size)))

    def frames(self, batch_size: int = 1) -> Iterator[Tensor]:
        """Pictures [n <= batch_size, 3, S, S] in [0, 1] as they are made, until more sound is needed."""
        while self._drawn or self._draw():
            with self._changed:
                if not self._drawn:  # interrupted
                    continue
                motion, ready = self._drawn.popleft()
                piece, rest = motion[slice(batch_size)], motion[slice(batch_size, None)]
                if len(rest):
                    self._drawn.appendleft((rest, ready))
            if self._aside.ahead and len(self._drawn) < 2:
                self._draw()
            yield from self.vasa.decode(self.face, self._met(piece, ready), batch_size=batch_size)

    def _met(self, motion: Motion, ready: Any) -> Motion:
        self._aside.meet(ready, motion.head_pose, motion.facial_dynamics, motion.rest)
        return motion

    @torch.inference_mode()
    def _draw(self) -> bool:
        """Generate the next hop; False while more sound is needed."""
        with self._changed:
            state, drops = self._state, self._drops
            span = self._span(state.frame)
            kept = self._kept(span)
            if kept == 0:
                return False
            wall = next((w for w in self._walls if w > state.frame), None)
            new = range(state.frame, state.frame + kept)
            heard = self._sample(span.needs if wall is None else min(span.needs, wall))
            piece, first = self._sound.piece(self._sound.start, heard), self._sound.start
            activity = None if self.idle == 1 else speaking(self._sound, new, self._sample)
            controls, schedule = self._schedule.latest, self._schedule.copy()
        with self._aside.work():
            vectors, after = next_window(
                self._denoiser,
                self.vasa.models.audio,
                SoundBuffer(piece.to(self.vasa.device), first),
                lambda frames: self.vasa.told(schedule.curves(frames, self._fps), frames),
                state,
                self.plan,
                scales=controls.guidance,
                steps=controls.steps,
                seed=self.seed,
                sampler=controls.sampler,
                progress=self._progress,
            )
            after = after.back_at(state.frame + kept)
            placed = self.vasa.placed(vectors[0, :kept], self.face)
            asked = schedule.curves(new, self._fps)
            if activity is not None:
                amplitude = self.idle + (1 - self.idle) * activity
                asked = replace(asked, head_amplitude=asked.head_amplitude * amplitude[:, None])
            motion, ready = self.vasa.shaped(placed, asked, self.face), self._aside.done()
        with self._changed:
            if drops == self._drops:
                self._state = after
                self._drawn.append((motion, ready))
                self._forget()
                self._changed.notify_all()
        return True

    def _forget(self) -> None:
        """Let go of sound, controls and walls that no later window asks for."""
        past = self.plan.overlap + self._denoiser.config.num_previous + self.plan.context
        past += stride_of(self.vasa.models.audio) - 1
        oldest = self.frame - max(past, REACH)
        self._sound.keep(first=self._sample(oldest))
        self._schedule.forget(oldest - EASE)
        self._walls = [wall for wall in self._walls if wall > self._state.frame]

    # --- going on elsewhere

    def state(self) -> dict[str, Tensor | str]:
        """Everything that a session needs to go on: tensors and, under "session", JSON text.

        A second or two of sound and motion, whatever the session's age; `vasa.session_file` writes it to disk.
        """
        with self._changed:
            self._aside.settle()
            state, drawn = self._state, [motion for motion, _ in self._drawn]
            drawn_vectors = [one.vectors for one in drawn] or [torch.zeros(0)]
            tensors = {
                "sound": self._sound.samples,
                "motion": torch.zeros(0) if state.motion is None else state.motion[0],
                "ahead": torch.zeros(0) if state.ahead is None else state.ahead[0],
                "drawn": torch.cat(drawn_vectors),
                "rest": torch.zeros(0) if not drawn or drawn[0].rest is None else drawn[0].rest,
                "resampling": torch.zeros(0) if self._resampler is None else self._resampler.pending,
            }
            facts = {
                "engine": self._engine(),
                "plan": asdict(self.plan),
                "controls": [(first, controls.to_json()) for first, controls in self._schedule.entries],
                "origin": self._schedule.origin,
                "seed": self.seed,
                "idle": self.idle,
                "frame": state.frame,
                "sound_start": self._sound.start,
                "silence": self.silence,
                "walls": self._walls,
                "speaking": self._speaking,
                "sample_rate": None if self._resampler is None else self._resampler.rate,
            }
        return {name: t.detach().cpu().clone() for name, t in tensors.items()} | {"session": json.dumps(facts)}

    def resume(self, state: dict[str, Tensor | str]) -> None:
        """Go on where another session with the same engine and face was when it gave its `state`.

        Plan, controls and seed become those of the state. On the same machine the frames are the same, bit by bit.

        Raises:
            InputError: not a session's state, or one of another model; this session stays as it was.
        """
        try:
            facts = json.loads(state["session"])
            plan = WindowPlan(**facts["plan"])
            entries = [(int(first), Controls.from_json(controls)) for first, controls in facts["controls"]]
            rate, engine, origin = facts["sample_rate"], facts["engine"], int(facts.get("origin", 0))
            sound = SoundBuffer(state["sound"].float(), int(facts["sound_start"]))
            motion, ahead = (state[name].to(self.vasa.device)[None] for name in ("motion", "ahead"))
            drawn = state["drawn"]
            rest, resampling = state["rest"], state["resampling"]
            others = int(facts["seed"]), int(facts["frame"]), int(facts["silence"]), list(facts["walls"])
            speaking_on, idle = bool(facts["speaking"]), float(facts["idle"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError("this is not the state of a session; use what Session.state() returned") from error
        if engine != self._engine():
            raise InputError(f"the session's state was made with {engine}, this engine is {self._engine()}")
        self._fit(plan)
        with self._changed:
            self.plan, self._sound, self._schedule = plan, sound, ControlSchedule(entries, origin)
            self.seed, frame, self.silence, self._walls = others
            self._speaking, self.idle = speaking_on, idle
            self._state = MotionState(frame, motion, ahead) if motion.numel() else MotionState(frame)
            self._drawn.clear()
            self._aside.forget()
            if drawn.numel():
                waiting = Motion.from_vectors(
                    drawn.to(self.vasa.device), self._fps, self.vasa.backend, rest if rest.numel() else None
                )
                self._drawn.append((waiting, None))
            self._resampler = None if rate is None else Resampler(int(rate), self._rate)
            if self._resampler is not None:
                self._resampler.pending = resampling.clone()
            self._drops += 1
            self._changed.notify_all()

    def _engine(self) -> str:
        return f"{self.vasa.backend} {self.vasa.config.name} at {self._fps:g} frames per second"
