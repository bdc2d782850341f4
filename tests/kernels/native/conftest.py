"""Lets the tests import `broken_compiler.py` and `strangers.py`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
