"""Does it touch what it should not? Every access, watched.

Imports lab/verify and lab/pretend. Read first: watch.py, which runs each launch twice, then
shadow.py; sanitize.py is for a target, program.py for a program as it is.
"""
