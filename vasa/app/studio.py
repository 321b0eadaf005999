"""What all users of the page share and what each has alone: the model once, files and running jobs apart."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..animate import name_of, opened
from ..checkpoint import PACKAGED
from ..errors import InputError
from ..io.audio import LoadedAudio, load_audio
from ..io.face import Crop, CropRequest, portrait_crop
from ..io.image import LoadedImage, load_image
from ..latents import FaceLatents
from .workers import wait_for_workers

KEPT_PORTRAITS = 8
KEPT_BROWSERS = 1000
KEPT_HOURS = 6.0
"""Files of users who have gone are deleted after so many hours."""
LONGEST_SECONDS = 600.0
"""Longest speech the page takes: Gradio keeps a stream in memory as long as the page is open."""


SHELF = Path("models")
"""Where the page looks for other models, beside the folder it is started in."""


class Stopped(Exception):
    """The user pressed Stop or went away."""


@dataclass(frozen=True)
class Portrait:
    """A portrait that is ready to be animated.

    Attributes:
        picture: as loaded.
        framed: its crop.
        latents: the encoded crop.
    """

    picture: LoadedImage
    framed: Crop
    latents: FaceLatents

    @property
    def pixels(self) -> Tensor:
        return self.picture.pixels

    @property
    def notices(self) -> list[str]:
        return [*self.picture.notices, *self.framed.notices]


@dataclass
class Job:
    """One user's running work."""

    stop: threading.Event = field(default_factory=threading.Event)

    def check(self, *_: Any) -> None:
        """Raise `Stopped` once the user wants it; fits as a progress callback."""
        if self.stop.is_set():
            raise Stopped


