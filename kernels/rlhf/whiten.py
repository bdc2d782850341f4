"""Whitening in Triton: two moments over a masked batch, then one elementwise pass.

Mathematics (core/rlhf/whiten.py): (x − μ)/sqrt(σ² + 1e-8) over the mask, + μ if the mean stays.
Backward: d_x = (d − mean(d) − x̂·Σ d·x̂/degrees)/sqrt(σ² + 1e-8), + mean(d) if the mean stays.

Tiling: the batch as one long row. Moments need every element before any can be written, so a pass
is three launches:

    partials      program i: count, mean and Σ(x − its mean)² of block i   → one row of [program, 3]
    statistics    one program merges the rows: Σ nᵢ, μ, Σ (M2ᵢ + nᵢ·(μᵢ − μ)²)   (Chan et al. 1979)
    apply         program i writes block i

Never E[x²] − μ², which cancels: advantages of 10⁶ ± 1 keep their spread. Each mean is taken twice,
the second time of what the first one left: a batch of equal numbers is centred to exactly 0 and not
to a rounding, which 1/sqrt(1e-8) would blow up ten thousand times.

Memory: forward reads x twice and writes once, backward reads x and d twice and writes once; a
rollout's 512 × 1024 numbers stay in the L2 cache for the second time. Deterministic: sums cross
programs through the matrix of partial sums alone.
"""

import torch

from ...core.rlhf.whiten import EPSILON, check_whiten
from ..common._triton import tl, triton
from ..common.column_sum import column_sum
from ..common.derivative import first_derivative_only
from ..common.finite import expect_all_finite
from ..common.launch import launch, runs_on_triton
from ..common.rows import bucketed
from ..common.widened import at_least_float32
from .kl import expect_float32

# Elements per program: fixed, because the partial sums are allocated by it.
BLOCK = 2048
WHITEN_CONFIGS = [triton.Config({}, num_warps=8), triton.Config({}, num_warps=16)]
# Rows of partial sums merged at a time.
MERGE_BLOCK = 256

_EPSILON = tl.constexpr(EPSILON)
# Rows of partial sums.
_N_MOMENTS = tl.constexpr(3)
_N_SLOPES = tl.constexpr(2)


@triton.autotune(WHITEN_CONFIGS, key=["size_bucket"])
@triton.jit
def whiten_partials_kernel(
    x_ptr,
    mask_ptr,  # int8
    partials_ptr,  # [program, 3]: count, mean, sum of squares about it
    n_elements,
    size_bucket,  # n_elements rounded up to a power of two: tuned once for each
    BLOCK: tl.constexpr,
):
    """Moments of one block."""
    program = tl.program_id(0).to(tl.int64)
    at = program * BLOCK + tl.arange(0, BLOCK)
    inside = at < n_elements
    live = inside & (tl.load(mask_ptr + at, mask=inside, other=0) != 0)
    x = tl.load(x_ptr + at, mask=live, other=0.0)
    count = tl.sum(tl.where(live, 1.0, 0.0), axis=0)
    divisor = tl.maximum(count, 1.0)
    mean = tl.sum(x, axis=0) / divisor
    mean += tl.sum(tl.where(live, x - mean, 0.0), axis=0) / divisor
    centred = tl.where(live, x - mean, 0.0)
    partials_at = partials_ptr + program * _N_MOMENTS
    tl.store(partials_at, count)
    tl.store(partials_at + 1, mean)
    tl.store(partials_at + 2, tl.sum(centred * centred, axis=0))


