"""Softmax in Triton: rows of any width, read from memory once where they fit on the chip.

Mathematics (core/layers/softmax.py): p[j] = exp(s·(x[j] − max)) / Σ; backward d_x = s·p·(d_p − Σ
p·d_p). GPUs have an instruction for 2^x, so exp(s·y) is computed as exp2(s·log₂e·y).

Tiling. Two paths, chosen by the row's width alone:

    narrow (≤ MAX_BLOCK keys)             wide
    one program = BLOCK_ROWS whole rows   one program = one row, walked in blocks
    ┌────────────────────────┐            ┌───────┬───────┬───────┬──┐
    │ program 0              │            │ ──────► running max, sum  │  pass 1
    ├────────────────────────┤            ├───────┼───────┼───────┼──┤
    │ program 1              │            │ ──────► probabilities     │  pass 2
    └────────────────────────┘            └───────┴───────┴───────┴──┘

Memory. Narrow: forward reads x once and writes p once, backward reads p and d_p once and writes
d_x once: the fewest bytes there can be. Wide: the inputs are read twice; the second time a row
comes from the L2 cache unless it is longer than that holds. Nothing is recomputed: backward needs
the probabilities alone, and masked keys have p = 0, so it never looks at a mask.

Deterministic: each element is written by one program, and no sum crosses programs.
"""

import math
from typing import Any, NamedTuple

import torch

from ...core.layers.softmax import check_softmax
from ..common._triton import tl, triton
from ..common.derivative import first_derivative_only
from ..common.indices import expect_countable
from ..common.launch import launch, runs_on_triton
from ..common.registered import registered
from ..common.strided import block_at, part_of, strided

LOG2_E = math.log2(math.e)

# Beyond this a row's scores no longer stay in one program's registers.
MAX_BLOCK = 8192
# Elements in flight per program: a thread holds TILE / (32 · num_warps) of them, 16 or 32.
NARROW_CONFIGS = [
    triton.Config({"TILE": 2048}, num_warps=4),
    triton.Config({"TILE": 4096}, num_warps=4),
    triton.Config({"TILE": 8192}, num_warps=8),
]
WIDE_FORWARD_CONFIGS = [
    triton.Config({"BLOCK_KEYS": 4096}, num_warps=8),
    triton.Config({"BLOCK_KEYS": 8192}, num_warps=16),
]
# Backward holds two tensors: blocks of 8192 would spill on sm_100.
WIDE_BACKWARD_CONFIGS = [
    triton.Config({"BLOCK_KEYS": 4096}, num_warps=8),
    triton.Config({"BLOCK_KEYS": 4096}, num_warps=16),
]


class Masks(NamedTuple):
    """Which keys a row of scores sees.

    Attributes
    ----------
    n_queries : int or None
        Row r is of query r % n_queries, which sees no later key; None: every row sees all keys.
    rows_per_batch : int
        Row r is of sequence r // rows_per_batch.
    key_mask : torch.Tensor of int8 [batch, key] or None
        0 where a key of a sequence is hidden; contiguous.
    """

    n_queries: Any
    rows_per_batch: Any
    key_mask: Any


@triton.jit
def _seen(rows, keys, n_rows, n_keys, masks):
    """Say which of these keys each row sees: [BLOCK_ROWS, BLOCK_KEYS], False outside the tensor."""
    seen = (rows < n_rows)[:, None] & (keys < n_keys)[None, :]
    if masks.n_queries is not None:
        last_seen = rows % masks.n_queries + (n_keys - masks.n_queries)
        seen = seen & (keys[None, :] <= last_seen[:, None])
    if masks.key_mask is not None:
        batch = rows // masks.rows_per_batch
        mask_at = masks.key_mask + batch[:, None] * n_keys + keys[None, :]
        seen = seen & (tl.load(mask_at, mask=seen, other=0) != 0)
    return seen


