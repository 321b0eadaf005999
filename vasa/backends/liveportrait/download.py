"""Published weights from the Hugging Face hub: shown, asked for, verified. Never anything by itself; no token is sent,
to the hub or to a mirror."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from .licences import LICENCES
from .transfer import fetched


@dataclass(frozen=True)
class Entry:
    """What a name stands for.

    Attributes:
        repository: on the hub.
        patterns: the files that are needed; never detectors, whose licences differ.
        about: one line for the user.
    """

    repository: str
    patterns: tuple[str, ...]
    about: str


CATALOGUE: dict[str, Entry] = {
    "liveportrait": Entry(
        "KwaiVGI/LivePortrait",
        ("liveportrait/base_models/*.pth", "liveportrait/retargeting_models/*.pth"),
        "renderer for photographs, 512 px",
    ),
    "joyvasa": Entry(
        "jdh-algo/JoyVASA",
        ("motion_generator/motion_generator_hubert_chinese.pt", "motion_template/motion_template.pkl"),
        "motion from speech for the LivePortrait renderer",
    ),
    "ditto": Entry(
        "digital-avatar/ditto-talkinghead",
        (
            "ditto_pytorch/models/appearance_extractor.pth", "ditto_pytorch/models/motion_extractor.pth",
            "ditto_pytorch/models/warp_network.pth", "ditto_pytorch/models/decoder.pth",
            "ditto_pytorch/models/stitch_network.pth", "ditto_pytorch/models/lmdm_v0.4_hubert.pth",
            "ditto_pytorch/aux_models/hubert_streaming_fix_kv.onnx", "ditto_cfg/v0.4_hubert_cfg_pytorch.pkl",
        ),
        "renderer, and motion from speech and emotion",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Offer:
    """What would be downloaded.

    Attributes:
        name: of the catalogue.
        revision: commit of the repository.
        files: (path in the repository, bytes, SHA-256 or "" where the hub tells none).
    """

    name: str
    revision: str
    files: tuple[tuple[str, int, str], ...]

    @property
    def summary(self) -> str:
        """Size and licence in a few words."""
        return f"{sum(size for _, size, _ in self.files) / 1e6:.0f} MB in all; licence {LICENCES[self.name][0]}"

    @property
    def text(self) -> str:
        """The offer in words: origin, licence, size."""
        entry, terms = CATALOGUE[self.name], LICENCES[self.name][1]
        lines = [
            f"{self.name}: {entry.about}, from {entry.repository} at {self.revision[:12]}",
            *(f"  {path}  {size / 1e6:.1f} MB" for path, size, _ in self.files),
            f"  {self.summary}:", "", terms,
        ]  # fmt: skip
        return "\n".join(lines)


def offer(name: str, mirror: str | None = None) -> Offer:
    """Ask the hub what a name stands for.

    Args:
        name: of `CATALOGUE`.
        mirror: address used instead of the hub's. Default: HF_ENDPOINT, then the hub.

    Raises:
        InputError: an unknown name, offline mode, or a hub that does not answer.
    """
    entry = _entry(name)
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        raise InputError(f"HF_HUB_OFFLINE is set: {name} is not downloaded; unset it, or copy the files by hand")
    try:
        info = _api(mirror).model_info(entry.repository, files_metadata=True)
    except Exception as error:  # the client raises many kinds
        raise InputError(
            f"{entry.repository} cannot be reached ({type(error).__name__}); check the network, or give --mirror"
        ) from error
    chosen = [s for s in info.siblings or [] if any(_fits(s.rfilename, p) for p in entry.patterns)]
    missing = [p for p in entry.patterns if not any(_fits(s.rfilename, p) for s in chosen)]
    if missing:
        raise InputError(f"{entry.repository} no longer holds {missing[0]}; download the files by hand")
    return Offer(name, info.sha or "", tuple((s.rfilename, s.size or 0, _hash_of(s)) for s in chosen))


def fetch(
    made: Offer, dest: Path, mirror: str | None = None, report: Callable[[str], None] = lambda line: None
) -> list[Path]:
    """Download what was offered; a broken download is resumed, every file is verified.

    Args:
        made: the offer the user agreed to.
        dest: folder for the files, as they lie in the repository.
        mirror: as for `offer`.
        report: told one line for every file.

    Raises:
        InputError: the network failed, or a file is not the one the hub lists.
    """
    from huggingface_hub import hf_hub_url

    paths = []
    for file, size, digest in made.files:
        address = hf_hub_url(CATALOGUE[made.name].repository, file, revision=made.revision or None, endpoint=mirror)
        paths.append(fetched(address, dest / file, size, digest))
        report(f"{paths[-1]}: {'SHA-256 verified' if digest else 'the hub lists no SHA-256 for it'}")
    return paths


def _fits(name: str, pattern: str) -> bool:
    # a listing could also name files outside of the folder
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(
        fnmatch.fnmatchcase(part, p) and part not in ("", ".", "..") and "\\" not in part
        for part, p in zip(parts, wanted, strict=True)
    )


def _entry(name: str) -> Entry:
    if name not in CATALOGUE:
        raise InputError(f"unknown model {name!r}; choose among {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def _api(mirror: str | None) -> Any:
    from huggingface_hub import HfApi

    # these files are public: no token goes to the hub, and none to whatever mirror is set
    return HfApi(endpoint=mirror, token=False)


def _hash_of(sibling: Any) -> str:
    lfs = getattr(sibling, "lfs", None)
    return getattr(lfs, "sha256", None) or ""
