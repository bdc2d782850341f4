"""Equal: a kernel and its reference run once each, over numbers of a finite field.

If they agree there they are one function of real numbers, on the branches taken, but for a chance
small chance that is printed (docs/prove.md). Read first: algebra/number.py, then evaluation/
(the kernel), stand_ins.py (the reference) and cases.py, which compares them.
"""
