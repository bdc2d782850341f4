"""The catalogue: every operation declared once.

To add an operation, add an entry here. `catalogue.TWINS` is the list; it imports the kernels, so
this file imports nothing: inspect must say which GPU is meant before a kernel is decorated.
Imported by every other room of lab, and by benchmarks. Read first: twin.py, then layers.py.
"""
