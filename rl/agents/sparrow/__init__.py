"""Sparrow: an agent that is preferred and keeps rules (Glaese et al. 2022, arXiv 2209.14375).

Imports the world of the agents (rl/agents/world) and the stages below it. Its arithmetic is
core/dialogue/sparrow.py. Read first: rule_model.py, the classifier that reads a rule's text; then
rerank.py and reward.py, where it meets the preference; probing.py, which looks for what it misses;
agent.py, which puts all of it together.
"""
