"""Products of matrices, and attention, which is two of them with a softmax between.

Imports exercise.py alone. Nothing here imports another exercise: each is handed out as one file.
Read first: matmul.py.
"""
