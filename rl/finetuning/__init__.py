"""A pretrained GPT with a linear head: GPT-1's use, before prompts.

Imports rl/evaluation. Read first: forms.py (how a task becomes one sequence or several), then
classifier.py and fine_tune.py; masked.py is BERT's pretraining, for the contrast.
"""
