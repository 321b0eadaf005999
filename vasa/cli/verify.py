"""`vasa verify`: whether a video was made by vasa, by its mark, its metadata and its C2PA signature."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = commands.add_parser("verify", help="say whether a video was made by vasa")
    parser.add_argument("video", type=Path, help="any video file")
    parser.add_argument("--trust", type=Path, metavar="PEM", help="root certificates to trust for C2PA")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    from ..provenance import verify

    report = verify(given.video, trust=given.trust)
    mark = report.mark
    if given.json:
        shown = {"found": mark.found, "score": round(mark.score, 2), "scale": mark.scale, "frames": mark.frames}
        about = {"made_by_vasa": report.made_by_vasa, "mark": shown, "manifest": report.manifest}
        print(json.dumps(about | {"c2pa": report.c2pa, "c2pa_issuer": report.c2pa_issuer}, indent=2))
        return
    print(f"mark      {'found' if mark.found else 'not found'} (score {mark.score:.1f} in {mark.frames} frames)")
    manifest = report.manifest
    print(f"metadata  {manifest.get('generator', 'of another program') if manifest is not None else 'none of vasa'}")
    print(f"C2PA      {report.c2pa or 'no signature read'}{f', {report.c2pa_issuer}' if report.c2pa_issuer else ''}")
    for notice in report.notices:
        print(f"note      {notice}")
    says = "carries signs of being made by vasa" if report.made_by_vasa else "carries no sign of being made by vasa"
    print(f"{given.video.name} {says}")
