"""What trains a model: losses, the optimizer, advantages, PPO.

Imports exercise.py alone. Nothing here imports another exercise: each is handed out as one file.
Read first: cross_entropy.py.
"""
