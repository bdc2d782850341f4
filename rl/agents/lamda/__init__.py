"""LaMDA: a model that rates its own responses, keeps what is safe, and says the best of it.

The formulas are in core/dialogue/lamda.py. Read first: agent.py, then rating.py (how a response is
rated on its own cache) and raters.py (who labels, and what is trained); tools.py is the toolset.
"""
