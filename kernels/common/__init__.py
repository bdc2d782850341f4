"""What every kernel file stands on: Triton, the door, torch.compile, rows, column sums.

A line here is everybody's. Imported by every room of kernels. Read first: launch.py, the one door
through which every kernel is launched.
"""
