"""Figures that the documentation quotes, and how they were made.

Imports everything else in rl but the commands. results/ holds what was measured. Read first:
reproduce.py.
"""
