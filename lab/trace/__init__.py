"""Who reads which tile, and how many bytes.

Imports lab/verify. Read first: trace.py.
"""
