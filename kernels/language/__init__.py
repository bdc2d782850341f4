"""From hidden states to words, in Triton: the logits are never held.

As core/language; `*_eager.py` and `*_cpu.py` do the same without Triton. Read first:
cross_entropy.py.
"""
