"""The benchmark is no part of the package: its modules are found in tools/."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
