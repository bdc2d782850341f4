"""What `gptwin bench trl` runs: an iteration of PPO beside TRL's.

Imports benchmarks/cpu. Read first: peer.py.
"""
