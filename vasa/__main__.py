"""`python -m vasa` is the same as `vasa`."""

import sys

from .cli import main

sys.exit(main())
