"""The twin of the decoder block, which other twins' kernels make up.

Imports attention/, imported by the catalogue alone. Read first: decoder_block.py.
"""
