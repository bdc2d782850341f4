"""The GPTs as a PyTorch module on the kernels.

As core/model; knows kernels and plain PyTorch, no speed tricks for CPUs. Read first: gpt.py.
"""
