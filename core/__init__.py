"""The specification in NumPy: each operation to be read, forward and backward.

Imports NumPy and the standard library alone. Everything above imports it.
The rooms: layers, attention, language, optimizer, rlhf, model; beside them what all of them share
(checks.py, masking.py, operation.py, philox.py). Read first: layers/softmax.py, then
attention/attention.py.

Arrays are float64, or float32 and then float32 all the way. What is given in float16, as a model
may be stored, is computed and returned in float32.
"""
