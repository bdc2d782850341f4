"""Several processes that train one model.

Imported by every other room of rl. Read first: group.py.
"""
