"""The twins of who sees whom and what is gathered.

Imported by model/ and by the catalogue. Read first: attention.py.
"""
