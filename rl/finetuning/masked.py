"""BERT's pretraining, for the contrast: say the tokens that were hidden, from both sides.

    read      Q : which is [MASK] , 3 or 12       15% of the tokens are chosen; of these 80% become
    target    · · ·     ·  larger · ·  ·  ·       [MASK], 10% another token, 10% stay as they are

An encoder's state at a token has seen the token itself and all after it, so it gives no
log P(next | before): what it knows must be asked through a head, or by hiding (classifier.py).

Source: Devlin et al. 2018 (arXiv 1810.04805), section 3.1.
"""

import dataclasses

import numpy as np
import torch

from ...core.checks import refuse
from ...kernels.model.gpt import GPT
from ..data.batches import IGNORED, Windows

SHARE, HIDDEN, CHANGED = 0.15, 0.8, 0.1
MASK = "[MASK]"


@dataclasses.dataclass(frozen=True)
class Masked:
    """Windows of running text with tokens hidden: step i's depend on the seed and i alone.

    Attributes
    ----------
    windows : Windows
    mask : int
        Id of the token that hides another.
    n_tokens : int
        Ids below it may stand in for a hidden one.
    """

    windows: Windows
    mask: int
    n_tokens: int

    def batch(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return step `index`, from 0.

        Returns
        -------
        tokens, targets : torch.Tensor of int64 [batch, time]
            Targets are `IGNORED` where nothing was chosen.
        """
        rng = np.random.default_rng((self.windows.seed, index, 1))
        rows = np.array([window.tokens[:-1] for window in self.windows.batch(index)])
        draw, kind = rng.random(rows.shape), rng.random(rows.shape)
        chosen = draw < SHARE
        others = rng.integers(0, self.n_tokens, rows.shape)
        read = np.where(kind < HIDDEN, self.mask, np.where(kind < HIDDEN + CHANGED, others, rows))
        tokens = np.where(chosen, read, rows)
        return torch.tensor(tokens), torch.tensor(np.where(chosen, rows, IGNORED))


def masked_loss(model: GPT, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean −log P of the tokens that were chosen.

    Parameters
    ----------
    model : GPT
        An encoder: a decoder would see one side alone.
    tokens, targets : torch.Tensor of int64 [batch, time]
        From `Masked.batch`.

    Returns
    -------
    torch.Tensor []

    Raises
    ------
    ValueError
        If the model is a decoder.
    """
    if model.config.causal:
        refuse("model", "an encoder (causal=False)", "a decoder", "what is hidden has no future")
    return model.loss(tokens, targets, ignore_index=IGNORED)
