"""What moves the parameters, in Triton: all of them in one launch.

As core/optimizer. Read first: tensor_table.py, then adamw.py.
"""
