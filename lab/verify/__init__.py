"""Is it right? Case, budget, verdict, blame, and what failed once.

Imports lab/twins. Read first: check.py, then budget.py.
"""
