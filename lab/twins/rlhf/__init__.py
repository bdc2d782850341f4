"""The twins of the RLHF objective, piece by piece.

Imported by the catalogue alone. Read first: gae.py; rollout.py is what several draw alike.
"""
