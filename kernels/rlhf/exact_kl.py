"""Exact KL in Triton: two rows of logits in, one number out, in one pass over the vocabulary.

Mathematics (core/rlhf/exact_kl.py): with maxima m and sums s of e^(logit − m) of both rows,

    KL = Σ_j e^(x[j] − m_p)·((x[j] − m_p) − (y[j] − m_q)) / s_p − log s_p + log s_q
    d_x = p·((log p − log q) − KL)·d,   d_y = (q − p)·d

Tiling. Forward: one program = BLOCK_ROWS rows, walked in blocks of BLOCK_KEYS logits (one block
where the vocabulary fits), with five running numbers a row. Where a block raises a maximum, the
sums so far are relative to the old one: m_p rescales them, and both shift the bracket.

    x ┌───────┬───────┬───────┬──┐
      │ ──────► m_p, s_p, Σ      │  one pass, both rows side by side
    y ├───────┼───────┼───────┼──┤
      │ ──────► m_q, s_q         │
      └───────┴───────┴───────┴──┘

Backward: one program = a tile of rows and logits; p and q are rebuilt from five saved numbers a
row, so no [tokens, vocab] probabilities are ever written.

Memory: forward reads both rows once and writes 6 numbers; backward reads both once and writes both
gradients once: the fewest bytes there can be. A row outside the mask is not read. Any strides.
Deterministic: nothing crosses a row.
"""

import math

import torch

from ...core.rlhf.exact_kl import check_exact_kl
from ..common._triton import tl, triton
from ..common.derivative import first_derivative_only
from ..common.indices import expect_countable
from ..common.launch import expect_same_dtype, launch, runs_on_triton
from ..common.strided import block_at, strided

# Wider vocabularies are walked in blocks of this many logits.
MAX_BLOCK = 2048
EXACT_KL_CONFIGS = [
    triton.Config({"TILE": 1024}, num_warps=4),
    triton.Config({"TILE": 2048}, num_warps=8),
]

_LOG2_E = tl.constexpr(math.log2(math.e))
_LN_2 = tl.constexpr(math.log(2))
# What forward keeps of a row: m_p, log s_p (+inf: the row counts for nothing), m_q, log s_q, KL.
_N_KEPT = tl.constexpr(5)


@triton.autotune(EXACT_KL_CONFIGS, key=["BLOCK_KEYS", "n_keys"])
@triton.jit
def exact_kl_forward_kernel(
    x,  # Strided [row, key]: policy logits
    y,  # Strided [row, key]: reference logits
    mask_ptr,  # int8 [row]
    kl_ptr,  # float32 [row]
    kept_ptr,  # float32 [row, 5]
    n_rows,
    n_keys,
    BLOCK_KEYS: tl.constexpr,
    TILE: tl.constexpr,
):
    """KL of BLOCK_ROWS rows: `exact_kl_online`."""
    BLOCK_ROWS: tl.constexpr = (TILE + BLOCK_KEYS - 1) // BLOCK_KEYS
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    live = (rows < n_rows) & (tl.load(mask_ptr + rows, mask=rows < n_rows, other=0) != 0)
    max_p = tl.full([BLOCK_ROWS], -float("inf"), tl.float32)
    max_q = tl.full([BLOCK_ROWS], -float("inf"), tl.float32)
    sum_p = tl.zeros([BLOCK_ROWS], tl.float32)
    sum_q = tl.zeros([BLOCK_ROWS], tl.float32)
    cross = tl.zeros([BLOCK_ROWS], tl.float32)
    impossible = tl.zeros([BLOCK_ROWS], tl.int32)
    for start in range(0, n_keys, BLOCK_KEYS):
        keys = (start + tl.arange(0, BLOCK_KEYS)).to(tl.int64)
        read = live[:, None] & (keys < n_keys)[None, :]
        x_at, y_at = block_at(x, rows, keys), block_at(y, rows, keys)
        x_tile = tl.load(x_at, mask=read, other=-float("inf")).to(tl.float32)
        y_tile = tl.load(y_at, mask=read, other=-float("inf")).to(tl.float32)
        new_p = tl.maximum(max_p, tl.max(x_tile, axis=1))
        new_q = tl.maximum(max_q, tl.max(y_tile, axis=1))
        # A row that has seen nothing: subtract 0, since -inf - (-inf) is NaN.
        pivot_p = tl.where(new_p == -float("inf"), 0.0, new_p)
        pivot_q = tl.where(new_q == -float("inf"), 0.0, new_q)
        rise_p = tl.where(sum_p == 0.0, 0.0, max_p - pivot_p)
        rise_q = tl.where(sum_q == 0.0, 0.0, max_q - pivot_q)
        rescale = tl.exp2(rise_p * _LOG2_E)

        seen = x_tile != -float("inf")
        both = seen & (y_tile != -float("inf"))
        from_p = x_tile - pivot_p[:, None]
        from_q = y_tile - pivot_q[:, None]
        weight = tl.exp2(from_p * _LOG2_E)
        gap = tl.where(seen, from_p, 0.0) - tl.where(both, from_q, 0.0)
        cross = (cross + sum_p * (rise_p - rise_q)) * rescale + tl.sum(weight * gap, axis=1)
        sum_p = sum_p * rescale + tl.sum(weight, axis=1)
        sum_q = sum_q * tl.exp2(rise_q * _LOG2_E) + tl.sum(tl.exp2(from_q * _LOG2_E), axis=1)
        impossible = tl.maximum(impossible, tl.max((seen & (both == 0)).to(tl.int32), axis=1))
        max_p = new_p
        max_q = new_q

    nothing = sum_p == 0.0  # outside the mask, or p = 0 everywhere
    log_p = tl.log2(tl.where(nothing, 1.0, sum_p)) * _LN_2
    log_q = tl.log2(tl.where(sum_q == 0.0, 1.0, sum_q)) * _LN_2
    kl = cross / tl.where(nothing, 1.0, sum_p) - log_p + log_q
    kl = tl.where((impossible != 0) & (kl == kl), float("inf"), kl)
    kl = tl.where(nothing | (kl < 0.0), 0.0, kl)
    inside = rows < n_rows
    tl.store(kl_ptr + rows, kl, mask=inside)
    kept_at = kept_ptr + rows * _N_KEPT
    tl.store(kept_at, tl.where(max_p == -float("inf"), 0.0, max_p), mask=inside)
    tl.store(kept_at + 1, tl.where(nothing, float("inf"), log_p), mask=inside)
    tl.store(kept_at + 2, tl.where(max_q == -float("inf"), 0.0, max_q), mask=inside)
    tl.store(kept_at + 3, log_q, mask=inside)
    tl.store(kept_at + 4, kl, mask=inside)


