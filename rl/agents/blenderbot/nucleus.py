"""Factual nucleus sampling on tensors: core/dialogue/factual_nucleus.py, and a draw from it."""

import torch

from ....core.dialogue.factual_nucleus import DECAY, FLOOR, P, nucleus_share


def nucleus(probabilities: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Say which tokens are kept, bool [row, vocab]: those that less than a share is likelier than.

    Parameters
    ----------
    probabilities : torch.Tensor [row, vocab]
    share : torch.Tensor [row]

    Returns
    -------
    torch.Tensor of bool [row, vocab]
    """
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    likelier = ordered.cumsum(-1) - ordered
    return torch.zeros_like(order, dtype=torch.bool).scatter(-1, order, likelier < share[:, None])


def factual(
    logits: torch.Tensor, since: torch.Tensor, p: float = P, decay: float = DECAY,
    floor: float = FLOOR,
) -> torch.Tensor:  # fmt: skip
    """Forbid, with −inf, what a factual nucleus leaves out.

    Parameters
    ----------
    logits : torch.Tensor [row, vocab]
    since : torch.Tensor of int [row]
        Tokens since the last end of a sentence.
    p, decay, floor : float
        p₀, λ, ω.

    Returns
    -------
    torch.Tensor [row, vocab]
    """
    found = nucleus_share(since.cpu().numpy(), p, decay, floor)
    share = torch.from_numpy(found).to(logits)
    return logits.masked_fill(~nucleus(logits.softmax(-1), share), -torch.inf)
