"""A tiny PPO stage, which the tests of PPO and of its halves share."""

import numpy as np
import tiny
import torch

from gptwin.rl.configuration import PPOSettings
from gptwin.rl.data.batches import Shuffled
from gptwin.rl.ranks.group import Group
from gptwin.rl.stages.ppo_stage import PPOStage
from gptwin.rl.stages.scorer import Scorer


def likes_e(prompts, responses):
    """A reward anyone can earn: the share of tokens that hold the letter e."""
    decode = tiny.template().tokenizer.decode
    return torch.tensor([np.mean(["e" in decode([i]) for i in r]).item() for r in responses])


def stage(policy=None, pretraining=None, **settings):
    settings = PPOSettings(
        **{
            "batch": 16, "minibatches": 2, "episodes": 160, "max_response": 8, "lr": 3e-3,
            "value_lr": 3e-3, "lr_warmup": 0, "ptx": 0.0,
        } | settings
    )  # fmt: skip
    policy = policy or tiny.gpt()
    value = Scorer(policy if settings.shared_trunk else tiny.gpt(), seed=0)
    t = tiny.template()
    return PPOStage(
        policy, value, likes_e, Shuffled(tiny.prompts(64), settings.batch, 0), settings,
        pad=t.pad, end=t.end, seed=0, group=Group(), pretraining=pretraining,
    )  # fmt: skip
