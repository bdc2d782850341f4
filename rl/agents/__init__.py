"""Four dialogue agents, and one generated world in which a program knows the truth of each claim.

Read first: world/ (rules, probes, labels), then interface.py (what an agent is), then any of them:
lamda/, sparrow/, hh/, blenderbot/. catalogue.py names them; base.py trains the model that all four
begin from; console.py is `gptwin world`, `gptwin agent` and `gptwin chat --explain`.
"""
