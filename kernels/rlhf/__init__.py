"""The RLHF objective in Triton.

As core/rlhf. Read first: gae.py, then ppo_loss.py.
"""
