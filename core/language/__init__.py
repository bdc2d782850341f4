"""From hidden states to words: scores of tokens, cross-entropy, the draw.

Imported by core/rlhf and core/model. Read first: cross_entropy.py.
"""
