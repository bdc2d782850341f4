"""The twins of a block's layers, position by position.

Imported by the other rooms of operations and by the catalogue. Read first: gelu.py, the smallest.
"""