@triton.autotune(EXACT_KL_CONFIGS, key=["BLOCK_KEYS", "n_keys"])
@triton.jit
def exact_kl_backward_kernel(
    x,  # Strided [row, key]
    y,  # Strided [row, key]
    kept_ptr,  # float32 [row, 5]
    d_kl_ptr,
    d_x_ptr,  # contiguous
    d_y_ptr,  # contiguous
    n_rows,
    n_keys,
    BLOCK_KEYS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Gradients of a tile of rows and logits."""
    BLOCK_ROWS: tl.constexpr = (TILE + BLOCK_KEYS - 1) // BLOCK_KEYS
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    keys = tl.program_id(1).to(tl.int64) * BLOCK_KEYS + tl.arange(0, BLOCK_KEYS)
    inside = rows < n_rows
    kept_at = kept_ptr + rows * _N_KEPT
    max_p = tl.load(kept_at, mask=inside, other=0.0)
    log_p = tl.load(kept_at + 1, mask=inside, other=float("inf"))
    max_q = tl.load(kept_at + 2, mask=inside, other=0.0)
    log_q = tl.load(kept_at + 3, mask=inside, other=0.0)
    kl = tl.load(kept_at + 4, mask=inside, other=0.0)
    live = log_p != float("inf")
    d = tl.load(d_kl_ptr + rows, mask=live, other=0.0)
    d = tl.where(kl == float("inf"), float("nan"), d)

    read = live[:, None] & (keys < n_keys)[None, :]
    x_at, y_at = block_at(x, rows, keys), block_at(y, rows, keys)
    x_tile = tl.load(x_at, mask=read, other=-float("inf")).to(tl.float32)
    y_tile = tl.load(y_at, mask=read, other=-float("inf")).to(tl.float32)
    from_p = x_tile - max_p[:, None] - log_p[:, None]  # log p
    from_q = y_tile - max_q[:, None] - log_q[:, None]  # log q
    p = tl.exp2(from_p * _LOG2_E)
    q = tl.exp2(from_q * _LOG2_E)
    seen = x_tile != -float("inf")
    surprise = tl.where(seen, from_p - from_q, 0.0)
    d_x = p * (surprise - kl[:, None]) * d[:, None]
    d_y = (q - p) * d[:, None]

    at = rows[:, None] * n_keys + keys[None, :]
    written = inside[:, None] & (keys < n_keys)[None, :]
    tl.store(d_x_ptr + at, tl.where(live[:, None], d_x, 0.0), mask=written)
    tl.store(d_y_ptr + at, tl.where(live[:, None], d_y, 0.0), mask=written)


def exact_kl_forward(
    logits: torch.Tensor, reference_logits: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the forward kernel for checked arguments.

    Parameters
    ----------
    logits, reference_logits, mask
        As in `exact_kl`.

    Returns
    -------
    kl : torch.Tensor of float32 [...]
    kept : torch.Tensor of float32 [row, 5]
        What backward needs of each row.
    """
    n_keys = logits.shape[-1]
    x, y = logits.reshape(-1, n_keys), reference_logits.reshape(-1, n_keys)
    n_rows = len(x)
    expect_countable("exact_kl", logits=n_keys)
    kl = torch.empty(mask.shape, dtype=torch.float32, device=x.device)
    kept = torch.empty(n_rows, 5, dtype=torch.float32, device=x.device)
    block = min(triton.next_power_of_2(n_keys), MAX_BLOCK)
    launch(
        exact_kl_forward_kernel,
        lambda meta: (triton.cdiv(n_rows, triton.cdiv(meta["TILE"], block)),),
        *(strided(x), strided(y), mask.contiguous().view(torch.int8), kl, kept, n_rows, n_keys),
        BLOCK_KEYS=block,
    )
    return kl, kept


def exact_kl_backward(
    logits: torch.Tensor, reference_logits: torch.Tensor, kept: torch.Tensor, d_kl: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the backward kernel.

    Parameters
    ----------
    logits, reference_logits
        As in `exact_kl`.
    kept : torch.Tensor [row, 5]
        From `exact_kl_forward`.
    d_kl : torch.Tensor [...]
        Gradient of the result, contiguous.

    Returns
    -------
    d_logits, d_reference_logits : torch.Tensor [..., vocab]
        Contiguous.
    """
    n_keys = logits.shape[-1]
    x, y = logits.reshape(-1, n_keys), reference_logits.reshape(-1, n_keys)
    n_rows = len(x)
    d_x = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    d_y = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    block = min(triton.next_power_of_2(n_keys), MAX_BLOCK)
    launch(
        exact_kl_backward_kernel,
        lambda meta: (
            triton.cdiv(n_rows, triton.cdiv(meta["TILE"], block)),
            triton.cdiv(n_keys, block),
        ),
        *(strided(x), strided(y), kept, d_kl, d_x, d_y, n_rows, n_keys),
        BLOCK_KEYS=block,
    )
    return d_x, d_y


class _ExactKl(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, reference_logits, mask):
        kl, kept = exact_kl_forward(logits, reference_logits, mask)
        ctx.save_for_backward(logits, reference_logits, kept)
        return kl

    @staticmethod
    @first_derivative_only("exact_kl")
    def backward(ctx, d_kl):
        return *exact_kl_backward(*ctx.saved_tensors, d_kl.contiguous()), None


def exact_kl(
    logits: torch.Tensor, reference_logits: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Compute KL(π‖π_ref) of each row; the twin of `gptwin.core.rlhf.exact_kl.exact_kl`.

    Parameters
    ----------
    logits, reference_logits : torch.Tensor [..., vocab]
        float32, float16 or bfloat16, both the same; any strides. Computed in float32.
    mask : torch.Tensor of bool [...]
        True at the rows that count.

    Returns
    -------
    torch.Tensor of float32 [...]
        In nats, not below 0; 0 outside the mask. A token of which the policy gives any probability
        and the reference none (a logit of −inf) makes it +inf, and the row's gradients NaN.

    Raises
    ------
    ValueError
        If a shape, dtype or device is wrong.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    check_exact_kl(logits, reference_logits, mask)
    expect_same_dtype(logits=logits, reference_logits=reference_logits)
    if runs_on_triton("exact_kl", logits=logits, reference_logits=reference_logits, mask=mask):
        return _ExactKl.apply(logits, reference_logits, mask)
    return exact_kl_eager(logits, reference_logits, mask)


def exact_kl_eager(
    logits: torch.Tensor, reference_logits: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Compute the same in plain PyTorch, for the CPU and as a yardstick.

    Parameters
    ----------
    logits, reference_logits, mask
        As in `exact_kl`; float64 is allowed and gives float64.
    """
    if logits.dtype != torch.float64:
        logits, reference_logits = logits.float(), reference_logits.float()
    gone = logits == -math.inf
    nowhere = (~mask | gone.all(dim=-1))[..., None]  # rows that count for nothing: all zeros below
    log_p = logits.masked_fill(nowhere, 0).log_softmax(dim=-1)
    absent = reference_logits == -math.inf
    impossible = (absent & ~gone).any(dim=-1) & ~nowhere[..., 0]
    reference_logits = reference_logits.view_as(reference_logits)  # keeps the hook off the caller's
    for tensor in (log_p, reference_logits):
        if tensor.requires_grad:
            # An infinite KL has no gradient; masked_fill alone would make it 0.
            # None comes where nothing depends on the tensor, as in a second derivative.
            tensor.register_hook(
                lambda d: d if d is None else d.masked_fill(impossible[..., None], math.nan)
            )
    reference = reference_logits.masked_fill(nowhere | (absent & impossible[..., None]), 0)
    log_q = reference.log_softmax(dim=-1)
    surprise = log_p.masked_fill(gone, 0) - log_q.masked_fill(gone, 0)
    kl = (log_p.exp() * surprise).sum(dim=-1)
    kl = torch.where(kl < 0, kl - kl.detach(), kl)  # 0, with the gradient that it has
    kl = kl.masked_fill(impossible & ~kl.isnan(), math.inf)
    return kl.masked_fill(nowhere[..., 0], 0)
