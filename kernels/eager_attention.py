"""Attention on the CPU, product and all, for sequences that are short: few passes, and no waste.

    qkv = x W + b;   P = softmax(q kᵀ/√d_head + mask);   heads = P v

PyTorch's fused kernel never holds P, and cuts it into pieces that a processor multiplies slowly.
For a short sequence P is no larger than what attention keeps anyway: here each product is one call
for all heads, and backward reads P instead of computing it again. The gradients of q, k and v are
written side by side, as one product takes them, and the last block of a model may ask for some
queries alone: then only their part is computed, forward and backward, but all keys and values.
"""

import math
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from .masked_attention import seen_keys

# Keys up to which P, [query, key] for each head, is worth its memory.
MOST_KEYS = 256


class _QKVAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, n_head, first, mask):
        batch, width = len(x), weight.shape[1] // 3
        if first == 0:
            qkv = _product(x, weight, bias)  # [batch, time, 3 * width]
            q, k, v = qkv.chunk(3, dim=-1)
        else:
            q = _product(x[:, first:], weight[:, :width], None if bias is None else bias[:width])
            kv = _product(x, weight[:, width:], None if bias is None else bias[width:])
            k, v = kv.chunk(2, dim=-1)
        query, key, value = (_by_head(part, n_head) for part in (q, k, v))
        query.mul_(1 / math.sqrt(query.shape[-1]))
        p = _weights(query, key, mask)  # [batch * head, query, key]
        heads = _side_by_side(torch.bmm(p, value), batch)
        ctx.save_for_backward(x, weight, query, key, value, p, heads)
        ctx.first, ctx.has_bias = first, bias is not None
        return heads

    @staticmethod
    @once_differentiable
    def backward(ctx, d_heads):
        x, weight, query, key, value, p, heads = ctx.saved_tensors
        batch, time, d_model = x.shape
        n_head, width, first = len(query) // batch, heads.shape[-1], ctx.first
        d_output = _by_head(d_heads, n_head)
        # d_score = p·(d_p − Σ p·d_p), and that sum is heads·d_heads, [batch, query, head].
        sums = (heads * d_heads).unflatten(-1, (n_head, -1)).sum(-1)
        d_scores = torch.bmm(d_output, value.mT)
        d_scores.sub_(sums.transpose(1, 2).reshape(len(query), -1, 1)).mul_(p)
        d_qkv = x.new_empty(batch, time, 3 * width)
        d_q, d_k, d_v = d_qkv.chunk(3, dim=-1)
        _write(d_q[:, first:], torch.bmm(d_scores, key), 1 / math.sqrt(query.shape[-1]))
        _write(d_k, torch.bmm(d_scores.mT, query), 1)
        _write(d_v, torch.bmm(p.mT, d_output), 1)
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        ranges = [slice(0, 3 * width)] if first == 0 else [slice(0, width), slice(width, 3 * width)]
        d_x, d_weight, d_bias = None, torch.empty_like(weight) if wants_weight else None, None
        if wants_bias:
            d_bias = x.new_empty(3 * width)
        # Keys and values last or alone: they are all positions', the queries' are some.
        for columns in ranges:
            begin = first if columns.start == 0 else 0
            d_rows = d_qkv[:, begin:, columns].reshape(-1, columns.stop - columns.start)
            if d_weight is not None:
                rows = x[:, begin:].reshape(-1, d_model)
                torch.mm(rows.T, d_rows, out=d_weight[:, columns])
            if d_bias is not None:
                torch.sum(d_rows, 0, out=d_bias[columns])
            if wants_x:
                part = (d_rows @ weight[:, columns].T).view(batch, -1, d_model)
                if d_x is not None:
                    part[:, first:] += d_x
                d_x = part
        return d_x, d_weight, d_bias, None, None, None


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return x [batch, time, d_model] W + b."""
    rows = x.reshape(-1, x.shape[-1])
    y = rows @ weight if bias is None else torch.addmm(bias, rows, weight)
    return y.view(*x.shape[:-1], -1)


def _by_head(x: torch.Tensor, n_head: int) -> torch.Tensor:
    """Copy heads [batch, time, head * d_head] -> [batch * head, time, d_head]."""
    heads = x.unflatten(-1, (n_head, -1)).transpose(1, 2)
    return heads.clone(memory_format=torch.contiguous_format).flatten(0, 1)


def _side_by_side(heads: torch.Tensor, batch: int) -> torch.Tensor:
    """Copy heads [batch * head, time, d_head] -> [batch, time, head * d_head]."""
    return heads.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2)


def _write(into: torch.Tensor, heads: torch.Tensor, scale: float) -> None:
    """Write scaled heads [batch * head, time, d_head] side by side, where they belong."""
    batch, n_head = len(into), len(heads) // len(into)
    source = heads.unflatten(0, (batch, n_head)).transpose(1, 2)
    torch.mul(source, scale, out=into.unflatten(-1, (n_head, -1)))


def _weights(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return the softmax of the scores [batch * head, query, key], 0 where nothing is seen."""
    scores = torch.bmm(query, key.mT)
    if mask is None:
        return scores.softmax(dim=-1)
    by_row = scores.unflatten(0, (len(mask), -1))  # a mask for each row of the batch, or for all
    by_row += torch.where(mask, 0.0, -math.inf).to(scores.dtype)[:, None]
    p = scores.softmax(dim=-1)
    blind = ~mask.any(dim=-1)  # [1 or batch, query]
    if blind.any():
        p.unflatten(0, (len(mask), -1)).masked_fill_(blind[:, None, :, None], 0.0)
    return p


def takes(x: torch.Tensor, dropout: float) -> bool:
    """Say whether `short_qkv_attention` is for this stream [batch, time, d_model].

    Parameters
    ----------
    x : torch.Tensor
    dropout : float
        Of the weights.

    Returns
    -------
    bool
    """
    exact = x.dtype in (torch.float32, torch.float64)
    small = 0 < x.shape[1] <= MOST_KEYS and len(x) > 0
    return exact and small and dropout == 0 and not torch.compiler.is_compiling()


def short_qkv_attention(
    x: torch.Tensor,
    w_qkv: torch.Tensor,
    b_qkv: torch.Tensor | None,
    *,
    n_head: int,
    first: int = 0,
    **masks: Any,
) -> torch.Tensor:
    """Compute `qkv_attention` of a stream that is normalised already.

    Parameters
    ----------
    x, w_qkv, b_qkv, n_head
        As in `qkv_attention`.
    first : int
        The first position that asks.
    **masks
        As in `masked_attention`.

    Returns
    -------
    torch.Tensor [batch, time - first, n_head * d_head]
    """
    seen = seen_keys(x.shape[1] - first, x.shape[1], x.device, **masks)
    return _QKVAttention.apply(x, w_qkv, b_qkv, n_head, first, seen)
