"""The user's own reward function: found by its name, its scores checked before PPO uses them."""

import importlib
import sys
from collections.abc import Callable
from typing import Any

import torch

from ...core.checks import refuse


def imported(path: str) -> Callable[..., Any]:
    """Return the function that a setting names.

    Parameters
    ----------
    path : str
        "package.module:function".

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        If there is none.
    """
    module, colon, name = path.partition(":")
    if not colon:
        refuse("ppo.reward_fn", "package.module:function", repr(path))
    sys.path.append("")  # a file beside where gptwin was started, as `python -m` has it
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        refuse("ppo.reward_fn", "a function that can be imported", f"{path}: {error}")
    finally:
        # We take the entry off again: in the checkout, others would take kernels/ for a package.
        del sys.path[len(sys.path) - 1 - sys.path[::-1].index("")]


def checked_scores(found: Any, n: int) -> torch.Tensor:
    """Return what a reward function returned as a tensor, or refuse it.

    Parameters
    ----------
    found : sequence of float, or array
        As the user's function returned it.
    n : int
        Responses that it was asked about.

    Returns
    -------
    torch.Tensor of float32 [n]

    Raises
    ------
    ValueError
        If these are not `n` finite numbers.
    """
    try:
        scores = torch.as_tensor(found, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        refuse("ppo.reward_fn", f"{n} numbers", f"{type(found).__name__}: {error}")
    if scores.shape != (n,):
        got = f"shape {tuple(scores.shape)}"
        refuse("ppo.reward_fn", f"{n} numbers, one for each response", got)
    if not scores.isfinite().all():
        first = int((~scores.isfinite()).nonzero()[0])
        refuse("ppo.reward_fn", "finite scores", f"{scores[first].item()} for response {first}")
    return scores
