"""Attention in Triton: flash attention, decoding, and fused with its projections.

As core/attention; `_backward`, `_tiles`, `_short`, `_norm` are parts of the operation whose name
they begin with. Read first: attention.py.
"""
