"""The back yard: what makes a laptop faster, and nothing else.

Nobody below imports it; without it everything runs. Read first: the file whose twin you know.
"""
