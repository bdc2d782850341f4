"""Operations on tiles become loops: which are one nest, what is reduced, where a product runs.

Imports instructions/ and machine.py. Read first: nests.py, then control.py.
"""
