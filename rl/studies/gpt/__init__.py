"""Small studies of how GPT-1, GPT-2 and GPT-3 were used: python -m gptwin.rl.studies.gpt NAME.

Each is minutes on one core, on three seeds, against answers that a program knows. Figures and
pictures are stored in rl/studies/results/. Read first: world.py, then any other.
"""
