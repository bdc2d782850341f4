"""A row at a time: sums, softmax, norms, and their gradients.

Imports exercise.py alone. Nothing here imports another exercise: each is handed out as one file.
Read first: row_sum.py.
"""
