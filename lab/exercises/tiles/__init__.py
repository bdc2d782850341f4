"""First steps: programs, tiles, masks and strides.

Imports exercise.py alone. Nothing here imports another exercise: each is handed out as one file.
Read first: first_copy.py.
"""
