"""Speed of vasa on this machine: correctness first, then timing, all contestants interleaved in one run.

    python benchmarks/bench.py                     # what this machine can run, vasa-mini
    python benchmarks/bench.py --model vasa-1      # random weights; meant for a GPU
    python benchmarks/bench.py --out bench         # also bench.csv and bench.md

The same as `vasa bench`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vasa.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
