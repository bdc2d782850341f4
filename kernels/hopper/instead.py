"""The door from kernels/attention: a call is served here, or it is not and the plain kernels do it.

Gluon is imported by who asks for it alone: elsewhere nobody waits for that, or misses it.
"""

import math
from typing import Any

import torch

from .serving import serves


def attended(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    output: torch.Tensor,
    lse: torch.Tensor,
    *,
    masks: Any,
    scale: float,
    dropout: float,
) -> bool:
    """Attend, if these kernels are asked for and serve the call.

    Parameters
    ----------
    query, key, value, output, lse
        As of `attention_forward`; the last two are written.
    masks : Masks
        Of kernels/attention/attention_tiles.py.
    scale, dropout : float

    Returns
    -------
    bool
        Whether it is done.
    """
    if not serves(query, key, value, output, masks=masks, dropout=dropout):
        return False
    from .attention import attention_forward

    attention_forward(
        *(query, key, value, output, lse),
        causal=masks.causal,
        scale_log2_e=scale * math.log2(math.e),
    )
    return True


def differentiated(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    d_output: torch.Tensor,
    lse: torch.Tensor,
    delta: torch.Tensor,
    gradients: tuple[torch.Tensor | None, ...],
    *,
    masks: Any,
    scale: float,
    dropout: float,
) -> bool:
    """Find attention's gradients, if these kernels are asked for and serve the call.

    Parameters
    ----------
    query, key, value, d_output, lse, delta
        As of `attention_backward`.
    gradients : (d_query, d_key, d_value)
        Written; None where one is not wanted.
    masks, scale, dropout
        As of `attended`.

    Returns
    -------
    bool
        Whether it is done.
    """
    written = [x for x in gradients if x is not None]
    if not serves(query, key, value, d_output, *written, masks=masks, dropout=dropout):
        return False
    from .attention_backward import attention_backward

    d_query, d_key, d_value = gradients
    attention_backward(
        *(query, key, value, d_output, lse, delta), causal=masks.causal, scale=scale,
        d_query=d_query, d_key=d_key, d_value=d_value,
    )  # fmt: skip
    return True
