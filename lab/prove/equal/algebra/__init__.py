"""The number that proves: elements of two finite fields beside a float64 shadow.

Imports NumPy alone. Read first: number.py, whose parts array.py moves; then functions.py
(exponentials, logarithms, roots) and constants.py (what a float was meant to be); modular.py
computes, degrees.py counts.
"""