@triton.jit
def whiten_statistics_kernel(
    partials_ptr,
    statistics_ptr,  # [4]: mean, 1/sqrt(σ² + ε), 1/n, 1/degrees (1 where that would be 1/0)
    n_partials,
    UNBIASED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Merge the blocks' moments: one program."""
    count = tl.zeros([BLOCK], tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, n_partials, BLOCK):
        row = (start + tl.arange(0, BLOCK)).to(tl.int64)
        inside = row < n_partials
        n = tl.load(partials_ptr + row * _N_MOMENTS, mask=inside, other=0.0)
        count += n
        total += n * tl.load(partials_ptr + row * _N_MOMENTS + 1, mask=inside, other=0.0)
    n_all = tl.sum(count, axis=0)
    divisor = tl.maximum(n_all, 1.0)
    mean = tl.sum(total, axis=0) / divisor

    left = tl.zeros([BLOCK], tl.float32)
    for start in range(0, n_partials, BLOCK):
        row = (start + tl.arange(0, BLOCK)).to(tl.int64)
        inside = row < n_partials
        n = tl.load(partials_ptr + row * _N_MOMENTS, mask=inside, other=0.0)
        left += n * (tl.load(partials_ptr + row * _N_MOMENTS + 1, mask=inside, other=0.0) - mean)
    mean += tl.sum(left, axis=0) / divisor

    squares = tl.zeros([BLOCK], tl.float32)
    for start in range(0, n_partials, BLOCK):
        row = (start + tl.arange(0, BLOCK)).to(tl.int64)
        inside = row < n_partials
        n = tl.load(partials_ptr + row * _N_MOMENTS, mask=inside, other=0.0)
        gap = tl.load(partials_ptr + row * _N_MOMENTS + 1, mask=inside, other=0.0) - mean
        squares += tl.load(partials_ptr + row * _N_MOMENTS + 2, mask=inside, other=0.0)
        squares += n * gap * gap
    degrees = tl.maximum(n_all - 1.0 if UNBIASED else n_all, 1.0)
    variance = tl.sum(squares, axis=0) / degrees
    tl.store(statistics_ptr, mean)
    tl.store(statistics_ptr + 1, 1.0 / tl.sqrt_rn(variance + _EPSILON))
    tl.store(statistics_ptr + 2, 1.0 / divisor)
    tl.store(statistics_ptr + 3, 1.0 / degrees)


@triton.autotune(WHITEN_CONFIGS, key=["size_bucket"])
@triton.jit
def whiten_apply_kernel(
    x_ptr,
    mask_ptr,
    statistics_ptr,
    whitened_ptr,
    n_elements,
    size_bucket,
    SHIFT_MEAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Whiten one block."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n_elements
    live = inside & (tl.load(mask_ptr + at, mask=inside, other=0) != 0)
    mean = tl.load(statistics_ptr)
    x = tl.load(x_ptr + at, mask=live, other=0.0)
    whitened = (x - mean) * tl.load(statistics_ptr + 1)
    if not SHIFT_MEAN:
        whitened += mean
    tl.store(whitened_ptr + at, tl.where(live, whitened, 0.0), mask=inside)


@triton.autotune(WHITEN_CONFIGS, key=["size_bucket"])
@triton.jit
def whiten_backward_partials_kernel(
    x_ptr,
    mask_ptr,
    d_whitened_ptr,
    statistics_ptr,
    partials_ptr,  # [program, 2]: Σ d, Σ d·x̂
    n_elements,
    size_bucket,
    BLOCK: tl.constexpr,
):
    """The two sums of backward over one block."""
    program = tl.program_id(0).to(tl.int64)
    at = program * BLOCK + tl.arange(0, BLOCK)
    inside = at < n_elements
    live = inside & (tl.load(mask_ptr + at, mask=inside, other=0) != 0)
    x = tl.load(x_ptr + at, mask=live, other=0.0)
    d = tl.load(d_whitened_ptr + at, mask=live, other=0.0)
    normalised = (x - tl.load(statistics_ptr)) * tl.load(statistics_ptr + 1)
    partials_at = partials_ptr + program * _N_SLOPES
    tl.store(partials_at, tl.sum(d, axis=0))
    tl.store(partials_at + 1, tl.sum(tl.where(live, d * normalised, 0.0), axis=0))


@triton.autotune(WHITEN_CONFIGS, key=["size_bucket"])
@triton.jit
def whiten_backward_apply_kernel(
    x_ptr,
    mask_ptr,
    d_whitened_ptr,
    statistics_ptr,
    sums_ptr,  # [2]
    d_x_ptr,
    n_elements,
    size_bucket,
    SHIFT_MEAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Carry the gradient of one block back."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n_elements
    live = inside & (tl.load(mask_ptr + at, mask=inside, other=0) != 0)
    inverse_std = tl.load(statistics_ptr + 1)
    d_mean = tl.load(sums_ptr) * tl.load(statistics_ptr + 2)
    along = tl.load(sums_ptr + 1) * tl.load(statistics_ptr + 3)
    x = tl.load(x_ptr + at, mask=live, other=0.0)
    d = tl.load(d_whitened_ptr + at, mask=live, other=0.0)
    normalised = (x - tl.load(statistics_ptr)) * inverse_std
    d_x = (d - d_mean - normalised * along) * inverse_std
    if not SHIFT_MEAN:
        d_x += d_mean
    tl.store(d_x_ptr + at, tl.where(live, d_x, 0.0), mask=inside)


def whiten_forward(
    x: torch.Tensor, mask: torch.Tensor, shift_mean: bool, unbiased: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the three kernels of the forward pass.

    Parameters
    ----------
    x : torch.Tensor [...]
        Contiguous.
    mask : torch.Tensor of bool [...]
        Contiguous.
    shift_mean, unbiased : bool
        As in `whiten`.

    Returns
    -------
    whitened : torch.Tensor [...]
    statistics : torch.Tensor [4]
        Mean, 1/sqrt(σ² + 1e-8), 1/n and 1/degrees, for backward.
    """
    n, live = x.numel(), mask.view(torch.int8)
    programs = triton.cdiv(n, BLOCK)
    partials = torch.empty(programs, 3, dtype=torch.float32, device=x.device)
    statistics = torch.empty(4, dtype=torch.float32, device=x.device)
    whitened = torch.empty_like(x)
    launch(whiten_partials_kernel, (programs,), x, live, partials, *bucketed(n), BLOCK=BLOCK)
    launch(
        whiten_statistics_kernel,
        (1,),
        *(partials, statistics, programs),
        UNBIASED=unbiased,
        BLOCK=MERGE_BLOCK,
    )
    launch(
        whiten_apply_kernel,
        (programs,),
        *(x, live, statistics, whitened, *bucketed(n)),
        SHIFT_MEAN=shift_mean,
        BLOCK=BLOCK,
    )
    return whitened, statistics


def whiten_backward(
    x: torch.Tensor,
    mask: torch.Tensor,
    statistics: torch.Tensor,
    d_whitened: torch.Tensor,
    shift_mean: bool,
) -> torch.Tensor:
    """Launch the backward kernels: partial sums, their sum, the gradient.

    Parameters
    ----------
    x, mask, shift_mean
        As in `whiten_forward`.
    statistics : torch.Tensor [4]
        From `whiten_forward`.
    d_whitened : torch.Tensor [...]
        Gradient of the result, contiguous.

    Returns
    -------
    torch.Tensor [...]
        Gradient with respect to `x`.
    """
    n, live = x.numel(), mask.view(torch.int8)
    programs = triton.cdiv(n, BLOCK)
    partials = torch.empty(programs, 2, dtype=torch.float32, device=x.device)
    d_x = torch.empty_like(x)
    arguments = (x, live, d_whitened, statistics)
    launch(
        whiten_backward_partials_kernel,
        (programs,),
        *arguments,
        partials,
        *bucketed(n),
        BLOCK=BLOCK,
    )
    launch(
        whiten_backward_apply_kernel,
        (programs,),
        *(*arguments, column_sum(partials, torch.float32), d_x, *bucketed(n)),
        SHIFT_MEAN=shift_mean,
        BLOCK=BLOCK,
    )
    return d_x


class _Whiten(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, mask, shift_mean, unbiased):
        x, mask = x.contiguous(), mask.contiguous()
        whitened, statistics = whiten_forward(x, mask, shift_mean, unbiased)
        ctx.save_for_backward(x, mask, statistics)
        ctx.shift_mean = shift_mean
        return whitened

    @staticmethod
    @first_derivative_only("whiten")
    def backward(ctx, d_whitened):
        d_x = whiten_backward(*ctx.saved_tensors, d_whitened.contiguous(), ctx.shift_mean)
        return d_x, None, None, None


def whiten(
    x: torch.Tensor, mask: torch.Tensor, *, shift_mean: bool = True, unbiased: bool = True
) -> torch.Tensor:
    """Whiten the elements inside the mask; the twin of `gptwin.core.rlhf.whiten.whiten`.

    Parameters
    ----------
    x : torch.Tensor [...]
        float32, any strides (a strided tensor is copied): advantages, or rewards.
    mask : torch.Tensor of bool [...]
        True at the elements that count.
    shift_mean : bool
        Whether the result has mean 0; otherwise it keeps its mean.
    unbiased : bool
        Whether the variance divides by n − 1 instead of n; that of one element is taken as 0.

    Returns
    -------
    torch.Tensor [...]
        0 outside the mask, where the gradient is 0 too.

    Raises
    ------
    ValueError
        If a shape, dtype or device is wrong, or, where that is checked (kernels/common/finite.py),
        an element inside the mask is not finite.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    check_whiten(x, mask)
    on_triton = runs_on_triton("whiten", x=x, mask=mask)
    expect_all_finite(mask, x=x)
    if on_triton:
        expect_float32(x=x)
        return _Whiten.apply(x, mask, bool(shift_mean), bool(unbiased))
    return whiten_eager(x, mask, shift_mean=shift_mean, unbiased=unbiased)


@at_least_float32
def whiten_eager(
    x: torch.Tensor, mask: torch.Tensor, *, shift_mean: bool = True, unbiased: bool = True
) -> torch.Tensor:
    """Compute the same in plain PyTorch, for the CPU and as a yardstick."""
    n = mask.sum()
    mean = x.masked_fill(~mask, 0).sum() / n.clamp(min=1)
    centred = (x - mean).masked_fill(~mask, 0)
    degrees = (n - 1 if unbiased else n).clamp(min=1)
    normalised = centred * torch.rsqrt(centred.square().sum() / degrees + EPSILON)
    return (normalised if shift_mean else normalised + mean).masked_fill(~mask, 0)
