"""What a step is: pretraining and SFT, reward model, PPO.

Imports rl/data and rl/training. Read first: language_model.py, then ppo.py.
"""
