"""What an iteration of PPO says of itself in the log; none of it changes what is learned."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...kernels.rlhf.kl import kl
from ..training.run import Statistics
from .rollout import Experience, Judged


def of_rollout(judged: Judged, experience: Experience, end: int) -> Statistics:
    """Return what the answers of an iteration were like.

    Parameters
    ----------
    judged : Judged
    experience : Experience
    end : int
        Id of the end token.

    Returns
    -------
    dict of str to float
        Means over answers, of sums over their tokens.
    """
    batch, n = experience.batch, len(experience.batch.tokens)
    tokens = int(batch.mask.sum())
    found = {
        "score": judged.scores.mean().item(),
        "reward": experience.rewards.sum().item() / n,
        "response_length": tokens / n,
        "end_rate": batch.ended(end).float().mean().item(),
        "explained_variance": explained_variance(judged.values, experience.returns, batch.mask),
        "tokens": tokens,
    }
    for estimator, name in (("k1", "kl"), ("k3", "kl_k3")):
        per_token = kl(judged.log_probs, judged.reference, batch.mask, estimator=estimator)
        found[name] = per_token.sum().item() / n
    if judged.difference is not None:
        found["generation_difference"] = judged.difference
    return found


def of_share(results: Any, share: float) -> Statistics:
    """Return what a part of a minibatch adds to its statistics.

    Parameters
    ----------
    results : PPOResults
        The means over the part's tokens.
    share : float
        Of the minibatch's tokens, how many are the part's.

    Returns
    -------
    dict of str to float
        Its share of each mean; the least and the greatest ratio are those of the part.
    """
    names = [n for n in results._fields if n not in ("n_tokens", "explained_variance")]
    numbers = torch.stack([getattr(results, name).detach() for name in names]).tolist()
    found = dict(zip(names, numbers, strict=True))
    extremes = {name: found.pop(name) for name in ("ratio_min", "ratio_max")}
    return {name: value * share for name, value in found.items()} | extremes


def over_minibatches(found: Sequence[Statistics]) -> Statistics:
    """Join the statistics of an iteration's minibatches: extremes of the ratio, means of all else.

    Parameters
    ----------
    found : sequence of dict
        Of each minibatch, under the same names.

    Returns
    -------
    dict of str to float
    """
    joined = {name: sum(step[name] for step in found) / len(found) for name in found[0]}
    # Python's min and max would pass a NaN over.
    joined["ratio_min"] = float(np.min([step["ratio_min"] for step in found]))
    joined["ratio_max"] = float(np.max([step["ratio_max"] for step in found]))
    return joined


def farthest(first: Statistics) -> float:
    """Return how far the first minibatch's log-probabilities are from the rollout's."""
    return max(-math.log(first["ratio_min"]), math.log(first["ratio_max"]))


def explained_variance(values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor) -> float:
    """Return 1 − Var(returns − values) / Var(returns): what the value network knew beforehand.

    Parameters
    ----------
    values, returns : torch.Tensor [batch, response]
        Of the policy that acted.
    mask : torch.Tensor of bool [batch, response]

    Returns
    -------
    float
        0 where the returns do not vary.
    """
    wanted = returns[mask]
    variance = wanted.var(correction=0).item() if len(wanted) else 0.0
    if variance == 0:
        return 0.0
    return 1 - (wanted - values[mask]).var(correction=0).item() / variance
