"""A whole model on a GPU: GPT-2's training step, everyone's generation, PPO by phase.

Imports benchmarks/gpu/operations for its clock and the names of its figures. Read first:
training.py; generation.py and phases.py do it phase by phase.
"""
