"""Live calls by WebRTC: the microphone comes in, the portrait and, if wanted, the voice go out, on one clock."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from ..controls import Controls
from .performer import Performer, Shown
from .studio import Portrait, Studio

MAX_CALLS = 4
MAX_TICKETS = 100
ICE = "VASA_ICE_SERVERS"
"""Environment variable with a JSON list of STUN and TURN servers, as browsers take it; needed off localhost."""
VIDEO_CLOCK, SOUND_CLOCK = 90_000, 16_000
BIT_RATE = 4_000_000
_LATE = 0.2
"""Seconds that frames may come late before all that follow are shown later."""
_WATCHED = 8
"""Hops after which they may be shown earlier again; of these the latest one counts."""
_SPARE = 0.03
"""Seconds that the latest of them waits to be shown."""


def problem() -> str:
    """What is missing for calls, "" if nothing is."""
    try:
        import aiortc  # noqa: F401
    except ImportError:
        return 'Live calls need aiortc: pip install "vasa[live]".'
    return ""


class Calls:
    """Who may call, and who is calling.

    A page first asks for a ticket (through Gradio, so behind its login); the offer then needs one, once.
    """

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._tickets: dict[str, tuple[str, Portrait, Controls]] = {}
        self._performers: dict[str, Performer] = {}
        self._peers: set[Any] = set()
        self._ends: dict[str, Callable[[], Any]] = {}
        self.streams: dict[str, Any] = {}
        """Calls of those whom WebRTC does not reach, by user."""
        studio.at_close.append(self.close)

    @property
    def ice_servers(self) -> list[dict[str, Any]]:
        """What the browser is told to use."""
        return json.loads(os.environ.get(ICE) or "[]")

    def ticket(self, user: str, portrait: Portrait, controls: Controls) -> str:
        """Let a user call once."""
        while len(self._tickets) >= MAX_TICKETS:
            del self._tickets[next(iter(self._tickets))]
        ticket = secrets.token_urlsafe(24)
        self._tickets[ticket] = (user, portrait, controls)
        return ticket

    def change(self, user: str, controls: Controls) -> None:
        """Other controls for the user's running call."""
        if (performer := self._performers.get(user)) is not None:
            performer.change(controls)

    def leave(self, user: str) -> None:
        """The user's page was closed: end the call, whichever way it came."""
        if (end := self._ends.pop(user, None)) is not None:
            end()
        if (stream := self.streams.pop(user, None)) is not None:
            stream.performer.close()

    def close(self) -> None:
        """The page ends: nobody listens any more."""
        for performer in [*self._performers.values(), *(stream.performer for stream in self.streams.values())]:
            performer.close()

    def mount(self, app: Any) -> None:
        """Add the route that takes offers to the page's server."""
        from fastapi import HTTPException, Request

        async def offer(request: Request) -> dict[str, str]:
            body = await request.json()
            known = self._tickets.pop(str(body.get("ticket", "")), None) if isinstance(body, dict) else None
            if known is None:
                raise HTTPException(403, "press “Prepare” again")
            if len(self._peers) >= MAX_CALLS:
                raise HTTPException(503, "all lines are busy; try again later")
            return await self._answer(str(body.get("sdp", "")), *known)

        offer.__annotations__["request"] = Request
        app.add_api_route("/rtc/offer", offer, methods=["POST"], response_model=None)

    async def _answer(self, sdp: str, user: str, portrait: Portrait, controls: Controls) -> dict[str, str]:
        import aiortc
        from aiortc.codecs import h264, vpx

        for codec in (h264, vpx):
            codec.MAX_BITRATE = codec.DEFAULT_BITRATE = BIT_RATE
        servers = [aiortc.RTCIceServer(**server) for server in self.ice_servers]
        peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=servers))
        performer = Performer(self._studio.pipe, portrait, controls)
        clock = _Clock(performer)
        call = contextlib.ExitStack()
        call.enter_context(self._studio.first())
        self._peers.add(peer)
        self._performers[user] = performer
        loop = asyncio.get_running_loop()
        self._ends[user] = lambda: asyncio.run_coroutine_threadsafe(end(), loop)

        async def end() -> None:
            performer.close()
            call.close()
            self._peers.discard(peer)
            if self._performers.get(user) is performer:
                del self._performers[user]
                self._ends.pop(user, None)
            await peer.close()

        @peer.on("track")
        def on_track(track: Any) -> None:
            if track.kind == "audio":
                asyncio.ensure_future(_listen(track, performer))

        @peer.on("datachannel")
        def on_channel(channel: Any) -> None:
            asyncio.ensure_future(_talk(channel, performer, clock))

        @peer.on("connectionstatechange")
        async def on_state() -> None:
            if peer.connectionState in ("failed", "closed", "disconnected"):
                await end()

        try:
            await peer.setRemoteDescription(aiortc.RTCSessionDescription(sdp, "offer"))
            peer.addTrack(clock.video)
            peer.addTrack(clock.sound)
            await peer.setLocalDescription(await peer.createAnswer())
        except Exception:
            await end()
            raise
        performer.start()
        clock.start()
        return {"sdp": peer.localDescription.sdp, "type": peer.localDescription.type}


