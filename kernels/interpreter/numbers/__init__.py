"""What a kernel computes: arithmetic, casts, reductions and scans as a GPU rounds them.

Imports common/ and libdevice/. Read first: arithmetic.py.
"""
