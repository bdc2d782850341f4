"""The GPTs: a block, the sizes, the parameters, the pass, generation.

Imported by nothing else in core. Read first: gpt.py, a GPT and its backward pass on one page.
"""
