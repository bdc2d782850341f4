"""What others do, in as few lines as it takes: the baselines, written for these benchmarks.

They are plain on purpose and share no code with gptwin: they are also what its models are tested
against.
"""
