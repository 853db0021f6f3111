"""`.venv/bin/python tools/bench`: measure, then write results.json, results.md and plots into a folder."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the modules here are the package `bench`

from bench.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
