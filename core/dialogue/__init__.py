"""Dialogue agents' own formulas, a file for each paper or idea, in NumPy: what each of them means.

How LaMDA, Sparrow, Anthropic's HH and BlenderBot's family choose an answer and learn from what
people say of it. rl/agents/ computes the same in PyTorch and trains with it. Read first:
frontier.py, reward against √KL where every answer can be listed.
"""
