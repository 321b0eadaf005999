"""`vasa crop`: the faces of a picture. `vasa recover`: what a killed run left behind."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .options import crop, number


def add(commands: argparse._SubParsersAction) -> None:
    """Register the commands."""
    look = commands.add_parser("crop", help="show the faces of a picture and the squares animate would use")
    look.add_argument("picture", help="picture of one or more people")
    look.add_argument("-o", "--out", type=Path, help="preview to write (.png, .jpg or .webp)")
    look.add_argument("--face", type=number(0, 99, int), default=0, help="which face to show large, 0 = largest")
    look.add_argument("--crop", type=crop, default="auto", metavar="auto|none|X,Y,SIZE", help="try a square by hand")
    look.add_argument("--model", default="vasa-mini", metavar="NAME_OR_FOLDER", help="whose face reader to use")
    look.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    look.set_defaults(run=run_crop)
    mend = commands.add_parser("recover", help="make an unfinished video of a killed run playable")
    mend.add_argument("file", type=Path, help="the output that was to be written, or the hidden .partial file")
    mend.add_argument("-o", "--out", type=Path, help="file to write (NAME.recovered.mp4)")
    mend.set_defaults(run=run_recover)


def run_crop(given: argparse.Namespace) -> None:
    from ..io import face as faces
    from ..io.files import check_writable
    from ..io.image import load_image, save_image
    from ..io.preview import draw_faces

    if given.out is not None:
        check_writable(given.out, (".png", ".jpg", ".jpeg", ".webp"))
    picture = load_image(given.picture)
    boxes, refine, size = [], None, 256
    if given.crop == "auto":
        refine, size = _reader_of(given.model)
        boxes = faces.find_faces(picture.pixels)
    crops = [
        faces.portrait_crop(picture.pixels, given.crop, face=face, size=size, refine=refine, boxes=boxes)
        for face in range(max(1, len(boxes)))
    ]
    # asked for by number, so that a number beyond the faces says how many there are
    chosen = faces.portrait_crop(picture.pixels, given.crop, given.face, size, refine, boxes) if boxes else crops[0]
    for notice in dict.fromkeys((*picture.notices, *chosen.notices)):
        print(f"vasa: note: {notice}", file=sys.stderr)
    height, width = picture.pixels.shape[1:]
    rows = []
    for face, framed in enumerate(crops):
        left, top, edge = framed.square
        rows.append({"face": face, "x": left, "y": top, "size": edge, "quarter_turns": framed.quarter_turns})
        if boxes:
            box = boxes[face]
            rows[-1]["box"] = {"x": round(box.x), "y": round(box.y), "size": round(box.size)}
    if given.out is not None:
        seen = faces.upright(picture.pixels, crops[0].quarter_turns)
        save_image(draw_faces(seen, boxes, crops, given.face if boxes else 0), given.out)
    if given.json:
        print(json.dumps({"width": width, "height": height, "faces": rows}))
        return
    for row in rows:
        turned = f", picture turned by {90 * row['quarter_turns']} degrees" if row["quarter_turns"] else ""
        print(f"face {row['face']}: x {row['x']}, y {row['y']}, size {row['size']}{turned}")
    if given.out is not None:
        print(given.out)


def _reader_of(model: str):
    """What refines the crops as `vasa animate` does: (pose of a crop, edge of the crop)."""
    from ..checkpoint import find, load_reader

    reader = load_reader(find(model))
    if reader is None:
        return None, 256
    return (lambda crop: reader(crop[None]).head_pose[0].detach()), 256


def run_recover(given: argparse.Namespace) -> None:
    from ..io.recover import recover

    saved = recover(given.file, given.out)
    length = f", {saved.seconds:.2f} s" if saved.seconds else ""
    print(f"{saved.path}: {saved.frames} frames{length}; {saved.leftover} can be deleted")
