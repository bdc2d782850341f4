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
from typing import Any

import torch

from ...core.layers.softmax import check_softmax
from ..common._triton import tl, triton
from ..common.launch import launch, runs_on_triton
from ..common.registered import registered

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


@triton.jit
def _seen(
    rows,  # [BLOCK_ROWS] int64
    keys,  # [BLOCK_KEYS]
    n_rows,
    n_keys,
    n_queries,
    rows_per_batch,
    key_mask_ptr,
    key_mask_batch_stride,
    CAUSAL: tl.constexpr,
    HAS_KEY_MASK: tl.constexpr,
):
    """Say which of these keys each row sees: [BLOCK_ROWS, BLOCK_KEYS], False outside the tensor."""
    seen = (rows < n_rows)[:, None] & (keys < n_keys)[None, :]
    if CAUSAL:
        last_seen = rows % n_queries + (n_keys - n_queries)
        seen = seen & (keys[None, :] <= last_seen[:, None])
    if HAS_KEY_MASK:
        batch = rows // rows_per_batch
        mask_at = key_mask_ptr + batch[:, None] * key_mask_batch_stride + keys[None, :]
        # int8: a bool tensor's bytes
        seen = seen & (tl.load(mask_at, mask=seen, other=0) != 0)
    return seen


@triton.autotune(NARROW_CONFIGS, key=["BLOCK_KEYS"])
@triton.jit
def softmax_forward_kernel(
    x_ptr,
    probabilities_ptr,  # contiguous
    key_mask_ptr,  # int8 [batch, key], or x_ptr if there is none
    n_rows,
    n_keys,
    n_queries,
    rows_per_batch,
    x_row_stride,
    x_key_stride,
    key_mask_batch_stride,
    scale_log2_e,
    CAUSAL: tl.constexpr,
    HAS_KEY_MASK: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Softmax of BLOCK_ROWS whole rows."""
    BLOCK_ROWS: tl.constexpr = (TILE + BLOCK_KEYS - 1) // BLOCK_KEYS
    # int64, here and for keys: index times stride passes 2^31 long before memory runs out.
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    keys = tl.arange(0, BLOCK_KEYS)
    seen = _seen(
        rows, keys, n_rows, n_keys, n_queries, rows_per_batch,
        key_mask_ptr, key_mask_batch_stride, CAUSAL, HAS_KEY_MASK,
    )  # fmt: skip

    x_at = x_ptr + rows[:, None] * x_row_stride + keys[None, :].to(tl.int64) * x_key_stride
    x = tl.load(x_at, mask=seen, other=-float("inf")).to(tl.float32)  # [BLOCK_ROWS, BLOCK_KEYS]
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
    x_ptr,
    probabilities_ptr,
    key_mask_ptr,
    n_rows,
    n_keys,
    n_queries,
    rows_per_batch,
    x_row_stride,
    x_key_stride,
    key_mask_batch_stride,
    scale_log2_e,
    CAUSAL: tl.constexpr,
    HAS_KEY_MASK: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    """Softmax of one row in blocks: `softmax_online`, then a second pass that writes."""
    row = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)  # [1]
    running_max = tl.full([1], -float("inf"), tl.float32)
    running_sum = tl.zeros([1], tl.float32)
    for start in range(0, n_keys, BLOCK_KEYS):
        keys = start + tl.arange(0, BLOCK_KEYS)
        seen = _seen(
            row, keys, n_rows, n_keys, n_queries, rows_per_batch,
            key_mask_ptr, key_mask_batch_stride, CAUSAL, HAS_KEY_MASK,
        )  # fmt: skip
        x_at = x_ptr + row[:, None] * x_row_stride + keys[None, :].to(tl.int64) * x_key_stride
        x = tl.load(x_at, mask=seen, other=-float("inf")).to(tl.float32)  # [1, BLOCK_KEYS]
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
        seen = _seen(
            row, keys, n_rows, n_keys, n_queries, rows_per_batch,
            key_mask_ptr, key_mask_batch_stride, CAUSAL, HAS_KEY_MASK,
        )  # fmt: skip
        x_at = x_ptr + row[:, None] * x_row_stride + keys[None, :].to(tl.int64) * x_key_stride
        x = tl.load(x_at, mask=seen, other=-float("inf")).to(tl.float32)
        probabilities = tl.exp2((x - pivot[:, None]) * scale_log2_e) / total[:, None]
        probabilities_at = probabilities_ptr + row[:, None] * n_keys + keys[None, :]
        tl.store(probabilities_at, probabilities, mask=(keys < n_keys)[None, :])


@triton.autotune(NARROW_CONFIGS, key=["BLOCK_KEYS"])
@triton.jit
def softmax_backward_kernel(
    probabilities_ptr,  # contiguous
    d_probabilities_ptr,
    d_x_ptr,  # contiguous
    n_rows,
    n_keys,
    d_row_stride,
    d_key_stride,
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
    d_at = (
        d_probabilities_ptr
        + rows[:, None] * d_row_stride
        + keys[None, :].to(tl.int64) * d_key_stride
    )
    d_p = tl.load(d_at, mask=inside, other=0.0).to(tl.float32)
    coupling = tl.sum(p * d_p, axis=1)  # [BLOCK_ROWS]
    d_x = p * (d_p - coupling[:, None]) * scale
    tl.store(d_x_ptr + at, d_x, mask=inside)


@triton.autotune(WIDE_BACKWARD_CONFIGS, key=["n_keys"])
@triton.jit
def softmax_backward_wide_kernel(
    probabilities_ptr,
    d_probabilities_ptr,
    d_x_ptr,
    n_keys,
    d_row_stride,
    d_key_stride,
    scale,
    BLOCK_KEYS: tl.constexpr,
):
    """Gradient of one row in blocks: first Σ p·d_p, then d_x."""
    row = tl.program_id(0).to(tl.int64)
    coupling = tl.zeros([BLOCK_KEYS], tl.float32)  # per lane; summed once at the end
    for start in range(0, n_keys, BLOCK_KEYS):
        keys = start + tl.arange(0, BLOCK_KEYS)
        inside = keys < n_keys
        p_at = probabilities_ptr + row * n_keys + keys
        d_at = d_probabilities_ptr + row * d_row_stride + keys.to(tl.int64) * d_key_stride
        p = tl.load(p_at, mask=inside, other=0.0).to(tl.float32)
        coupling += p * tl.load(d_at, mask=inside, other=0.0).to(tl.float32)
    row_coupling = tl.sum(coupling, axis=0)

    for start in range(0, n_keys, BLOCK_KEYS):
        keys = start + tl.arange(0, BLOCK_KEYS)
        inside = keys < n_keys
        p_at = probabilities_ptr + row * n_keys + keys
        d_at = d_probabilities_ptr + row * d_row_stride + keys.to(tl.int64) * d_key_stride
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
    scores = x.reshape(-1, n_keys)  # [..., key] -> [row, key]: a view where the strides allow
    n_rows = scores.shape[0]
    mask = None if key_mask is None else key_mask.contiguous().view(torch.int8)
    args = (
        scores,
        probabilities,
        scores if mask is None else mask,
        n_rows,
        n_keys,
        x.shape[-2] if causal else 1,
        n_rows // x.shape[0],
        *scores.stride(),
        0 if mask is None else mask.stride(0),
        scale * LOG2_E,
    )
    masks = {"CAUSAL": causal, "HAS_KEY_MASK": mask is not None}
    if n_keys <= MAX_BLOCK:
        block = triton.next_power_of_2(n_keys)
        launch(
            softmax_forward_kernel, _narrow_grid(n_rows, block), *args, **masks, BLOCK_KEYS=block
        )
    else:
        launch(softmax_forward_wide_kernel, (n_rows,), *args, **masks)
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
            *(probabilities, d_rows, d_x, n_rows, n_keys, *d_rows.stride(), scale),
            BLOCK_KEYS=block,
        )
    else:
        launch(
            softmax_backward_wide_kernel,
            (n_rows,),
            *(probabilities, d_rows, d_x, n_keys, *d_rows.stride(), scale),
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
    """Compute the same in plain PyTorch, for the CPU and as a yardstick.

    Parameters
    ----------
    x, scale, causal, key_mask
        As in `softmax`.

    Returns
    -------
    torch.Tensor
        As in `softmax`.
    """
    hidden = torch.zeros((1,) * x.ndim, dtype=torch.bool, device=x.device)
    if causal:
        n_query, n_key = x.shape[-2:]
        later = torch.ones(n_query, n_key, dtype=torch.bool, device=x.device)
        hidden = hidden | later.triu(n_key - n_query + 1)
    if key_mask is not None:
        between = (1,) * (x.ndim - 2)
        hidden = hidden | ~key_mask.view(x.shape[0], *between, x.shape[-1])
    probabilities = torch.softmax((x * scale).masked_fill(hidden, -math.inf), dim=-1)
    # PyTorch gives NaN where a row sees nothing; such a row is 0 here.
    nothing_seen = (hidden | (x == -math.inf)).all(dim=-1, keepdim=True)
    return probabilities.masked_fill(nothing_seen, 0)
