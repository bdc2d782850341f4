"""Safe: in bounds, no wrap of integers, no race, every result written, at every size.

Statements about integers alone, which a solver decides; what is not proved is shown by a run under
lab/sanitize. Read first: command.py.
"""
