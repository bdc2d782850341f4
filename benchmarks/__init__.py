"""Timing against peers, and what it found.

Imports core, kernels and the list of twins. Its top is what both kinds of machine share: inputs,
clocks, stores, peers. Read first: timing.py.
"""
