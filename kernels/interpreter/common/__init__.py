"""What every other repair stands on.

`patches` declares a repair, `location` names the kernel's line, `values` holds numbers and poison,
`shapes` works out a shape once, `events` tells instruments what a kernel does beside its accesses.
Imported by every other room of the interpreter. Read first: patches.py, then values.py.
"""
