"""What a model can do, asked as GPT-2 and GPT-3 were: choices by log P, answers by exact match.

Imports rl/judging. Nothing here trains. Read first: choices.py, then shots.py and asking.py;
console.py is `gptwin evaluate`.
"""
