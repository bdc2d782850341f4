"""The twins of what moves the parameters, over lists of tensors.

Imported by the catalogue alone. Read first: ema.py, then adamw.py.
"""
