"""What a Gluon kernel may say: its functions run as Python, on tiles that are NumPy arrays.

Imports lab/gluon/machine. Read first: functions.py, which lets a kernel's own functions see the
model in place of the compiler; tiles.py holds the numbers, hopper.py the barriers and copies.
"""
