"""Files that others read, or that must survive a kill: tokenizer, weights, checkpoints.

Imports rl/ranks. Read first: files.py (how a file is written whole), then checkpoint.py.
"""