@triton.autotune(NARROW_CONFIGS, key=["BLOCK_KEYS"])
@triton.jit
def softmax_forward_kernel(
    scores,  # Strided [row, key]
    probabilities_ptr,  # [row, key] contiguous
    masks,  # Masks
    n_rows,
    n_keys,
    scale_log2_e,
    BLOCK_KEYS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Softmax of BLOCK_ROWS whole rows."""
    BLOCK_ROWS: tl.constexpr = (TILE + BLOCK_KEYS - 1) // BLOCK_KEYS
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    keys = tl.arange(0, BLOCK_KEYS)
    seen = _seen(rows, keys, n_rows, n_keys, masks)
    x = tl.load(block_at(scores, rows, keys), mask=seen, other=-float("inf"))
    x = x.to(tl.float32)  # [BLOCK_ROWS, BLOCK_KEYS]
    row_max = tl.max(x, axis=1)  # [BLOCK_ROWS]
    # A row that sees nothing: subtract 0, since -inf - (-inf) is NaN.
    pivot = tl.where(row_max == -float("inf"), 0.0, row_max)
    exponents = tl.exp2((x - pivot[:, None]) * scale_log2_e)
    total = tl.sum(exponents, axis=1)
    probabilities = exponents / tl.where(total == 0.0, 1.0, total)[:, None]

    inside = (rows < n_rows)[:, None] & (keys < n_keys)[None, :]
    probabilities_at = probabilities_ptr + rows[:, None] * n_keys + keys[None, :]
    tl.store(probabilities_at, probabilities, mask=inside)


@triton.autotune(WIDE_FORWARD_CONFIGS, key=["n_keys"])
@triton.jit
def softmax_forward_wide_kernel(
    scores,
    probabilities_ptr,
    masks,
    n_rows,
    n_keys,
    scale_log2_e,
    BLOCK_KEYS: tl.constexpr,
):
    """Softmax of one row in blocks: `softmax_online`, then a second pass that writes."""
    row = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)  # [1]
    running_max = tl.full([1], -float("inf"), tl.float32)
    running_sum = tl.zeros([1], tl.float32)
    for start in range(0, n_keys, BLOCK_KEYS):
        keys = start + tl.arange(0, BLOCK_KEYS)
        seen = _seen(row, keys, n_rows, n_keys, masks)
        x = tl.load(block_at(scores, row, keys), mask=seen, other=-float("inf"))
        x = x.to(tl.float32)  # [1, BLOCK_KEYS]
        new_max = tl.maximum(running_max, tl.max(x, axis=1))
        pivot = tl.where(new_max == -float("inf"), 0.0, new_max)
        # What was summed so far was relative to the old maximum.
        rescale = tl.exp2((running_max - pivot) * scale_log2_e)
        block_sum = tl.sum(tl.exp2((x - pivot[:, None]) * scale_log2_e), axis=1)
        running_sum = running_sum * rescale + block_sum
        running_max = new_max

    pivot = tl.where(running_max == -float("inf"), 0.0, running_max)
    total = tl.where(running_sum == 0.0, 1.0, running_sum)
    for start in range(0, n_keys, BLOCK_KEYS):
        keys = start + tl.arange(0, BLOCK_KEYS)
        seen = _seen(row, keys, n_rows, n_keys, masks)
        x = tl.load(block_at(scores, row, keys), mask=seen, other=-float("inf")).to(tl.float32)
        probabilities = tl.exp2((x - pivot[:, None]) * scale_log2_e) / total[:, None]
        probabilities_at = probabilities_ptr + row[:, None] * n_keys + keys[None, :]
        tl.store(probabilities_at, probabilities, mask=(keys < n_keys)[None, :])


@triton.autotune(NARROW_CONFIGS, key=["BLOCK_KEYS"])
@triton.jit
def softmax_backward_kernel(
    probabilities_ptr,  # contiguous
    d_probabilities,  # Strided [row, key]
    d_x_ptr,  # contiguous
    n_rows,
    n_keys,
    scale,
    BLOCK_KEYS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Gradient of BLOCK_ROWS whole rows."""
    BLOCK_ROWS: tl.constexpr = (TILE + BLOCK_KEYS - 1) // BLOCK_KEYS
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    keys = tl.arange(0, BLOCK_KEYS)
    inside = (rows < n_rows)[:, None] & (keys < n_keys)[None, :]

    at = rows[:, None] * n_keys + keys[None, :]
    p = tl.load(probabilities_ptr + at, mask=inside, other=0.0).to(tl.float32)
    d_p = tl.load(block_at(d_probabilities, rows, keys), mask=inside, other=0.0).to(tl.float32)
    coupling = tl.sum(p * d_p, axis=1)  # [BLOCK_ROWS]
    d_x = p * (d_p - coupling[:, None]) * scale
    tl.store(d_x_ptr + at, d_x, mask=inside)


@triton.autotune(WIDE_BACKWARD_CONFIGS, key=["n_keys"])
@triton.jit
def softmax_backward_wide_kernel(
    probabilities_ptr,
    d_probabilities,
    d_x_ptr,
    n_keys,
    scale,
    BLOCK_KEYS: tl.constexpr,
):
    """Gradient of one row in blocks: first Σ p·d_p, then d_x."""
    row = tl.program_id(0).to(tl.int64)
    d_row = part_of(d_probabilities, row)
    coupling = tl.zeros([BLOCK_KEYS], tl.float32)  # per lane; summed once at the end
    for start in range(0, n_keys, BLOCK_KEYS):
        keys = start + tl.arange(0, BLOCK_KEYS)
        inside = keys < n_keys
        p_at = probabilities_ptr + row * n_keys + keys
        d_at = d_row.ptr + keys.to(tl.int64) * d_row.strides[0]
        p = tl.load(p_at, mask=inside, other=0.0).to(tl.float32)
        coupling += p * tl.load(d_at, mask=inside, other=0.0).to(tl.float32)
    row_coupling = tl.sum(coupling, axis=0)

    for start in range(0, n_keys, BLOCK_KEYS):
        keys = start + tl.arange(0, BLOCK_KEYS)
        inside = keys < n_keys
        p_at = probabilities_ptr + row * n_keys + keys
        d_at = d_row.ptr + keys.to(tl.int64) * d_row.strides[0]
        p = tl.load(p_at, mask=inside, other=0.0).to(tl.float32)
        d_p = tl.load(d_at, mask=inside, other=0.0).to(tl.float32)
        tl.store(d_x_ptr + row * n_keys + keys, p * (d_p - row_coupling) * scale, mask=inside)


@registered
def softmax_forward(
    x: torch.Tensor, scale: float, causal: bool, key_mask: torch.Tensor | None
) -> torch.Tensor:
    """Launch the forward kernel for checked arguments.

    Parameters
    ----------
    x, scale, causal, key_mask
        As in `softmax`.

    Returns
    -------
    torch.Tensor
        The probabilities, contiguous.
    """
    probabilities = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if x.numel() == 0:
        return probabilities
    n_keys = x.shape[-1]
    expect_countable("softmax", keys=n_keys)
    scores = x.reshape(-1, n_keys)  # [..., key] -> [row, key]: a view where the strides allow
    n_rows = scores.shape[0]
    masks = Masks(
        x.shape[-2] if causal else None,
        n_rows // x.shape[0],
        None if key_mask is None else key_mask.contiguous().view(torch.int8),
    )
    args = (strided(scores), probabilities, masks, n_rows, n_keys, scale * LOG2_E)
    if n_keys <= MAX_BLOCK:
        block = triton.next_power_of_2(n_keys)
        launch(softmax_forward_kernel, _narrow_grid(n_rows, block), *args, BLOCK_KEYS=block)
    else:
        launch(softmax_forward_wide_kernel, (n_rows,), *args)
    return probabilities


@registered
def softmax_backward(
    probabilities: torch.Tensor, d_probabilities: torch.Tensor, scale: float
) -> torch.Tensor:
    """Launch the backward kernel.

    Parameters
    ----------
    probabilities : torch.Tensor
        From `softmax_forward`.
    d_probabilities : torch.Tensor
        Their gradient, with any strides.
    scale : float
        As in `softmax`.

    Returns
    -------
    torch.Tensor
        Gradient with respect to `x`, contiguous.
    """
    n_keys = probabilities.shape[-1]
    d_x = torch.empty_like(probabilities)
    if d_x.numel() == 0:
        return d_x
    d_rows = d_probabilities.reshape(-1, n_keys)
    n_rows = d_rows.shape[0]
    if n_keys <= MAX_BLOCK:
        block = triton.next_power_of_2(n_keys)
        launch(
            softmax_backward_kernel,
            _narrow_grid(n_rows, block),
            *(probabilities, strided(d_rows), d_x, n_rows, n_keys, scale),
            BLOCK_KEYS=block,
        )
    else:
        launch(
            softmax_backward_wide_kernel,
            (n_rows,),
            *(probabilities, strided(d_rows), d_x, n_keys, scale),
        )
    return d_x


def _narrow_grid(n_rows: int, block: int) -> Any:
    return lambda meta: (triton.cdiv(n_rows, triton.cdiv(meta["TILE"], block)),)


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, causal, key_mask):
        probabilities = softmax_forward(x, scale, causal, key_mask)
        ctx.save_for_backward(probabilities)
        ctx.scale = scale
        return probabilities

    @staticmethod
    @first_derivative_only("softmax")
    def backward(ctx, d_probabilities):
        (probabilities,) = ctx.saved_tensors
        return softmax_backward(probabilities, d_probabilities, ctx.scale), None, None, None


