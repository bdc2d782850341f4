"""How GPT-3's training text was made: a mixture of texts, filtered, without copies and tests.

Imports rl/data. Read first: mixture.py (how much of what), then quality.py, duplicates.py and
contamination.py; console.py is `gptwin corpus`.
"""
