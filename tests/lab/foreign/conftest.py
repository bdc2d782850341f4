"""Lets the tests import `corpus.py`; the project in `project/` has a suite of its own.

That suite is run as its user would run it, not with ours.
"""

import sys
from pathlib import Path

collect_ignore = ["project", "broken"]
sys.path.append(str(Path(__file__).parent))
