"""Attention's output by PyTorch's own fused kernel: what a CPU runs for attention.py.

`scaled_dot_product_attention` means what `attention` means, but for three things. It returns no
lse, which a decoder block has no use for. Its causal mask is aligned at the top left, which is the
same only for as many queries as keys; every other mask is written out for it. A row that sees
nothing is 0 in both, with no gradient.

And it takes a query of NaN for one that sees nothing: its row is 0, and a diverged model's loss is
finite (PyTorch 2.13, every dtype; an infinite key in half precision likewise). NaN that a mask
hides it lets through. So we look first, and what is not finite goes the written-out way; under
torch.compile, which lets nobody look, NaN is added to the row. A step of generation, a single query
without a gradient, is not looked at: the prompt before it was, and left its NaN in the cache.

Its dropout draws from PyTorch's generator, not from Philox by position: the same share of weights,
but others than the kernel's.
"""

from typing import Any

import torch
from torch.nn import functional

from ...core.checks import all_finite
from ..common.finite import may_be_read
from ..common.indices import signed
from .attention import attention_eager


def masked_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    causal: bool = False,
    window: int | None = None,
    key_start: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> torch.Tensor:
    """Compute `attention`'s output.

    Parameters
    ----------
    query, key, value, causal, window, key_start, cu_seqlens, dropout
        As in `attention`, with as many heads of keys and values as of queries.
    seed : int
        Not used: see above.

    Returns
    -------
    torch.Tensor [batch, head, query, d_head]
    """
    n_query, n_key = query.shape[2], key.shape[2]
    key_start, cu_seqlens = signed(key_start), signed(cu_seqlens)
    if window is not None and window >= n_key:
        window = None
    if n_query == 1:
        causal = False  # the last query sees all keys
        if window is not None:
            key, value = key[:, :, n_key - window :], value[:, :, n_key - window :]
            key_start = None if key_start is None else key_start - (n_key - window)
            n_key, window = window, None
    masks: dict[str, Any] = {
        "causal": causal,
        "window": window,
        "key_start": key_start,
        "cu_seqlens": cu_seqlens,
    }
    if n_query == 1 and n_key > 1 and not torch.is_grad_enabled():
        return _fused_attention(query, key, value, masks, dropout)
    if not may_be_read(query):
        row_of_nan = 0 * query.detach().amax(dim=-1, keepdim=True)  # or else 0
        return _fused_attention(query, key, value, masks, dropout) + row_of_nan
    # An unmasked key of NaN makes NaN of the rows that see it, in float32.
    is_exact = key.dtype in (torch.float32, torch.float64)
    no_masks = window is None and key_start is None and cu_seqlens is None
    if all_finite(query.detach()) and ((is_exact and no_masks) or all_finite(key.detach())):
        return _fused_attention(query, key, value, masks, dropout)
    return attention_eager(query, key, value, **masks, dropout=dropout, seed=seed)[0]


def _fused_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    masks: dict[str, Any],
    dropout: float,
) -> torch.Tensor:
    """Call PyTorch's kernel, with masks written out unless it has the only one."""
    n_query, n_key = query.shape[2], key.shape[2]
    others = [mask for name, mask in masks.items() if name != "causal" and mask is not None]
    top_left = masks["causal"] and n_query == n_key
    if not others and (top_left or not masks["causal"]):
        return functional.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=top_left
        )
    seen = seen_keys(n_query, n_key, query.device, **masks)
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=seen[:, None], dropout_p=dropout
    )


def seen_keys(
    n_query: int,
    n_key: int,
    device: torch.device,
    *,
    causal: bool = False,
    window: int | None = None,
    key_start: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
) -> torch.Tensor:
    """Write out which keys each query sees.

    Parameters
    ----------
    n_query, n_key : int
        The queries are the last of as many positions as there are keys.
    device : torch.device
    """
    keys = torch.arange(n_key, device=device)
    own = torch.arange(n_key - n_query, n_key, device=device)[:, None]  # [query, 1]
    seen = torch.ones(1, n_query, n_key, dtype=torch.bool, device=device)
    if causal:
        seen = seen & (keys <= own)
    if window is not None:
        seen = seen & (keys > own - window)
    if key_start is not None:
        seen = seen & (keys >= key_start[:, None, None])
    if cu_seqlens is not None:
        # 0 before the first boundary, then 1, 2, ...; the last number belongs to no document.
        document = torch.searchsorted(cu_seqlens, keys.to(cu_seqlens.dtype), right=True)
        inside = document < len(cu_seqlens)
        seen = seen & (document == document[n_key - n_query :, None]) & inside
    return seen
