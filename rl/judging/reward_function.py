"""The user's own reward function: found by its name, its scores checked before PPO uses them.

It may be an object that is called, and remember what it saw: with methods `state_dict` and
`load_state_dict` its state is kept in PPO's checkpoints, and a run that goes on after a kill earns
the rewards that it would have earned.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...core.checks import refuse
from ..data.dialogue import Template
from ..data.sources import Prompt
from ..stages.ppo_stage import Stateful


class ByFunction:
    """A user's function as what PPO calls: texts go to it, and checked scores come back.

    Parameters
    ----------
    function : callable
        `(conversations, texts) -> scores`, a conversation being a tuple of `Message`.
    template : Template
        Of the policy's tokenizer.
    device : torch.device
        Of the scores.
    """

    def __init__(
        self, function: Callable[..., Any], template: Template, device: torch.device
    ) -> None:
        self.function, self.template, self.device = function, template, device

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[list[int]]) -> torch.Tensor:
        """Return the scores [response]; as `checked_scores` refuses, so does this."""
        texts = [self.template.text(response) for response in responses]
        found = self.function([prompt.messages for prompt in prompts], texts)
        return checked_scores(found, len(texts)).to(self.device)

    def state_dict(self) -> dict[str, Any]:
        """Return what the function remembers; nothing of a plain one."""
        return self.function.state_dict() if isinstance(self.function, Stateful) else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the function go back to a state."""
        if isinstance(self.function, Stateful):
            self.function.load_state_dict(state)


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
