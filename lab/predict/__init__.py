"""How fast would it be on a GPU that is not there? An estimate, with the error that it is known by.

From a kernel's machine code to what binds its loops, and to a time beside the roofline. Imports
lab/inspect and what is below it; lab/report shows what it stored. Read first: machines.py (every
number, its source and its kind), then simulate.py; docs/predict.md says how far to trust it.
"""
