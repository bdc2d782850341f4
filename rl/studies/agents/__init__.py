"""What the four dialogue agents are known for, measured: python -m gptwin.rl.studies.agents NAME.

A file for each paper; each claim on three seeds, with n and intervals, against truths that a
program knows. Figures and pictures are stored in rl/studies/results/. Read first: lamda.py.
"""
