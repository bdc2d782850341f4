"""The decoder block in Triton: eight kernels forward, each byte of the stream moved once a branch.

Mathematics and both orders of the norms: core/model/decoder_block.py. This file launches nothing
itself; it composes, and what it gains lies in what it lets the parts fuse:

    pre-LN                                        kernels forward
    heads  = qkv_attention(x; ln_1)               norm, product with bias, attention, which reads
                                                  and writes heads through strides: no transpose
    branch = linear(heads)                        product with bias
    z, s   = layer_norm(branch, residual=x; ln_2) addition and norm: the stream s is written once
    h      = linear(z, gelu)                      product with bias and GELU
    y      = linear(h, residual=s)                product with bias and addition

    post-LN: n = layer_norm(heads·proj, residual=x; ln_1), then both linears and
             y = layer_norm(branch, residual=n; ln_2)

The first addition goes with the norm instead of the product before it, although the product could
take it, too: backward, the norm then adds the stream's gradient to its own, and no kernel runs for
that addition alone. In elements of the stream moved: 9 instead of 10, and one launch fewer.

Kept for backward: x, what attention keeps (q, k, v, heads, a number a query), s, z, GELU's input
and output, and the norms' statistics: about 17·d_model numbers a token. With checkpointing
(kernels/model/gpt.py) it is x alone, and the block runs twice.

Attention is a parameter of `run_block`: training attends within the sequence, generation to a cache
(kv_cache.py). Deterministic, as its parts are.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from ...core.attention.key_intervals import check_attention
from ...core.model.decoder_block import ARGUMENTS, check_decoder_block
from ...core.model.presets import GPTConfig
from ..attention.attention import attention
from ..attention.attention_tiles import Masks
from ..attention.qkv_attention import qkv_attention
from ..attention.sdpa import masked_attention
from ..common.launch import expect_same_dtype, runs_on_triton
from ..language.cross_entropy import cross_entropy
from ..layers.embedding import embedding
from ..layers.layer_norm import layer_norm, layer_norm_eager
from ..layers.linear import linear, linear_eager

# (x, w_qkv, b_qkv, norm_weight, norm_bias, first=) -> heads [batch, time - first, n_head * d_head]
Attend = Callable[..., torch.Tensor]


def norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    residual: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Any:
    """Normalise by the kernel, which knows no missing bias.

    Parameters
    ----------
    bias : torch.Tensor [d_model] or None
        None is 0.
    """
    bias = torch.zeros_like(weight) if bias is None else bias
    return layer_norm(x, weight, bias, residual=residual, eps=eps)


def qkv_attention_eager(
    x: torch.Tensor,
    w_qkv: torch.Tensor,
    b_qkv: torch.Tensor | None,
    norm_weight: torch.Tensor | None,
    norm_bias: torch.Tensor | None,
    *,
    n_head: int,
    eps: float,
    first: int = 0,
    dropout: float = 0.0,
    seed: int = 0,
    **masks: Any,
) -> torch.Tensor:
    """Compute `qkv_attention` by what is fastest on a CPU, which its yardstick does not use.

    Parameters
    ----------
    first : int
        The first position that asks.
    """
    if norm_weight is not None:
        x = layer_norm_eager(x, norm_weight, norm_bias, eps=eps)
    query, key, value = split_heads(linear_eager(x, w_qkv, b_qkv), n_head)
    query = query[:, :, first:] if first else query
    return merge_heads(masked_attention(query, key, value, dropout=dropout, seed=seed, **masks))


def _qkv_attention(
    x: torch.Tensor,
    w_qkv: torch.Tensor,
    b_qkv: torch.Tensor | None,
    norm_weight: torch.Tensor | None,
    norm_bias: torch.Tensor | None,
    first: int = 0,
    **options: Any,
) -> torch.Tensor:
    if norm_weight is not None and norm_bias is None:
        norm_bias = torch.zeros_like(norm_weight)
    return qkv_attention(x, w_qkv, b_qkv, norm_weight, norm_bias, **options)[:, first:]


def _attention_output(*args: Any, **options: Any) -> torch.Tensor:
    return attention(*args, **options)[0]


def _mlp(
    x: torch.Tensor,
    fc_weight: torch.Tensor,
    fc_bias: torch.Tensor | None,
    proj_weight: torch.Tensor,
    proj_bias: torch.Tensor | None,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    hidden = linear(x, fc_weight, fc_bias, activation="gelu")
    return linear(hidden, proj_weight, proj_bias, residual=residual)


def _mlp_eager(
    x: torch.Tensor,
    fc_weight: torch.Tensor,
    fc_bias: torch.Tensor | None,
    proj_weight: torch.Tensor,
    proj_bias: torch.Tensor | None,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    hidden = linear_eager(x, fc_weight, fc_bias, activation="gelu")
    return linear_eager(hidden, proj_weight, proj_bias, residual=residual)


def _mean_loss(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, *, ignore_index: int = -100
) -> torch.Tensor:
    return cross_entropy(hidden, weight, targets, ignore_index=ignore_index)[0]


def _embed(
    tokens: torch.Tensor,
    token_table: torch.Tensor,
    position_table: torch.Tensor,
    *,
    positions: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    return embedding(tokens, token_table, position_table, positions=positions), token_table


class Parts(NamedTuple):
    """What a model is composed of, on one backend; `attention` fills a cache."""

    layer_norm: Callable[..., Any]
    linear: Callable[..., torch.Tensor]
    mlp: Callable[..., torch.Tensor]
    qkv_attention: Callable[..., torch.Tensor]
    attention: Callable[..., torch.Tensor]
    # (tokens, token_table, position_table, positions=) -> x, and the token table to be a tied head
    embed: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    loss: Callable[..., torch.Tensor]
    # (parameters, cache, layer, config, parts) -> a block for one new token a row (decode_step.py)
    bind: Callable[..., Callable[[torch.Tensor], torch.Tensor]]


def split_heads(qkv: torch.Tensor, n_head: int) -> tuple[torch.Tensor, ...]:
    """Take queries, keys and values apart, as views.

    Parameters
    ----------
    qkv : torch.Tensor [batch, time, 3 * n_head * d_head]
        All queries, all keys, all values.
    n_head : int

    Returns
    -------
    query, key, value : torch.Tensor [batch, head, time, d_head]
    """
    # [batch, time, 3 * n_head * d_head] -> 3 x [batch, head, time, d_head]. The cut comes first,
    # so that backward puts the three gradients side by side in one copy of whole rows.
    batch, time, width = qkv.shape
    apart = qkv.view(batch, time, 3, n_head, width // (3 * n_head))
    return tuple(part.transpose(1, 2) for part in apart.unbind(2))


def merge_heads(output: torch.Tensor) -> torch.Tensor:
    """Put the heads' outputs side by side.

    Parameters
    ----------
    output : torch.Tensor [batch, head, time, d_head]

    Returns
    -------
    torch.Tensor [batch, time, n_head * d_head]
        A view if `output` lies in memory like that already.
    """
    return output.transpose(1, 2).flatten(2)


class _Heads(NamedTuple):
    """What a check looks at of a query that is not there yet."""

    shape: tuple[int, ...]


def check_masks(
    x: torch.Tensor, n_head: int, d_head: int, causal: bool, window: Any, **masks: Any
) -> None:
    """Refuse masks that do not fit the stream, before anything runs.

    Parameters
    ----------
    x : torch.Tensor [batch, time, ...]
        The stream, or its tokens.
    n_head, d_head : int
        The heads that the stream will be split into.
    **masks
        `key_start` and `cu_seqlens`, as in `attention`.

    Raises
    ------
    ValueError
        Naming the mask.
    """
    heads = _Heads((x.shape[0], n_head, x.shape[1], d_head))
    check_attention(
        heads, heads, heads, None, causal, window, masks["key_start"], masks["cu_seqlens"], 0.0, 0
    )


def run_block(
    x: torch.Tensor,
    parameters: Sequence[Any],
    attend: Attend,
    *,
    parts: Parts,
    norm: str,
    eps: float,
    dropout: float = 0.0,
    first: int = 0,
) -> torch.Tensor:
    """Compute a block whose attention is `attend`; checks nothing.

    Parameters
    ----------
    x : torch.Tensor [batch, time, d_model]
    parameters : sequence of (torch.Tensor or None)
        The twelve parameters, in the order of `decoder_block`.
    attend : callable
        As `Parts.qkv_attention`, with its options given.
    parts : Parts
        Of the backend that runs.
    dropout : float
        Share of each branch's numbers that are zeroed on their way into the stream.
    first : int
        The first position that goes on: those before it are keys and values of the others alone.
    """
    ln_1, c_attn, attn_proj, ln_2, c_fc, mlp_proj = zip(
        parameters[::2], parameters[1::2], strict=True
    )

    def drop(branch: torch.Tensor) -> torch.Tensor:
        return functional.dropout(branch, dropout) if dropout > 0 else branch

    going = x[:, first:] if first else x
    if norm == "pre":
        branch = drop(parts.linear(attend(x, *c_attn, *ln_1, first=first), *attn_proj))
        z, stream = parts.layer_norm(branch, *ln_2, residual=going, eps=eps)
        if dropout > 0:
            return stream + drop(parts.mlp(z, *c_fc, *mlp_proj))
        return parts.mlp(z, *c_fc, *mlp_proj, stream)

    branch = drop(parts.linear(attend(x, *c_attn, None, None, first=first), *attn_proj))
    stream, _ = parts.layer_norm(branch, *ln_1, residual=going, eps=eps)
    branch = drop(parts.mlp(stream, *c_fc, *mlp_proj))
    return parts.layer_norm(branch, *ln_2, residual=stream, eps=eps)[0]


def bind_block(
    parameters: Sequence[Any], cache: Any, layer: int, config: GPTConfig, parts: Parts
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Bind a block to its layer of a cache.

    Parameters
    ----------
    parameters : sequence of (torch.Tensor or None)
        The twelve parameters, in the order of `decoder_block`.
    cache : KVCache
        Has begun the positions that a call computes.
    layer : int
        Whose part of the cache.
    config : GPTConfig
        The model's.
    parts : Parts
        Of the backend that runs.

    Returns
    -------
    callable
        Takes the stream [batch, time, d_model] through the block.
    """
    attend = functools.partial(
        cache.attend, layer=layer, parts=parts, eps=config.eps, window=config.window(layer)
    )
    return functools.partial(
        run_block, parameters=parameters, attend=attend, parts=parts, norm=config.norm,
        eps=config.eps,
    )  # fmt: skip


