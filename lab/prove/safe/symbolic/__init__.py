"""A kernel over unknowns: its TTIR walked once, for every program, element and turn of a loop.

What comes out is accesses, each with the conditions under which it is made, and integers that must
fit their types. Read first: terms.py, then values.py. Imports kernels/native's reader of TTIR.
"""
