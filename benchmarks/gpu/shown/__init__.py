"""What is made of the figures: a summary on the terminal, README's table with its goals, pictures.

Imports benchmarks/gpu/operations, and measures nothing. Read first: summary.py, then goals.py and
plots.py.
"""
