"""Exercises: kernels with holes and kernels with a fault, and the grader that the instruments make.

Imports lab/sanitize and what is below it. A file of tiles/, rows/, products/, training/ or faults/
is one exercise: the solution as a student would write it, then the grader's part. Read first:
tiles/first_copy.py, then exercise.py and grade.py.
"""
