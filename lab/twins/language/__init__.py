"""The twins from hidden states to words: the loss over the vocabulary, and the draw.

Imported by rlhf/ and by the catalogue. Read first: cross_entropy.py.
"""
