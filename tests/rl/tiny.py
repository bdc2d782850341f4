"""A model, a tokenizer and conversations small enough for a test to train on."""

import dataclasses
import functools

import torch

from gptwin.core.model.presets import GPTConfig
from gptwin.kernels.model.gpt import GPT
from gptwin.rl.data import sources
from gptwin.rl.data.dialogue import SPECIAL_TOKENS, Template
from gptwin.rl.formats.tokenizer import Tokenizer
from gptwin.rl.studies.chatgpt import SMALL


@functools.cache
def template():
    spoken = [m.content for e in sources.drawn(0, 400, held_out=False) for m in e.messages]
    return Template(Tokenizer.train(spoken, 300, SPECIAL_TOKENS))


def gpt(seed=0, dropout=0.0):
    config = GPTConfig(template().tokenizer.vocab_size, 96, 2, 2, 32, dropout=dropout)
    model = GPT(config, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)  # far enough from uniform for differences to show
    return model


def conversations(n, seed=0):
    answered = [sources.answered(e, e.answer) for e in sources.drawn(seed, n, held_out=False)]
    return sources.encoded(template(), answered)


def prompts(n, seed=0):
    return sources.exercise_prompts(template(), sources.drawn(seed, n, held_out=False))


def configuration(directory, **tables):
    """A chain of a few seconds: {"ppo": {"ptx": 1.0}} changes a table."""
    few = {
        "model": {"n_layer": 2, "n_head": 2, "d_model": 32, "n_ctx": 96, "vocab_size": 400},
        "run": {"directory": str(directory), "checkpoint_every": 2, "evaluate_every": 4},
        "pretrain": {"steps": 4, "batch": 4, "time": 32},
        "sft": {"examples": 128, "epochs": 1},
        "reward": {"prompts": 16, "batch": 8, "epochs": 1},
        "ppo": {"episodes": 64, "batch": 16, "max_response": 8, "best_of": 2},
    }
    changed = {
        name: dataclasses.replace(getattr(SMALL, name), **{**few[name], **tables.get(name, {})})
        for name in few
    }
    return dataclasses.replace(SMALL, **changed)


def length_of(prompts, responses):
    """A user's reward function."""
    assert prompts[0][-1].role == "user"
    return [len(text) / 10 for text in responses]
