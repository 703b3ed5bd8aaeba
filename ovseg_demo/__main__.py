"""`python -m ovseg_demo`: see `ovseg_demo.cli`."""

from __future__ import annotations

import sys

from ovseg_demo.cli import main

if __name__ == "__main__":
    sys.exit(main())
