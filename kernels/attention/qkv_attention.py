"""QKV attention in Triton: two paths, neither of which copies a query, a key or a value.

Mathematics (core/attention/qkv_attention.py): packed = norm(x) · w + b, output = attention over its
heads.

                 packed                                          single
    x, w ─► projection kernel ─► packed buffer          x, w ─► one kernel ─► output
                                   │ views
                          attention kernel ─► output

packed  The projection's epilogue writes Q, K and V head-major with their bias into one buffer, and
        the attention kernels read it where it lies; backward they write dQ, dK and dV into one
        buffer of the same layout, which the projection's backward products read where it lies. The
        output is written through strides as [batch, time, head · d_head]: merged when it is
        written.
single  For a short context one kernel does it all (qkv_attention_short.py), and Q, K and V reach no
        memory. Its backward pass computes the packed buffer first, by the packed path's projection,
        and goes on like it: attention's backward kernels walk over tiles of it more than once.

Which one runs, `path` says, from shapes and options alone. Both round in the same places.

Memory, in elements, with x of n, w of m and the packed buffer of 3n: packed, forward: reads x, w
and 3n, writes 3n and n; with a norm x is read once more. Single: reads x and w, writes n. Backward
reads the packed buffer, output and d_output, writes d_packed (3n), reads that twice, and writes
d_x, d_w.

Deterministic, as its parts are.
"""

from typing import Any

import torch

from ...core.attention.qkv_attention import check_qkv_attention
from ...core.attention.qkv_projection import check_qkv_projection
from ...core.checks import refuse
from ..common.derivative import first_derivative_only
from ..common.launch import door, expect_same_dtype, runs_on_triton
from ..common.registered import registered
from .attention import attention_eager, attention_forward
from .attention_backward import attention_backward
from .attention_tiles import Masks
from .qkv_attention_short import MAX_D_HEAD, MAX_TIME, MIN_TIME, short_attention
from .qkv_projection import qkv_projection_eager, qkv_projection_forward
from .qkv_projection_backward import qkv_projection_backward

PATHS = ("packed", "single")
Views = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Norm = tuple[torch.Tensor, torch.Tensor] | None


def path(
    time: int,
    n_head: int,
    n_kv_head: int,
    d_head: int,
    *,
    dropout: float = 0.0,
    documents: bool = False,
) -> str:
    """Decide how to run: the rule.

    "single" where it can and where the context fills a quarter of the largest tile at least: with
    less, most of a tile's products would be padding, which the packed path's do not have.

    Returns
    -------
    str
        "packed" or "single".
    """
    possible = can_be_single(time, n_head, n_kv_head, d_head, dropout=dropout, documents=documents)
    return "single" if possible and time >= MIN_TIME else "packed"


def can_be_single(
    time: int,
    n_head: int,
    n_kv_head: int,
    d_head: int,
    *,
    dropout: float = 0.0,
    documents: bool = False,
) -> bool:
    """Say whether one launch can do it.

    A head's whole context must be one tile, with scores that are neither dropped nor cut into
    documents, and no key head may be shared (it would be computed for each of its query heads).

    Parameters
    ----------
    time : int
        Positions.
    n_head, n_kv_head, d_head : int
        Heads and their width.
    documents : bool
        Whether `cu_seqlens` is given.
    """
    one_tile = time <= MAX_TIME and d_head <= MAX_D_HEAD
    return one_tile and n_head == n_kv_head and dropout == 0 and not documents


def packed_views(packed: torch.Tensor, n_head: int) -> Views:
    """View a packed buffer as the queries, keys and values that attention takes.

    Parameters
    ----------
    packed : torch.Tensor [n_head + 2 * n_kv_head, batch, time, d_head]
        From `qkv_projection`, or its gradient.
    n_head : int
        Query heads.

    Returns
    -------
    query : torch.Tensor [batch, n_head, time, d_head]
    key, value : torch.Tensor [batch, n_kv_head, time, d_head]
        Views: no copies.
    """
    n_kv_head = (packed.shape[0] - n_head) // 2
    by_batch = packed.transpose(0, 1)  # [batch, n_heads, time, d_head]
    return (
        by_batch[:, :n_head],
        by_batch[:, n_head : n_head + n_kv_head],
        by_batch[:, n_head + n_kv_head :],
    )


