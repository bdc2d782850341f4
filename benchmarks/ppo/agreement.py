"""What stands before TRL's time and ours are compared: both compute the same iteration.

TRL runs one iteration and is listened to: the weights that it begins with, what its policy said,
what it logs. Ours begins with the same weights, is given the same responses in place of its own,
and must log the same: score, KL and reward show that it judges alike; losses, ratio and clipping,
all means over as many updates as are timed, that it credits and learns alike.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from . import trl
from .trl import KL_COEFFICIENT, Observed, Shape

# What makes our iteration of TRL's: `ppo_repeated` of rl/studies/workloads.py.
Repeat = Callable[..., Mapping[str, float]]

# TRL's name of a statistic, and ours.
STATISTICS = {
    "objective/scores": "score",
    "objective/kl": "kl",
    "objective/rlhf_reward": "reward",
    "loss/policy_avg": "policy_loss",
    "loss/value_avg": "value_loss",
    "policy/entropy_avg": "entropy",
    "policy/approxkl_avg": "approx_kl",
    "val/ratio": "ratio_mean",
    "policy/clipfrac_avg": "policy_clip_fraction",
    "val/clipfrac_avg": "value_clip_fraction",
}
LR = 1e-3  # far more than is timed, so that the updates show
RELATIVE, ABSOLUTE = 1e-4, 1e-6
PAD = 0  # what TRL takes for the end of a response, should it be sampled


def observed_whole(shape: Shape) -> Observed:
    """Observe an iteration in which nobody sampled the padding token, which TRL hides.

    Parameters
    ----------
    shape : Shape

    Returns
    -------
    Observed
    """
    for seed in itertools.count():
        observed = trl.observe(shape, LR, seed)
        if not (observed.tokens == PAD).any():
            return observed
    raise AssertionError


def agreement(
    shape: Shape, repeat: Repeat, ours: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    """Run an iteration of TRL's, and the same in all our ways.

    Parameters
    ----------
    shape : Shape
    repeat : callable
        `rl.workloads.ppo_repeated`.
    ours : dict of dict
        The name of each way to its settings.

    Returns
    -------
    dict
        Our name of each statistic to {"TRL": ...} and a number of each way's.

    Raises
    ------
    RuntimeError
        If one of them differs.
    """
    observed = observed_whole(shape)
    found: dict[str, dict[str, float]] = {name: {} for name in STATISTICS.values()}
    for way, settings in ours.items():
        for name, values in compared(observed, shape, repeat, **settings).items():
            found[name] |= {"TRL": values["TRL"], way: values["gptwin"]}
    return found


def compared(
    observed: Observed, shape: Shape, repeat: Repeat, **changes: Any
) -> dict[str, dict[str, float]]:
    """Run our iteration of one of TRL's.

    Parameters
    ----------
    observed : Observed
    shape : Shape
        Of it.
    repeat : callable
        `rl.workloads.ppo_repeated`.
    **changes
        Of our settings.

    Returns
    -------
    dict
        Our name of each statistic to {"TRL": ..., "gptwin": ...}.

    Raises
    ------
    RuntimeError
        If one of them differs.
    """
    ours = repeat(
        shape.config, observed.weights, observed.tokens[:, : shape.n_prompt],
        observed.tokens[:, shape.n_prompt :],
        **{"inner_epochs": shape.epochs, "minibatches": shape.minibatches, "lr": LR,
           "kl_coefficient": KL_COEFFICIENT} | changes,
    )  # fmt: skip
    found = {
        name: {"TRL": observed.statistics[theirs], "gptwin": ours[name]}
        for theirs, name in STATISTICS.items()
    }
    for name, values in found.items():
        a, b = values.values()
        if not abs(a - b) <= ABSOLUTE + RELATIVE * abs(a):
            raise RuntimeError(
                f"{name} of the same iteration: TRL has {a:.6g}, gptwin {b:.6g}: they do not do "
                "the same work, and no time is compared"
            )
    return found
