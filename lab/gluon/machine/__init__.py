"""What orders what on a Hopper: who knows of which event, barriers, memory, what is in flight.

Imports nothing of gptwin, and knows no language: a kernel's operations, in language/, call it.
Read first: program.py (events and who knows of them), then barrier.py and shared.py.
"""