class Studio:
    """The model and the users' files.

    Args:
        model: name or folder of the model, or a loaded one.
        device: "auto", "cpu", "cuda".
        precision: "auto", "fp32", "bf16", "fp16".
        longest: seconds of speech that a page takes.
        shelf: a folder of model folders to choose from, beside the shipped models.
    """

    def __init__(
        self,
        model: Any = "vasa-mini",
        device: str = "auto",
        precision: str = "auto",
        longest: float = LONGEST_SECONDS,
        shelf: Path = SHELF,
    ) -> None:
        self._first, self._shelf = model, shelf
        self.model = model
        self.longest = longest
        self._device, self._precision = device, precision
        self._pipe: Any = None
        self._lock = threading.Lock()
        self._crops: OrderedDict[tuple, tuple[LoadedImage, Crop]] = OrderedDict()
        self._portraits: OrderedDict[tuple, Portrait] = OrderedDict()
        self._jobs: dict[str, Job] = {}
        self._background = Job()
        self._users: set[object] = set()
        self._owners: OrderedDict[str, str] = OrderedDict()
        self._last: OrderedDict[str, Path] = OrderedDict()
        self.closing = threading.Event()
        self.at_close: list[Callable[[], None]] = []
        """Called when the page closes, to stop what is not a job."""
        self.root = Path(tempfile.mkdtemp(prefix="vasa-app-"))

    @property
    def pipe(self) -> Any:
        """The model, loaded when it is first needed."""
        with self._lock:
            if self._pipe is None:
                self._pipe = opened(self.model, self._device, self._precision)
            return self._pipe

    @property
    def loaded(self) -> bool:
        """Whether the model is there at once."""
        return self._pipe is not None

    @property
    def models(self) -> dict[str, Any]:
        """Models to choose from by name: the one the page began with, the shipped ones, those on the shelf."""
        shelf = sorted(self._shelf.iterdir()) if self._shelf.is_dir() else []
        found = {place.name: str(place) for place in shelf if any(place.glob("*.safetensors"))}
        shipped = {p.name: p.name for p in sorted(PACKAGED.iterdir()) if (p / "face.safetensors").is_file()}
        return {name_of(self._first): self._first} | {
            name: model for name, model in (shipped | found).items() if name != name_of(self._first)
        }

    def use(self, name: str) -> None:
        """Another model from now on, for everybody; what runs goes on with the one it began with.

        Raises:
            InputError: no such model, or one that cannot be loaded; the present one stays.
        """
        if name not in self.models:
            raise InputError(f"there is no model {name!r}; choose among {', '.join(self.models)}")
        pipe = opened(self.models[name], self._device, self._precision)
        with self._lock:
            self.model, self._pipe = self.models[name], pipe
            self._crops.clear()
            self._portraits.clear()

    def close(self) -> None:
        """Stop what runs, wait for it, and delete all users' files."""
        self.closing.set()
        for job in [*self._jobs.values(), self._background]:
            job.stop.set()
        for stop in self.at_close:
            stop()
        wait_for_workers()
        shutil.rmtree(self.root, ignore_errors=True)

    # --- users

    def folder(self, user: str | None) -> Path:
        """A new folder for one run of one user; those of long ago are deleted on the way."""
        home = self.root / hashlib.sha256((user or "api").encode()).hexdigest()[:16]
        home.mkdir(parents=True, exist_ok=True)
        oldest = time.time() - KEPT_HOURS * 3600
        for run in self.root.glob("*/*"):
            if run.stat().st_mtime < oldest:
                shutil.rmtree(run, ignore_errors=True)
        return Path(tempfile.mkdtemp(dir=home))

    def begin(self, user: str | None) -> Job:
        """A job; a page's earlier one is stopped, and so is what runs in the background."""
        job = Job()
        if user is not None:
            self.stop(user)
            self._jobs[user] = job
        self._background.stop.set()
        return job

    @contextmanager
    def first(self) -> Iterator[None]:
        """Users go first: what runs in the background is stopped, and nothing begins there meanwhile."""
        user = object()
        self._users.add(user)
        self._background.stop.set()
        try:
            yield
        finally:
            self._users.discard(user)

    def begin_in_background(self) -> Job | None:
        """A job that stops as soon as somebody else begins one; None where somebody is at work, or all is over."""
        # there first, so that whoever comes now stops this one
        self._background = job = Job()
        return None if self._jobs or self._users or self.closing.is_set() else job

    def end(self, user: str | None, job: Job) -> None:
        """Forget a job."""
        if user is not None and self._jobs.get(user) is job:
            del self._jobs[user]

    def stop(self, user: str | None) -> bool:
        """Stop the user's running job; whether there was one."""
        job = self._jobs.get(user or "")
        if job is not None:
            job.stop.set()
        return job is not None

    def claim(self, user: str, token: str) -> None:
        """Say by which secret a browser is known, whatever page of it the user has open."""
        self._keep(self._owners, user, token, KEPT_BROWSERS)

    def remember(self, user: str | None, folder: Path) -> None:
        """Say where the user's newest video is being made."""
        if (token := self._owners.get(user or "")) is not None:
            self._keep(self._last, token, folder, KEPT_BROWSERS)

    def last(self, token: str) -> Path | None:
        """The folder of a browser's newest video, if that is there."""
        folder = self._last.get(token)
        return folder if folder is not None and (folder / "talking.mp4").is_file() else None

    # --- inputs

    def framed(self, path: str | None, crop: CropRequest = "auto", face: int = 0) -> Crop:
        """Load and crop a portrait; the last few are kept.

        Raises:
            InputError: no portrait, or one that cannot be used.
        """
        return self.looked_at(path, crop, face)[1]

    def looked_at(self, path: str | None, crop: CropRequest = "auto", face: int = 0) -> tuple[LoadedImage, Crop, tuple]:
        """The picture, its crop, and what identifies both."""
        if not path:
            raise InputError("choose a portrait first: upload a picture, use the camera, or take an example")
        key = (hashlib.sha256(Path(path).read_bytes()).digest(), crop, face)
        with self._lock:
            known = self._crops.get(key)
        if known is None:
            picture = load_image(path)
            pipe = self.pipe
            framed = portrait_crop(picture.pixels, crop, face=face, size=pipe.size, refine=pipe.read_pose)
            known = self._keep(self._crops, key, (picture, framed))
        return *known, key

    def _keep(self, kept: OrderedDict[Any, Any], key: Any, value: Any, most: int = KEPT_PORTRAITS) -> Any:
        with self._lock:
            kept[key] = value
            kept.move_to_end(key)
            while len(kept) > most:
                kept.popitem(last=False)
        return value

    def portrait(self, path: str | None, crop: CropRequest = "auto", face: int = 0) -> Portrait:
        """Load, crop and encode a portrait; the last few are kept.

        Raises:
            InputError: no portrait, or one that cannot be used.
        """
        picture, framed, key = self.looked_at(path, crop, face)
        with self._lock:
            known = self._portraits.get(key)
        if known is None:
            known = self._keep(self._portraits, key, Portrait(picture, framed, self.pipe.encode(framed.picture)))
        return known

    @staticmethod
    def heard(path: str | None) -> LoadedAudio:
        """Load speech of any length.

        Raises:
            InputError: none, or unreadable.
        """
        if not path:
            raise InputError("choose speech first: upload a sound file, record yourself, or take an example")
        return load_audio(path)

    def speech(self, path: str | None) -> LoadedAudio:
        """Load speech.

        Raises:
            InputError: none, unreadable, or longer than the page takes.
        """
        sound = self.heard(path)
        if sound.seconds > self.longest:
            raise InputError(
                f"the speech lasts {sound.seconds:.0f} s, this page takes {self.longest:.0f} s; "
                "cut it, or use the command `vasa animate`, which takes any length"
            )
        return sound
