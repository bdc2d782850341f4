"""What is asked of a kernel under its contract: in bounds, no wrap, no race, everything written.

A question that is not answered with a proof leaves numbers, and launching.py makes a launch of
them. Read first: questions.py, of one program; races.py and written.py ask of all together.
Imports symbolic/ and launches/.
"""
