"""The RLHF objective, piece by piece; enumerable.py puts the pieces together and proves the end.

Imported by nothing else in core. Read first: reward_loss.py, then kl.py, token_rewards.py, gae.py
and ppo_loss.py in the order in which an iteration of PPO uses them.
"""