KERNELS = Parts(
    norm, linear, _mlp, _qkv_attention, _attention_output, _embed, _mean_loss, bind_block
)
EAGER = Parts(
    layer_norm_eager, linear_eager, _mlp_eager, qkv_attention_eager, masked_attention, _embed,
    _mean_loss, bind_block,
)  # fmt: skip


def decoder_block(
    x: torch.Tensor,
    ln_1_weight: torch.Tensor,
    ln_1_bias: torch.Tensor | None,
    c_attn_weight: torch.Tensor,
    c_attn_bias: torch.Tensor | None,
    attn_proj_weight: torch.Tensor,
    attn_proj_bias: torch.Tensor | None,
    ln_2_weight: torch.Tensor,
    ln_2_bias: torch.Tensor | None,
    c_fc_weight: torch.Tensor,
    c_fc_bias: torch.Tensor | None,
    mlp_proj_weight: torch.Tensor,
    mlp_proj_bias: torch.Tensor | None,
    *,
    n_head: int,
    norm: str = "pre",
    causal: bool = True,
    window: int | None = None,
    key_start: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Run one block; the twin of `gptwin.core.model.decoder_block.decoder_block`.

    Parameters
    ----------
    x : torch.Tensor [batch, time, d_model]
        The residual stream: float32, float16 or bfloat16, any strides.
    ln_1_weight, ln_1_bias, ln_2_weight, ln_2_bias : torch.Tensor [d_model]
        The norms. Any bias may be None.
    c_attn_weight, c_attn_bias : torch.Tensor [d_model, 3 * n_head * d_head] and its columns'
        Queries, keys and values in one product.
    attn_proj_weight, attn_proj_bias : torch.Tensor [n_head * d_head, d_model] and its columns'
        From the heads back to the stream.
    c_fc_weight, c_fc_bias : torch.Tensor [d_model, d_mlp] and its columns'
    mlp_proj_weight, mlp_proj_bias : torch.Tensor [d_mlp, d_model] and its columns'
    n_head : int
        Heads; their width follows from `c_attn_weight`.
    norm : str
        "pre" or "post".
    causal, window, key_start, cu_seqlens
        What a position sees, as in `attention`.
    eps : float
        Added to the variance in both norms.

    Returns
    -------
    torch.Tensor [batch, time, d_model]
        The stream after the block.

    Raises
    ------
    ValueError
        If a shape, dtype, device or option is wrong.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    parameters = (
        ln_1_weight, ln_1_bias, c_attn_weight, c_attn_bias, attn_proj_weight, attn_proj_bias,
        ln_2_weight, ln_2_bias, c_fc_weight, c_fc_bias, mlp_proj_weight, mlp_proj_bias,
    )  # fmt: skip
    check_decoder_block(x, *parameters, n_head=n_head, norm=norm, eps=eps)
    n_head = int(n_head)
    d_head = c_attn_weight.shape[1] // (3 * n_head)
    masks: dict[str, Any] = {
        "causal": causal, "window": window, "key_start": key_start, "cu_seqlens": cu_seqlens,
    }  # fmt: skip
    check_masks(x, n_head, d_head, **masks)
    floats = {"x": x} | dict(zip(ARGUMENTS, parameters, strict=True))
    expect_same_dtype(**floats)
    on_triton = runs_on_triton(
        "decoder_block", **floats, key_start=key_start, cu_seqlens=cu_seqlens
    )
    parts = KERNELS if on_triton else EAGER
    attend = functools.partial(parts.qkv_attention, n_head=n_head, eps=eps, **masks)
    x = finite_where_unseen(x, **masks)
    return run_block(x, parameters, attend, parts=parts, norm=norm, eps=eps)


def finite_where_unseen(x: torch.Tensor, **masks: Any) -> torch.Tensor:
    """Replace what is not finite by 0 at the positions that see nothing.

    A model's own stream is finite there, since its tables are; `GPT` does not come here.

    Parameters
    ----------
    x : torch.Tensor [batch, time, d_model]
        The stream.
    **masks
        As in `decoder_block`.

    Returns
    -------
    torch.Tensor [batch, time, d_model]
    """
    padding = Masks.of(x.shape[1], **masks).padding(x.shape[1])
    if padding is None:
        return x
    return x.masked_fill(padding[..., None] & ~x.isfinite(), 0)


def decoder_block_eager(
    x: torch.Tensor,
    ln_1_weight: torch.Tensor,
    ln_1_bias: torch.Tensor | None,
    c_attn_weight: torch.Tensor,
    c_attn_bias: torch.Tensor | None,
    attn_proj_weight: torch.Tensor,
    attn_proj_bias: torch.Tensor | None,
    ln_2_weight: torch.Tensor,
    ln_2_bias: torch.Tensor | None,
    c_fc_weight: torch.Tensor,
    c_fc_bias: torch.Tensor | None,
    mlp_proj_weight: torch.Tensor,
    mlp_proj_bias: torch.Tensor | None,
    n_head: int,
    norm: str = "pre",
    causal: bool = True,
    window: int | None = None,
    key_start: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Compute the same in plain PyTorch, as a yardstick."""
    masks: dict[str, Any] = {
        "causal": causal, "window": window, "key_start": key_start, "cu_seqlens": cu_seqlens,
    }  # fmt: skip
    x = finite_where_unseen(x, **masks)

    def normalise(weight: torch.Tensor, bias: torch.Tensor | None, rows: torch.Tensor) -> Any:
        return layer_norm_eager(rows, weight, bias, eps=eps)

    def attend(rows: torch.Tensor) -> torch.Tensor:
        heads = split_heads(linear_eager(rows, c_attn_weight, c_attn_bias), n_head)
        output = masked_attention(*heads, **masks)
        return linear_eager(merge_heads(output), attn_proj_weight, attn_proj_bias)

    def mlp(rows: torch.Tensor) -> torch.Tensor:
        hidden = linear_eager(rows, c_fc_weight, c_fc_bias, activation="gelu")
        return linear_eager(hidden, mlp_proj_weight, mlp_proj_bias)

    # Written out, not by `run_block`: a yardstick that shared its mistakes would hide them.
    if norm == "pre":
        stream = x + attend(normalise(ln_1_weight, ln_1_bias, x))
        return stream + mlp(normalise(ln_2_weight, ln_2_bias, stream))
    stream = normalise(ln_1_weight, ln_1_bias, x + attend(x))
    return normalise(ln_2_weight, ln_2_bias, stream + mlp(stream))
