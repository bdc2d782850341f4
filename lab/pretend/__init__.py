"""A GPU that is not there: "cuda" means the CPU, so that a stranger's program runs as it is.

Imports kernels. Read first: gpu.py, then places.py, which says where a tensor is.
"""
