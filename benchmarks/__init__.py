"""Benchmarks, one script per question; some use the tests' synthetic templates."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))
