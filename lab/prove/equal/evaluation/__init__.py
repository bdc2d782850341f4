"""A kernel on Numbers: Triton's front end, an evaluator of TTIR, memory by address, PyTorch's host.

Shares nothing with the interpreter. Read first: evaluate.py, then memory.py; backend.py puts them
in the place of Triton's device, host.py follows what PyTorch computes between kernels.
"""
