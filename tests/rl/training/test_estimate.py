"""What a stage says it will take of memory."""

import dataclasses

import tiny
import torch

from gptwin.core.model.presets import parameter_count, preset
from gptwin.rl.configuration import PPOSettings
from gptwin.rl.ranks.group import Group
from gptwin.rl.training.estimate import announce, free_bytes, ppo_bytes, training_bytes

GPU = torch.device("cuda")


def test_sharding_divides_what_does_not_grow_with_the_batch():
    config = preset("gpt2")
    one, four = Group(device=GPU), Group(0, 4, GPU, sharded=True)
    at_rest = 4 * 4 * parameter_count(config)  # parameters, gradients and two moments
    saved = training_bytes(config, 2, 64, one) - training_bytes(config, 2, 64, four)
    assert saved == at_rest - at_rest // 4
    more = training_bytes(config, 4, 64, one) - training_bytes(config, 2, 64, one)
    assert more == training_bytes(config, 6, 64, one) - training_bytes(config, 4, 64, one) > 0


def test_a_shared_trunk_a_function_and_smaller_minibatches_need_less():
    config, group = tiny.gpt().config, Group()
    settings = PPOSettings(max_response=8)
    needed = ppo_bytes(config, settings, 30, group)
    for change in ({"shared_trunk": True}, {"reward_fn": "a:b"}, {"minibatches": 64}):
        assert ppo_bytes(config, dataclasses.replace(settings, **change), 30, group) < needed


def test_too_much_is_warned_of():
    group = Group()
    assert "Warning" not in announce("sft", 1000, 2**20, group)
    assert announce("sft", 1000, 2**20, group) == "sft: 1,000 parameters, about 1 MiB of memory"
    assert "Warning" in announce("sft", 1000, 2 * free_bytes(group.device), Group(0, 2))
