"""Whole kernels with one fault each: to be found and mended.

Imports exercise.py alone. Each file holds the mended kernel; `Exercise.broken` says what is handed
out instead. Read first: bounds.py.
"""
