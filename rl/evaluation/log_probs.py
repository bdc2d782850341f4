"""log P of a continuation, token by token: what every score of a choice is made of.

    context        · · Q : 2 + 2 =      padded on the left, seen and not scored
    continuation               4 <end>  each token's log P, given all before it

A request is ids; asking.py makes them from text.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ...core.checks import refuse
from ...kernels.model.gpt import GPT
from ..stages.generation import in_evaluation_mode
from ..stages.rollout import response_log_probs, side_by_side

AT_ONCE = 64  # requests in one pass
PADDING = 0  # any id: nobody sees it


class Request(NamedTuple):
    """A continuation to be scored after its context, as ids.

    Attributes
    ----------
    context, continuation : list of int
        A token at least in each.
    """

    context: list[int]
    continuation: list[int]

    def expect_room(self, n_ctx: int) -> None:
        """Refuse a request that a model cannot read at once; its last token is not read."""
        needed = len(self.context) + len(self.continuation) - 1
        if needed > n_ctx:
            got = f"{len(self.context)} + {len(self.continuation)} of context and answer"
            refuse("question", f"at most n_ctx = {n_ctx} tokens with its answer, less the last",
                   got, "a question that is longer than the model's context")  # fmt: skip


@torch.no_grad()
def continuation_log_probs(
    model: GPT, requests: Sequence[Request], *, at_once: int = AT_ONCE
) -> list[list[float]]:
    """Score continuations.

    Parameters
    ----------
    model : GPT
        Runs in evaluation mode meanwhile.
    requests : sequence of Request
        None longer than the model's context.
    at_once : int
        The most in one pass, by which its memory grows.

    Returns
    -------
    list of list of float
        For each request, in their order, log P of each token of its continuation, in nats.

    Raises
    ------
    ValueError
        If a request is too long or a part of it empty, or the model is an encoder.
    """
    if not model.config.causal:
        cause = "an encoder's states have seen the answer: train a head (rl/finetuning)"
        refuse("model", "a decoder, which has a log P from left to right", "an encoder", cause)
    for request in requests:
        if not request.context or not request.continuation:
            refuse("request", "a token at least in context and continuation", repr(request))
        request.expect_room(model.config.n_ctx)
    found: list[list[float]] = [[] for _ in requests]
    # Requests alike in length go together, so that little is padding.
    order = sorted(range(len(requests)), key=lambda i: sum(map(len, requests[i])))
    device = model.wte.weight.device
    with in_evaluation_mode(model):
        while order:
            part = _that_fit(requests, order[:at_once], model.config.n_ctx)
            order = order[len(part) :]
            contexts, said = zip(*(requests[i] for i in part), strict=True)
            batch = side_by_side(contexts, said, PADDING, device)
            for i, row in zip(part, response_log_probs(model, batch, 1.0).tolist(), strict=True):
                found[i] = row[: len(requests[i].continuation)]
    return found


def _that_fit(requests: Sequence[Request], part: list[int], n_ctx: int) -> list[int]:
    """Return the first requests of a part that fit side by side: contexts end at one column."""
    contexts = said = 0
    for n, i in enumerate(part):
        contexts = max(contexts, len(requests[i].context))
        said = max(said, len(requests[i].continuation))
        if contexts + said - 1 > n_ctx:
            return part[: max(n, 1)]
    return part
