"""One run of any stage: loop, log, optimizer step, schedule.

Imports rl/formats. Read first: run.py.
"""
