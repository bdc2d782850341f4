"""BlenderBot 3 and its family: a model that searches, remembers, replies and learns from talk.

director.py is the second head that guides what is said, objectives.py how it and its rivals
(CRINGE, unlikelihood) are trained, training.py the stage. judge.py says how good a whole answer is,
feedback.py turns corrections, thumbs and words into training data, trolls.py finds the users whose
labels are not to be trusted. modules.py is a turn's pipeline of calls. Read first: director.py.
"""
