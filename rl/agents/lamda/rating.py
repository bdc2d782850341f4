"""How LaMDA rates what it said: a rating token for each attribute, on one shared prefix.

    … <|assistant|> tree moon <|end|>  read once, into the KV cache
                                       <|sensible|>     → P(1)     one more token, then rewound
                                       <|specific|>     → P(1)
                                       <|interesting|>  → P(1)
                                       <|unsafe|>       → P(1), of which P(safe) = 1 − P(1)

The twin of core/dialogue/lamda.py; four ratings cost four tokens, and not four readings.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ....core.checks import refuse
from ....core.dialogue.lamda import TIED, WEIGHTS, WHEN_NONE
from ....core.model.generation import pad_left
from ....kernels.model.gpt import GPT
from ....kernels.model.kv_cache import KVCache
from ...stages.generation import in_evaluation_mode
from ..base import ATTRIBUTES, RATINGS

RATED_AT_ONCE = 256  # responses


class Rated(NamedTuple):
    """What a model thinks of responses.

    Attributes
    ----------
    quality : torch.Tensor of float32 [response, 3]
        P(sensible), P(specific), P(interesting).
    safe : torch.Tensor of float32 [response]
        P(the rating of unsafe is 0).
    elsewhere : torch.Tensor of float32 [response, 4]
        What the model gives to tokens that are no ratings, for each attribute.
    """

    quality: torch.Tensor
    safe: torch.Tensor
    elsewhere: torch.Tensor


def rating(logits: torch.Tensor, zero: int, one: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Read P(rating = 1) and the mass elsewhere; the twin of `core.dialogue.lamda.rating`.

    Parameters
    ----------
    logits : torch.Tensor [..., vocab]
    zero, one : int

    Returns
    -------
    p_one, elsewhere : torch.Tensor [...]
        float32.
    """
    z = logits.float()
    p = z.softmax(-1)
    return (z[..., one] - z[..., zero]).sigmoid(), 1 - p[..., zero] - p[..., one]


def choose(
    ratings: torch.Tensor, safe: torch.Tensor, threshold: float, when_none: str = "refuse"
) -> torch.Tensor:
    """Choose what to say to each of several prompts; the twin of `core.dialogue.lamda.choose`.

    Parameters
    ----------
    ratings : torch.Tensor [prompt, candidate, 3]
    safe : torch.Tensor [prompt, candidate]
    threshold : float
    when_none : str

    Returns
    -------
    torch.Tensor of int64 [prompt]
        An index of a candidate, of equals the first; −1 to refuse.
    """
    if when_none not in WHEN_NONE:
        refuse("when_none", f"one of {', '.join(WHEN_NONE)}", repr(when_none))
    quality = ratings @ ratings.new_tensor(WEIGHTS)
    kept = safe >= threshold
    chosen = _first_best(quality.where(kept, -torch.inf))
    if when_none == "refuse":
        return chosen.where(kept.any(-1), -1)
    return chosen.where(kept.any(-1), _first_best(safe))


def _first_best(values: torch.Tensor) -> torch.Tensor:
    """Return where [prompt] values [prompt, candidate] are highest, but for rounding; the first."""
    return (values >= values.amax(-1, keepdim=True) - TIED).int().argmax(-1)


@torch.inference_mode()
def rate(
    model: GPT,
    special_tokens: dict[str, int],
    rows: Sequence[Sequence[int]],
    *,
    at_once: int = RATED_AT_ONCE,
) -> Rated:
    """Rate responses.

    Parameters
    ----------
    model : GPT
    special_tokens : dict of str to int
        Of its tokenizer, `base.CONTROLS` among them.
    rows : sequence of sequence of int
        Each a prompt and a response that ends with the end token.
    at_once : int
        The most responses that are read together.

    Returns
    -------
    Rated
        In the order of the rows.
    """
    zero, one = (special_tokens[token] for token in RATINGS)
    found: list[torch.Tensor] = [torch.zeros(0, len(ATTRIBUTES), 2)]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    with in_evaluation_mode(model):
        for start in range(0, len(rows), at_once):
            part = [rows[i] for i in order[start : start + at_once]]
            cache, device = _read(model, part), model.wte.weight.device
            read = []
            for attribute in ATTRIBUTES:
                asked = torch.full((len(part), 1), special_tokens[attribute], device=device)
                logits = model.logits(model(asked, cache=cache)[:, -1])  # [row, vocab]
                cache.rewind(1)
                read.append(torch.stack(rating(logits, zero, one), -1))  # [row, 2]
            found.append(torch.stack(read, 1).cpu())  # [row, attribute, 2]
    joined = torch.cat(found)
    in_order = torch.empty_like(joined)
    in_order[order] = joined
    p = in_order[..., 0]
    return Rated(p[:, :3], 1 - p[:, 3], in_order[..., 1])


def _read(model: GPT, rows: Sequence[Sequence[int]]) -> KVCache:
    """Read rows, padded on the left, into a cache with room for one token more."""
    padded, starts = (torch.from_numpy(a) for a in pad_left(rows))
    device = model.wte.weight.device
    cache = KVCache(model.config, len(rows), padded.shape[1] + 1, device, model.dtype)
    key_start = starts.to(device) if bool((starts > 0).any()) else None
    model(padded.to(device), key_start=key_start, cache=cache, states_from=padded.shape[1] - 1)
    return cache
