"""The project's own Gluon kernels, launched at sizes at which every barrier is used three times.

A place of a ring is filled three times, and the last tile is cut off.
"""

import math
from collections.abc import Callable

import numpy as np
import torch

from ...core.attention.attention import attention
from ...core.attention.attention import attention_backward as reference_backward
from ...core.attention.attention import attention_forward as reference_forward
from ...kernels.hopper.attention import attention_forward
from ...kernels.hopper.attention_backward import attention_backward
from .mutants import Launch

Arrays = dict[str, np.ndarray]
Results = tuple[dict[str, torch.Tensor], Callable[[], Arrays]]  # what is written, what should be

D_HEAD = 16  # the kernels take any power of two: small ones are played faster


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


def unwritten(like: torch.Tensor) -> torch.Tensor:
    """Make room for a result: NaN, where nothing is written.

    Parameters
    ----------
    like : torch.Tensor

    Returns
    -------
    torch.Tensor
    """
    return torch.full_like(like, torch.nan)


def _arguments(n_query: int, n_key: int, n_head: int, n_kv_head: int) -> list[torch.Tensor]:
    """Draw query, key and value: [batch, head, row, feature]."""
    shapes = ((n_head, n_query), (n_kv_head, n_key), (n_kv_head, n_key))
    return [draw(1, *shape, D_HEAD, seed=seed) for seed, shape in enumerate(shapes)]


def forward(n_query: int, n_key: int, causal: bool, n_head: int = 1, n_kv_head: int = 1) -> Results:
    """Launch the forward kernel through its host function.

    Parameters
    ----------
    n_query, n_key : int
    causal : bool
    n_head, n_kv_head : int

    Returns
    -------
    Results
    """
    arguments = _arguments(n_query, n_key, n_head, n_kv_head)
    output, lse = unwritten(arguments[0]), torch.full((1, n_head, n_query), torch.nan)
    scale = D_HEAD**-0.5 * math.log2(math.e)
    query, key, value = arguments
    attention_forward(query, key, value, output, lse, causal=causal, scale_log2_e=scale)

    def expected() -> Arrays:
        results = attention(*(x.double().numpy() for x in arguments), causal=causal)
        return dict(zip(("output", "lse"), results, strict=True))

    return {"output": output, "lse": lse}, expected


def backward(
    n_query: int, n_key: int, causal: bool, n_head: int = 1, n_kv_head: int = 1, of: str = "qkv"
) -> Results:
    """Launch backward kernels through their host function.

    Parameters
    ----------
    n_query, n_key : int
    causal : bool
    n_head, n_kv_head : int
    of : str
        Whose gradients: "q", "kv" or "qkv", each from its own kernel.

    Returns
    -------
    Results
    """
    arguments = _arguments(n_query, n_key, n_head, n_kv_head)
    d_output = draw(*arguments[0].shape, seed=3)
    exact = [x.double().numpy() for x in arguments]
    (output, lse), saved = reference_forward(*exact, causal=causal)
    delta = (d_output.double().numpy() * output).sum(-1)
    query, key, value = arguments
    d_query = unwritten(query) if "q" in of else None
    d_key, d_value = (unwritten(x) if "kv" in of else None for x in (key, value))
    attention_backward(
        query, key, value, d_output,
        *(torch.from_numpy(x.astype(np.float32)) for x in (lse, delta)),
        causal=causal, scale=D_HEAD**-0.5, d_query=d_query, d_key=d_key, d_value=d_value, stages=2,
    )  # fmt: skip
    gradients = {"d_query": d_query, "d_key": d_key, "d_value": d_value}

    def expected() -> Arrays:
        upstream = d_output.double().numpy(), np.zeros_like(lse)
        results = reference_backward(saved, *upstream)
        named = dict(zip(gradients, results, strict=False))
        return {name: named[name] for name, x in gradients.items() if x is not None}

    return {name: x for name, x in gradients.items() if x is not None}, expected


def _of(*launches: Callable[[], Results]) -> Launch:
    return lambda: [result for launch in launches for result in launch()[0].values()]


# What mutants are judged by.
OWN: dict[str, Launch] = {
    "attention forward": _of(lambda: forward(128, 600, False), lambda: forward(128, 428, True)),
    "attention backward, queries": _of(lambda: backward(128, 364, True, of="q")),
    "attention backward, keys and values": _of(
        lambda: backward(150, 128, False, n_head=2, of="kv"),
    ),
}
