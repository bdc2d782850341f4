"""The pipeline: pretraining, supervised fine-tuning, reward model, PPO, chat.

Imports core and kernels. Its top: the settings (configuration.py), the commands, and the
chain (pipeline.py, which stands on run_models.py, run_data.py, run_folder.py). Read first:
configuration.py, then stages/ppo.py.
"""
