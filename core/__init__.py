"""The specification in NumPy: each operation to be read, forward and backward.

Imports NumPy and the standard library alone. Everything above imports it.
The rooms: layers, attention, language, optimizer, rlhf, model; beside them what all of them share
(checks.py, masking.py, philox.py). Read first: layers/softmax.py, then attention/attention.py.
"""
