"""Proof: two halves, each a statement about more than the numbers that were drawn.

equal/ says that a kernel computes its reference's function on every real input of a shape; safe/
that it stays in bounds and races with nobody at every size. Both read Triton's IR (TTIR) by
kernels/native/instructions/ttir.py and run no kernel. Imports lab/own and what is below it. Read
first: command.py, then docs/prove.md.
"""
