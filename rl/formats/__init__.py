"""Files that others read, or that must survive a kill: tokenizer, weights, checkpoints.

Imports rl/ranks. Read first: checkpoint.py, over ../../records.py, which writes files whole.
"""
