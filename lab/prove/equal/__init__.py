"""Equal: a kernel and its reference run once each, over numbers of a finite field.

If they agree there they are one function of real numbers, on the branches taken, but for a chance
of about one in a hundred million for each seed (docs/prove.md). Read first: field.py (the number),
then evaluate.py (the kernel) and reference.py (NumPy).
"""