@registered
def attend_packed(
    packed: torch.Tensor, n_head: int, masks: Masks, scale: float, dropout: float, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch attention on a packed buffer, the heads merged as they are written.

    Parameters
    ----------
    packed : torch.Tensor [n_head + 2 * n_kv_head, batch, time, d_head]
        From `qkv_projection`.
    n_head : int
        Query heads.
    masks : Masks
        From `Masks.of`.

    Returns
    -------
    output : torch.Tensor [batch, head, time, d_head]
        A view of memory that lies as [batch, time, head, d_head].
    lse : torch.Tensor of float32 [batch, head, time]
    """
    _, batch, time, d_head = packed.shape
    merged = torch.empty(batch, time, n_head, d_head, dtype=packed.dtype, device=packed.device)
    query, key, value = packed_views(packed, n_head)
    return attention_forward(
        query, key, value, masks, scale=scale, dropout=dropout, seed=seed,
        out=merged.transpose(1, 2),
    )  # fmt: skip


@registered
def attend_packed_backward(
    packed: torch.Tensor,
    n_head: int,
    output: torch.Tensor,
    lse: torch.Tensor,
    d_output: torch.Tensor,
    masks: Masks,
    scale: float,
    dropout: float,
    seed: int,
) -> torch.Tensor:
    """Launch attention's backward pass, all gradients written into one packed buffer.

    Parameters
    ----------
    packed, n_head, masks, scale, dropout, seed
        As for `attend_packed`.
    output, lse
        From `attend_packed`.
    d_output : torch.Tensor [batch, head, time, d_head]
        Any strides.

    Returns
    -------
    torch.Tensor [n_head + 2 * n_kv_head, batch, time, d_head]
    """
    d_packed = torch.empty_like(packed)
    d_query, d_key, d_value = packed_views(d_packed, n_head)
    attention_backward(
        *packed_views(packed, n_head), output, lse, d_output, None, masks,
        scale=scale, dropout=dropout, seed=seed, d_query=d_query, d_key=d_key, d_value=d_value,
    )  # fmt: skip
    return d_packed


class _QKVAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w_qkv, b_qkv, norm_weight, norm_bias, heads, eps, masks, options, chosen):
        norm: Norm = None if norm_weight is None else (norm_weight, norm_bias)
        n_head, n_heads = heads
        packed = statistics = None
        if chosen == "single":
            output, lse = short_attention(
                x, w_qkv, b_qkv, norm, masks, n_head=n_head, eps=eps, scale=options["scale"]
            )
        else:
            packed, statistics = qkv_projection_forward(x, w_qkv, b_qkv, norm, n_heads, eps)
            output, lse = attend_packed(packed, n_head, masks, **options)
        ctx.save_for_backward(
            x, w_qkv, b_qkv, norm_weight, norm_bias, packed, statistics, output, lse, *masks[2:]
        )
        ctx.settings = heads, eps, masks.holding(None, None, None), options
        # [batch, time, head * d_head], the same memory; detached it counts as no view, which
        # autograd would let nobody write into.
        return output.transpose(1, 2).flatten(2).detach()

    @staticmethod
    @first_derivative_only("qkv_attention")
    def backward(ctx, d_result):
        x, w_qkv, b_qkv, norm_weight, norm_bias, packed, statistics, *kept = ctx.saved_tensors
        output, lse, *of_masks = kept
        (n_head, n_heads), eps, masks, options = ctx.settings
        masks = masks.holding(*of_masks)
        norm: Norm = None if norm_weight is None else (norm_weight, norm_bias)
        padding = masks.padding(x.shape[1])
        if padding is not None:
            # Their rows get no gradient, but 0 · NaN would be one of the weights'.
            x = x.masked_fill(padding[..., None], 0)
            if statistics is not None:
                rows = padding.expand(x.shape[:2]).reshape(-1)
                statistics = statistics.masked_fill(rows, 0)
        if packed is None:
            packed, statistics = qkv_projection_forward(x, w_qkv, b_qkv, norm, n_heads, eps)
        d_output = d_result.unflatten(-1, (n_head, packed.shape[-1])).transpose(1, 2)
        d_packed = attend_packed_backward(packed, n_head, output, lse, d_output, masks, **options)
        wants = ctx.needs_input_grad
        gradients = qkv_projection_backward(
            x,
            w_qkv,
            norm,
            statistics,
            d_packed,
            wants_rows=wants[0] or wants[3] or wants[4],
            wants_weight=wants[1] or wants[2],
        )
        wanted = (d if wants[i] else None for i, d in enumerate(gradients))
        return *wanted, *(None,) * 5


def qkv_attention(
    x: torch.Tensor,
    w_qkv: torch.Tensor,
    b_qkv: torch.Tensor | None = None,
    norm_weight: torch.Tensor | None = None,
    norm_bias: torch.Tensor | None = None,
    *,
    n_head: int,
    n_kv_head: int | None = None,
    eps: float = 1e-5,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    key_start: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    force_path: str | None = None,
) -> torch.Tensor:
    """Project and attend; the twin of `gptwin.core.attention.qkv_attention.qkv_attention`.

    Parameters
    ----------
    x, w_qkv, b_qkv, norm_weight, norm_bias, n_head, n_kv_head, eps
        As in `qkv_projection`.
    scale, causal, window, key_start, cu_seqlens, dropout, seed
        As in `attention`; causal unless said otherwise.
    force_path : None, "packed" or "single"
        None follows the rule of `path`; the others are for comparing. "single" takes at most
        MAX_TIME positions, as many key heads as query heads, and neither dropout nor documents.

    Returns
    -------
    torch.Tensor [batch, time, n_head * d_head]
        Contiguous, of `x`'s dtype: what the output projection takes.

    Raises
    ------
    ValueError
        If shapes, dtypes, devices, head counts or masks do not fit.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    n_heads = check_qkv_projection(x, w_qkv, b_qkv, norm_weight, norm_bias, n_head, n_kv_head, eps)
    n_head, n_kv_head = int(n_head), int(n_head if n_kv_head is None else n_kv_head)
    masked: dict[str, Any] = {
        "causal": causal, "window": window, "key_start": key_start, "cu_seqlens": cu_seqlens,
    }  # fmt: skip
    check_qkv_attention(
        x, w_qkv, n_head, n_kv_head, scale=scale, dropout=dropout, seed=seed, **masked
    )
    given: dict[str, Any] = {
        "x": x, "w_qkv": w_qkv, "b_qkv": b_qkv, "norm_weight": norm_weight, "norm_bias": norm_bias,
    }  # fmt: skip
    expect_same_dtype(**given)
    time, d_head = x.shape[1], w_qkv.shape[1] // n_heads
    shape, documents = (time, n_head, n_kv_head, d_head), cu_seqlens is not None
    chosen = _chosen_path(force_path, *shape, dropout=dropout, documents=documents)
    if runs_on_triton("qkv_attention", **given, key_start=key_start, cu_seqlens=cu_seqlens):
        scale = d_head**-0.5 if scale is None else float(scale)
        options = {"scale": scale, "dropout": float(dropout), "seed": int(seed)}
        masks = Masks.of(time, **masked)
        return _QKVAttention.apply(*given.values(), (n_head, n_heads), eps, masks, options, chosen)
    return qkv_attention_eager(
        **given, n_head=n_head, n_kv_head=n_kv_head, eps=eps, scale=scale, dropout=dropout,
        seed=seed, **masked,
    )  # fmt: skip


def _chosen_path(wish: str | None, *shape: int, **options: Any) -> str:
    """Follow the rule, or what was asked for if it is possible."""
    if wish not in (None, *PATHS):
        refuse("force_path", "None, 'packed' or 'single'", repr(wish))
    if wish == "single" and not can_be_single(*shape, **options):
        refuse(
            "force_path",
            "'packed' for this call",
            "'single'",
            f"more than {MAX_TIME} positions or {MAX_D_HEAD} numbers a head, shared key heads, "
            "dropout, or documents",
        )
    if wish is None and door().batch_invariant:
        return "packed"  # as with a cache (kernels/model/kv_cache.py), for texts of any length
    return wish or path(*shape, **options)


def qkv_attention_eager(
    x: torch.Tensor,
    w_qkv: torch.Tensor,
    b_qkv: torch.Tensor | None = None,
    norm_weight: torch.Tensor | None = None,
    norm_bias: torch.Tensor | None = None,
    *,
    n_head: int,
    n_kv_head: int | None = None,
    eps: float = 1e-5,
    causal: bool = True,
    **options: Any,
) -> torch.Tensor:
    """Compute the same in plain PyTorch, for the CPU and as a yardstick.

    Parameters
    ----------
    **options
        `scale`, `window`, `key_start`, `cu_seqlens`, `dropout` and `seed`, as in `attention`.
    """
    names = ("window", "key_start", "cu_seqlens")
    masks = Masks.of(x.shape[1], causal=causal, **{n: options.get(n) for n in names})
    padding = masks.padding(x.shape[1])
    if padding is not None:
        x = x.masked_fill(padding[..., None], 0)
    packed = qkv_projection_eager(
        x, w_qkv, b_qkv, norm_weight, norm_bias, n_head=n_head, n_kv_head=n_kv_head, eps=eps
    )
    output, _ = attention_eager(*packed_views(packed, n_head), causal=causal, **options)
    return output.transpose(1, 2).flatten(2)  # [batch, head, time, d] -> [batch, time, head * d]
