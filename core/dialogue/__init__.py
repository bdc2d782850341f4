"""What dialogue agents compute beside a model: ratings, distances, fits, and the exact small cases.

Formulas in NumPy, each with its source; rl/agents trains by them. Imported by nothing else in core.
Read first: frontier.py, reward against √KL where every answer can be listed; then elo.py.
"""
