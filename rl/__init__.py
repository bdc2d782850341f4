"""The pipeline: pretraining, supervised fine-tuning, reward model, PPO, chat.

Imports core and kernels. Its top: the settings (configuration.py), the chain (pipeline.py), the
commands. Read first: configuration.py, then stages/ppo.py.
"""
