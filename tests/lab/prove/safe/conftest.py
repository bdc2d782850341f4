"""Lets the tests import `broken_prover.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
