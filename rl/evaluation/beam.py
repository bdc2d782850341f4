"""Beam search: the likeliest answer that keeping several beginnings finds.

At each step every beginning is continued by every token. Of the best `width` of all, those that end
are finished; the best `width` that do not end go on. What is finished is scored by
log P / ((5 + n)/6)^α (`choices.length_penalised`), so that a longer answer is not lost for its
length alone. The search ends when as many are finished as there are beams, or at the longest
length, where what is unfinished counts as it is.
"""

from collections.abc import Sequence

import torch

from ...core.checks import refuse
from ...kernels.model.gpt import GPT
from ..stages.generation import in_evaluation_mode
from .choices import best, length_penalised

ALPHA = 0.6  # GPT-3's
Beam = tuple[list[int], float]  # ids, and their log P


@torch.no_grad()
def beam_search(
    model: GPT,
    context: Sequence[int],
    width: int,
    *,
    max_new_tokens: int,
    stops: Sequence[int],
    alpha: float = ALPHA,
) -> tuple[list[int], float]:
    """Search for the best continuation.

    Parameters
    ----------
    model : GPT
    context : sequence of int
        Ids, one at least.
    width : int
        Beginnings that are kept; 1 is the greedy answer.
    max_new_tokens : int
        The most tokens of an answer.
    stops : sequence of int
        Tokens that end an answer, which they belong to.
    alpha : float
        Of the length penalty.

    Returns
    -------
    ids : list of int
    log_prob : float
        Summed, without the penalty.

    Raises
    ------
    ValueError
        If the longest answer does not fit into the context.
    """
    if len(context) + max_new_tokens > model.config.n_ctx:
        room = model.config.n_ctx - max_new_tokens
        refuse("context", f"at most {room} tokens, to leave room for an answer", str(len(context)))
    device, ends = model.wte.weight.device, set(stops)
    beams: list[Beam] = [([], 0.0)]
    finished: list[Beam] = []
    with in_evaluation_mode(model):
        for _ in range(max_new_tokens):
            rows = torch.tensor([[*context, *ids] for ids, _ in beams], device=device)
            states = model(rows, states_from=rows.shape[1] - 1)[:, 0]  # [beam, d_model]
            log_p = torch.log_softmax(model.logits(states).double(), -1)
            so_far = torch.tensor([log_prob for _, log_prob in beams], device=device)
            reached = so_far[:, None] + log_p  # [beam, vocabulary]
            finished += [b for b in _best(beams, reached, width) if b[0][-1] in ends]
            reached[:, list(stops)] = -torch.inf
            beams = _best(beams, reached, width)
            if len(finished) >= width or not beams:
                break
        else:
            finished += beams
    scores = [length_penalised(log_prob, len(ids), alpha) for ids, log_prob in finished]
    return finished[best(torch.tensor(scores).numpy())]


def _best(beams: Sequence[Beam], reached: torch.Tensor, width: int) -> list[Beam]:
    """Return the `width` likeliest continuations by a token; log P is [beam, vocabulary]."""
    n = min(width, int((reached > -torch.inf).sum()))
    found = reached.flatten().topk(n)
    places = (divmod(place, reached.shape[1]) for place in found.indices.tolist())
    return [
        ([*beams[beam][0], token], log_prob)
        for (beam, token), log_prob in zip(places, found.values.tolist(), strict=True)
    ]
