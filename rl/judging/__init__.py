"""How good is it? Grades, rankings, best-of-n, curves.

Imports rl/stages. Read first: evaluation.py.
"""
