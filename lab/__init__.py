"""The instruments, a room each.

Imports core and kernels; benchmarks shares the list of twins. Read first: twins/twin.py (what a
twin declares), then verify/check.py (one check, from case to verdict).
"""
