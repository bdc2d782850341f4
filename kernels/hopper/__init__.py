"""Attention once more, in Gluon, for Hopper alone: copies, products and exponentials side by side.

kernels/attention/ is what to read and what runs everywhere. These kernels do the same sums in the
same way; what they add is who does what when: one warp lets TMA copy, two warpgroups multiply and
exponentiate, and barriers in shared memory tell them when a tile is there and when it may go. They
are switched off, for no GPU has run them yet (serving.py). Stands on kernels/common, and
kernels/attention asks instead.py. Read first: rings.py, then attention.py.
"""
