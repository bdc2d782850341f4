"""The world in which dialogue agents are trained and measured: rules that a program checks.

Built on the exercises of rl/data/tasks.py, which say what is helpful; the rules say what is
harmful, and a probe is where the two part. Everything is drawn from seeds, in plain Python. Read
first: rules.py, then probes.py; labels.py and users.py are what people say of an answer,
measures.py is what came out. `gptwin world` prints examples of all of it.
"""
