"""The project's own Gluon kernels, launched at sizes at which every barrier has been used twice.

A place of a ring is filled three times, the last tile is cut off, and the masked walk, which takes
at most two tiles, takes two.
"""

import math
from collections.abc import Callable

import numpy as np
import torch

from ...core.attention.attention import attention
from ...kernels.hopper.attention import attention_forward

Results = dict[str, tuple[torch.Tensor, np.ndarray]]  # what was written, and the reference's

D_HEAD = 16  # the kernels take any power of two: small ones are played faster
# Queries, keys, causal.
FORWARD = [(128, 600, False), (128, 428, True)]


def draw(*shape: int, seed: int) -> torch.Tensor:
    """Draw bfloat16 numbers.

    Parameters
    ----------
    *shape : int
    seed : int

    Returns
    -------
    torch.Tensor
    """
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def forward(
    n_query: int, n_key: int, causal: bool, n_head: int = 1, n_kv_head: int = 1
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
    """Launch the forward kernel through its host function.

    Parameters
    ----------
    n_query, n_key : int
    causal : bool
    n_head, n_kv_head : int

    Returns
    -------
    output, lse : torch.Tensor
        NaN where nothing was written.
    arguments : tuple of torch.Tensor
        Query, key and value.
    """
    shapes = ((n_head, n_query), (n_kv_head, n_key), (n_kv_head, n_key))
    query, key, value = (draw(1, *shape, D_HEAD, seed=i) for i, shape in enumerate(shapes))
    output = torch.full_like(query, torch.nan)
    lse = torch.full((1, n_head, n_query), torch.nan)
    scale = D_HEAD**-0.5 * math.log2(math.e)
    attention_forward(query, key, value, output, lse, causal=causal, scale_log2_e=scale)
    return output, lse, (query, key, value)


def forward_results(
    n_query: int, n_key: int, causal: bool, n_head: int = 1, n_kv_head: int = 1
) -> Results:
    """Launch the forward kernel, and compute the reference beside it.

    Parameters
    ----------
    n_query, n_key, causal, n_head, n_kv_head
        See `forward`.

    Returns
    -------
    Results
    """
    output, lse, arguments = forward(n_query, n_key, causal, n_head, n_kv_head)
    expected = attention(*(x.double().numpy() for x in arguments), causal=causal)
    return {"output": (output, expected[0]), "lse": (lse, expected[1])}


def _launch_forward() -> list[torch.Tensor]:
    return [result for case in FORWARD for result in forward(*case)[:2]]


OWN: dict[str, Callable[[], list[torch.Tensor]]] = {"attention forward": _launch_forward}