def softmax(
    x: torch.Tensor,
    *,
    scale: float = 1.0,
    causal: bool = False,
    key_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Turn each row of scores into probabilities; the twin of `gptwin.core.layers.softmax.softmax`.

    Parameters
    ----------
    x : torch.Tensor [..., key] or [batch, ..., query, key]
        The scores: float32, float16 or bfloat16, any strides. Computed in float32.
    scale : float
        Multiplies the scores first; finite and above 0.
    causal : bool
        Let query i see key j only if j ≤ i + (n_key − n_query).
    key_mask : torch.Tensor of bool [batch, key], optional
        True where a key may be seen.

    Returns
    -------
    torch.Tensor
        Probabilities shaped like `x` and of its dtype; a row that sees no key is 0.

    Raises
    ------
    ValueError
        If a shape, dtype, device or `scale` is wrong.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    check_softmax(x, scale, causal, key_mask)
    if runs_on_triton("softmax", x=x, key_mask=key_mask):
        return _Softmax.apply(x, float(scale), causal, key_mask)
    return softmax_eager(x, scale=scale, causal=causal, key_mask=key_mask)


def softmax_eager(
    x: torch.Tensor,
    *,
    scale: float = 1.0,
    causal: bool = False,
    key_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute the same in plain PyTorch, for the CPU and as a yardstick."""
    hidden = torch.zeros((1,) * x.ndim, dtype=torch.bool, device=x.device)
    if causal:
        n_query, n_key = x.shape[-2:]
        later = torch.ones(n_query, n_key, dtype=torch.bool, device=x.device)
        hidden = hidden | later.triu(n_key - n_query + 1)
    if key_mask is not None:
        between = (1,) * (x.ndim - 2)
        hidden = hidden | ~key_mask.view(x.shape[0], *between, x.shape[-1])
    # PyTorch gives NaN where a row sees nothing, in backward too; such a row is 0 here.
    nothing_seen = (hidden | (x == -math.inf)).all(dim=-1, keepdim=True)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    scores = wide.masked_fill(hidden, -math.inf).masked_fill(nothing_seen, 0)
    if x.shape[-1] > 0:  # the difference first: scaled numbers may overflow
        scores = scores - scores.detach().amax(dim=-1, keepdim=True)
    probabilities = torch.softmax((scores * scale).to(x.dtype), dim=-1)
    return probabilities.masked_fill(nothing_seen, 0)
