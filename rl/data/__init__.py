"""From a line of JSON to a batch.

Imports rl/formats. Read first: records.py, then dialogue.py and batches.py.
"""
