"""The specification: each operation in NumPy, forward and backward."""
