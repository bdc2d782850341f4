"""What does a GPU that is not there make of it? Registers, spills, occupancy.

Imports lab/twins. Read first: targets.py, then inspect.py; console.py prints.
"""
