"""Lets the tests of the pipeline import what they share: `tiny.py`, beside this file."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