async def _listen(track: Any, performer: Performer) -> None:
    """The caller's microphone into the performer."""
    import av
    from aiortc.mediastreams import MediaStreamError

    resampler = av.AudioResampler(format="flt", layout="mono", rate=Performer.RATE)
    try:
        while True:
            for piece in resampler.resample(await track.recv()):
                performer.hear(piece.to_ndarray()[0].astype(np.float32))
    except MediaStreamError:
        performer.close()


async def _talk(channel: Any, performer: Performer, clock: _Clock) -> None:
    """Frames a second and delay, twice a second."""
    while channel.readyState == "open":
        words = {
            "fps": clock.rate(),
            "delay": round(1000 * clock.delay),
            "slow": performer.slow,
            "problem": performer.problem,
        }
        channel.send(json.dumps(words))
        await asyncio.sleep(0.5)


class _Clock:
    """Hands frames and sound to the two tracks when they are due; both count from the same first sample."""

    def __init__(self, performer: Performer) -> None:
        from aiortc import MediaStreamTrack
        from aiortc.mediastreams import MediaStreamError

        self._performer = performer
        self._pictures: asyncio.Queue[Any] = asyncio.Queue()
        self._sounds: asyncio.Queue[Any] = asyncio.Queue()
        self._times: list[float] = []
        self.delay = 0.0
        clock = self

        class Video(MediaStreamTrack):
            kind = "video"

            async def recv(self) -> Any:
                return await clock.next(clock._pictures, MediaStreamError)

        class Sound(MediaStreamTrack):
            kind = "audio"

            async def recv(self) -> Any:
                return await clock.next(clock._sounds, MediaStreamError)

        self.video, self.sound = Video(), Sound()

    def start(self) -> None:
        asyncio.ensure_future(self._pump())

    def rate(self) -> float:
        """Frames shown in the last second."""
        now = time.perf_counter()
        self._times = [moment for moment in self._times if now - moment < 1]
        return float(len(self._times))

    async def next(self, items: asyncio.Queue[Any], ended: type[Exception]) -> Any:
        item = await items.get()
        if item is None:
            raise ended
        return item

    async def _pump(self) -> None:
        """Take what the performer made, one frame at a time, when it is due."""
        start = _Start(self._performer.fps)
        while (shown := await asyncio.to_thread(self._performer.shown.get)) is not None:
            fps, begun = self._performer.fps, start.after(shown)
            self.delay = shown.delay + max(0.0, begun + shown.index / fps - shown.made)
            for number, (picture, sound) in zip(shown.places, _frames_of(shown, fps), strict=True):
                wait = begun + (shown.index + number) / fps - time.perf_counter()
                if wait > 0:
                    await asyncio.sleep(wait)
                self._pictures.put_nowait(picture)
                self._times.append(time.perf_counter())
                for piece in sound:
                    self._sounds.put_nowait(piece)
        for items in (self._pictures, self._sounds):
            items.put_nowait(None)


class _Start:
    """The moment at which frame 0 of a call is shown, or would have been: frame n follows n / fps later.

    It moves back when frames come too late, and forward once all come early, so that a call that was late once does
    not stay late.
    """

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._moment: float | None = None
        self._spare: list[float] = []

    def after(self, shown: Shown) -> float:
        """The moment, with what is shown next in mind; seconds of `time.perf_counter`."""
        soonest = shown.made - shown.index / self._fps
        if self._moment is None or soonest - self._moment > _LATE:
            self._moment, self._spare = soonest, []
        self._spare.append(self._moment - soonest)
        if len(self._spare) == _WATCHED:
            self._moment -= max(0.0, min(self._spare) - _SPARE)
            self._spare = []
        return self._moment


def _frames_of(shown: Shown, fps: float) -> list[tuple[Any, list[Any]]]:
    """PyAV frames with timestamps computed from the indices: a picture, and the sound beside it in 20 ms pieces."""
    import av

    from ..io.video import yuv420

    first = round(shown.index * SOUND_CLOCK / fps)
    done, rows = 0, []
    for number, planes in zip(shown.places, yuv420(shown.frames).numpy(), strict=True):
        after = min(number + shown.every, shown.count)
        picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        picture.pts = round((shown.index + number) * VIDEO_CLOCK / fps)
        picture.time_base = Fraction(1, VIDEO_CLOCK)
        end = round((shown.index + after) * SOUND_CLOCK / fps) - first
        sound = []
        while end - done >= 320 or (after == shown.count and end > done):
            samples = shown.samples[done : min(done + 320, end)]
            piece = av.AudioFrame.from_ndarray(
                (samples.clip(-1, 1) * 32767).astype(np.int16)[None], format="s16", layout="mono"
            )
            piece.sample_rate, piece.pts, piece.time_base = SOUND_CLOCK, first + done, Fraction(1, SOUND_CLOCK)
            sound.append(piece)
            done += len(samples)
        rows.append((picture, sound))
    return rows
