"""A GPT with a scalar in place of words: the reward model, and PPO's value network.

r_t = w·h_t + b, h_t being the final hidden state at token t; w ~ N(0, 1/√(d_model + 1)), b = 0
(lm-human-preferences). The reward of a response is r at its last token; the value of a state is r
at the token that came last.
"""

import math
from pathlib import Path

import torch
from safetensors.torch import load_file

from ...core.model.presets import GPTConfig
from ...kernels.common.launch import door
from ...kernels.cpu import speed_up
from ...kernels.layers.linear import linear
from ...kernels.model.gpt import GPT

SCORER = "scorer.safetensors"  # in the folder of the stage `reward`


class Scorer(torch.nn.Module):
    """A trunk and a scalar head.

    Parameters
    ----------
    trunk : GPT
        Taken as it is, not copied.
    seed : int, optional
        Of the head's weights; None: zeros, for a model that is about to be loaded.
    """

    def __init__(self, trunk: GPT, seed: int | None = None) -> None:
        super().__init__()
        self.trunk = trunk
        d_model = trunk.config.d_model
        self.weight = torch.nn.Parameter(torch.zeros(d_model))
        self.bias = torch.nn.Parameter(torch.zeros(()))
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            drawn = torch.randn(d_model, generator=generator) / math.sqrt(d_model + 1)
            self.weight.data.copy_(drawn)
        self.to(next(trunk.parameters()).device)

    def forward(
        self, tokens: torch.Tensor, *, key_start: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Score every token.

        Parameters
        ----------
        tokens : torch.Tensor of int64 [batch, time]
            Padded on the left, with `key_start`, or on the right.
        key_start : torch.Tensor of int [batch], optional
            Where each row begins.

        Returns
        -------
        torch.Tensor [batch, time]
            float32.
        """
        return self.head(self.trunk(tokens, key_start=key_start))

    def last(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Score each row at its last token.

        Parameters
        ----------
        tokens : torch.Tensor of int64 [batch, time]
            Padded on the right.
        lengths : torch.Tensor of int64 [batch]
            Tokens of each row, at least 1.

        Returns
        -------
        torch.Tensor [batch]
            float32.
        """
        first = int(lengths.min()) - 1  # nobody reads the states before it
        hidden = self.trunk(tokens, states_from=first)
        rows = torch.arange(len(tokens), device=tokens.device)
        return self.head(hidden[rows, lengths - 1 - first])

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Turn hidden states [..., d_model] into scores [...]."""
        if door().batch_invariant:
            return linear(hidden.float(), self.weight[:, None])[..., 0] + self.bias
        return hidden.float() @ self.weight + self.bias


def load_scorer(file: Path, config: GPTConfig) -> Scorer:
    """Read a reward model.

    Parameters
    ----------
    file : pathlib.Path
        What the stage `reward` left.
    config : GPTConfig
        Of its trunk.

    Returns
    -------
    Scorer
        On the CPU, frozen, in evaluation mode.
    """
    scorer = Scorer(speed_up(GPT(config)))
    scorer.load_state_dict(load_file(file))
    return scorer.requires_grad_(False).eval()
