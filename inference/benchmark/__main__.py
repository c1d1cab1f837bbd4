"""`python -m inference.benchmark`."""

from __future__ import annotations

import sys

from inference.benchmark.command import main

if __name__ == "__main__":
    sys.exit(main())
