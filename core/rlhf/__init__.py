"""The RLHF objective, piece by piece, and PPO, which puts the pieces together on one page.

Imported by nothing else in core. Read first: ppo.py, one whole iteration; then the pieces in the
order in which it uses them (token_rewards.py with kl.py, gae.py, whiten.py, ppo_loss.py), and
reward_loss.py. enumerable.py proves where it ends.
"""
