"""The back yard: what makes a laptop faster, and nothing else.

Nobody below imports it; without it everything runs. Read first: speed.py, which puts it in.
"""

from .speed import speed_up as speed_up
