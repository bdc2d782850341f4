"""Does it touch what it should not? Every access, watched.

Imports lab/verify. Read first: sanitize.py, then shadow.py.
"""
