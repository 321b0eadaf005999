"""Whose weights they are and under which terms; written into every converted file."""

from __future__ import annotations

from pathlib import Path

_MIT = """MIT License

Copyright (c) {holder}

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""

_APACHE = Path(__file__).with_name("apache-2.0.txt").read_text()

LICENCES: dict[str, tuple[str, str]] = {
    "liveportrait": (
        "MIT",
        _MIT.format(holder="2024 Kuaishou Visual Generation and Interaction Center")
        + "\nThe models of InsightFace, for non-commercial research only, are not among these files.\n",
    ),
    "joyvasa": ("MIT", _MIT.format(holder="2024 xuyangcao")),
    "ditto": ("Apache-2.0", "Copyright Ant Group. HuBERT: copyright Facebook, under the same licence.\n\n" + _APACHE),
}
"""Family -> (short name, text)."""
