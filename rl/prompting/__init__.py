"""Prompting: what a frozen model can be made to do by what it is asked, and what that costs.

Imports rl/stages and rl/judging. Read first: interface.py, which says what a technique is; then
techniques.py, a few lines each; puzzles.py and facts.py draw the questions, whose answers a
program knows; episodes.py is few-shot learning by itself.
"""
