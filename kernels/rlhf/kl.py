"""Per-token KL in Triton: three estimators from two log-probabilities, forward and backward.

Mathematics (core/rlhf/kl.py): with δ = log π − log π_ref, k1 = δ, k2 = δ²/2, k3 = e^(−δ) − 1 + δ;
the slopes are 1, δ and 1 − e^(−δ). Near δ = 0, where a policy that has barely moved lives, k3 is
about δ²/2 but is written as a difference of terms of size 1: at δ = 10⁻⁴ float32 would keep no
digit of it. Below |δ| = ½ its Taylor series is summed instead (up to δ⁹/9!, the next term is below
a float32 rounding), and its slope is δ − k3, where nothing cancels.

Tiling: the tensors as one long row, one block a program. Each input is read once, and outside the
mask not at all; each output is written once. Backward recomputes δ. Deterministic: nothing crosses
an element.

`kl_of` is a device function: kernels/rlhf/token_rewards.py calls it too, so that the KL that is
logged is the KL that is trained on.
"""

import math

import torch

from ...core.checks import refuse
from ...core.masking import expect_batch_time
from ...core.rlhf.kl import (
    check_kl,
)
from ..common._triton import tl, triton
from ..common.approximation import stands_for
from ..common.derivative import first_derivative_only
from ..common.finite import expect_all_finite
from ..common.launch import launch, runs_on_triton
from ..common.rows import bucketed
from ..common.widened import at_least_float32

KL_CONFIGS = [
    triton.Config({"BLOCK": 1024}, num_warps=4),
    triton.Config({"BLOCK": 4096}, num_warps=8),
]
# What the kernels call the estimators.
ESTIMATOR_NUMBERS = {"k1": 1, "k2": 2, "k3": 3}

_MINUS_LOG2_E = tl.constexpr(-math.log2(math.e))


@triton.jit
def k3_exactly(delta):
    """Return e^(−δ) − 1 + δ."""
    return tl.exp2(delta * _MINUS_LOG2_E) - 1.0 + delta


@stands_for(k3_exactly, low=-0.5, high=0.5)
@triton.jit
def k3_near_0(delta):
    """Return k3 by its series, δ²/2 · (1 − δ/3·(1 − δ/4·(… (1 − δ/9)))), for |δ| < ½."""
    near = 1.0 - delta * (1.0 / 9.0)
    near = 1.0 - delta * (1.0 / 8.0) * near
    near = 1.0 - delta * (1.0 / 7.0) * near
    near = 1.0 - delta * (1.0 / 6.0) * near
    near = 1.0 - delta * (1.0 / 5.0) * near
    near = 1.0 - delta * (1.0 / 4.0) * near
    near = 1.0 - delta * (1.0 / 3.0) * near
    return 0.5 * delta * delta * near


@triton.jit
def kl_of(delta, ESTIMATOR: tl.constexpr):
    """Return the estimate and its slope for a float32 block of δ."""
    if ESTIMATOR == 1:
        estimate = delta
        slope = tl.full(delta.shape, 1.0, tl.float32)
    elif ESTIMATOR == 2:
        estimate = 0.5 * delta * delta
        slope = delta
    else:
        small = tl.abs(delta) < 0.5
        decay = tl.exp2(delta * _MINUS_LOG2_E)  # e^(−δ)
        near = k3_near_0(delta)
        estimate = tl.where(small, near, decay - 1.0 + delta)
        slope = tl.where(small, delta - near, 1.0 - decay)
    return estimate, slope


@triton.autotune(KL_CONFIGS, key=["size_bucket"])
@triton.jit
def kl_forward_kernel(
    log_prob_ptr,
    reference_ptr,
    mask_ptr,  # int8
    kl_ptr,
    n_elements,
    size_bucket,  # n_elements rounded up to a power of two: tuned once for each
    ESTIMATOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Estimate one block."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n_elements
    live = inside & (tl.load(mask_ptr + at, mask=inside, other=0) != 0)
    log_prob = tl.load(log_prob_ptr + at, mask=live, other=0.0)
    delta = log_prob - tl.load(reference_ptr + at, mask=live, other=0.0)
    estimate, _ = kl_of(delta, ESTIMATOR)
    tl.store(kl_ptr + at, tl.where(live, estimate, 0.0), mask=inside)


@triton.autotune(KL_CONFIGS, key=["size_bucket"])
@triton.jit
def kl_backward_kernel(
    log_prob_ptr,
    reference_ptr,
    mask_ptr,  # int8
    d_kl_ptr,
    d_log_prob_ptr,
    d_reference_ptr,
    n_elements,
    size_bucket,
    ESTIMATOR: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Carry the gradient of one block back."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n_elements
    live = inside & (tl.load(mask_ptr + at, mask=inside, other=0) != 0)
    log_prob = tl.load(log_prob_ptr + at, mask=live, other=0.0)
    delta = log_prob - tl.load(reference_ptr + at, mask=live, other=0.0)
    _, slope = kl_of(delta, ESTIMATOR)
    d_delta = tl.where(live, tl.load(d_kl_ptr + at, mask=live, other=0.0) * slope, 0.0)
    tl.store(d_log_prob_ptr + at, d_delta, mask=inside)
    tl.store(d_reference_ptr + at, -d_delta, mask=inside)


def kl_forward(
    log_prob: torch.Tensor, reference_log_prob: torch.Tensor, mask: torch.Tensor, estimator: str
) -> torch.Tensor:
    """Launch the forward kernel for checked, contiguous arguments.

    Parameters
    ----------
    log_prob, reference_log_prob, mask, estimator
        As in `kl`.

    Returns
    -------
    torch.Tensor [...]
        The estimates.
    """
    estimate = torch.empty_like(log_prob)
    n = log_prob.numel()
    launch(
        kl_forward_kernel,
        _grid(n),
        *(log_prob, reference_log_prob, mask.view(torch.int8), estimate, *bucketed(n)),
        ESTIMATOR=ESTIMATOR_NUMBERS[estimator],
    )
    return estimate


def kl_backward(
    log_prob: torch.Tensor,
    reference_log_prob: torch.Tensor,
    mask: torch.Tensor,
    d_kl: torch.Tensor,
    estimator: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the backward kernel.

    Parameters
    ----------
    log_prob, reference_log_prob, mask, d_kl, estimator
        As in `kl_forward`, and the gradient of its result; contiguous.

    Returns
    -------
    d_log_prob, d_reference_log_prob : torch.Tensor [...]
    """
    d_log_prob, d_reference = torch.empty_like(log_prob), torch.empty_like(log_prob)
    n = log_prob.numel()
    launch(
        kl_backward_kernel,
        _grid(n),
        *(log_prob, reference_log_prob, mask.view(torch.int8), d_kl),
        *(d_log_prob, d_reference, *bucketed(n)),
        ESTIMATOR=ESTIMATOR_NUMBERS[estimator],
    )
    return d_log_prob, d_reference


def _grid(n_elements: int):
    return lambda meta: (triton.cdiv(n_elements, meta["BLOCK"]),)


class _Kl(torch.autograd.Function):
    @staticmethod
    def forward(ctx, log_prob, reference_log_prob, mask, estimator):
        saved = tuple(x.contiguous() for x in (log_prob, reference_log_prob, mask))
        ctx.save_for_backward(*saved)
        ctx.estimator = estimator
        return kl_forward(*saved, estimator)

    @staticmethod
    @first_derivative_only("kl")
    def backward(ctx, d_kl):
        gradients = kl_backward(*ctx.saved_tensors, d_kl.contiguous(), ctx.estimator)
        return *gradients, None, None


def kl(
    log_prob: torch.Tensor,
    reference_log_prob: torch.Tensor,
    mask: torch.Tensor,
    *,
    estimator: str = "k1",
) -> torch.Tensor:
    """Estimate KL(π‖π_ref) at each response token; the twin of `gptwin.core.rlhf.kl.kl`.

    Parameters
    ----------
    log_prob, reference_log_prob : torch.Tensor [...]
        float32, any strides (a strided tensor is copied). In nats.
    mask : torch.Tensor of bool [...]
        True at the response tokens that count.
    estimator : str
        "k1", "k2" or "k3".

    Returns
    -------
    torch.Tensor [...]
        In nats; 0 outside the mask, where both gradients are 0 too.

    Raises
    ------
    ValueError
        If a shape, dtype, device or the estimator is wrong, or, where that is checked
        (kernels/common/finite.py), a log-probability inside the mask is not finite.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    check_kl(log_prob, reference_log_prob, mask, estimator)
    floats = {"log_prob": log_prob, "reference_log_prob": reference_log_prob}
    on_triton = runs_on_triton("kl", **floats, mask=mask)
    expect_all_finite(mask, **floats)
    if on_triton:
        expect_float32(**floats)
        return _Kl.apply(log_prob, reference_log_prob, mask, estimator)
    return kl_eager(log_prob, reference_log_prob, mask, estimator=estimator)


@at_least_float32
def kl_eager(
    log_prob: torch.Tensor,
    reference_log_prob: torch.Tensor,
    mask: torch.Tensor,
    *,
    estimator: str = "k1",
) -> torch.Tensor:
    """Compute the same in plain PyTorch, for the CPU and as a yardstick."""
    delta = log_prob.masked_fill(~mask, 0) - reference_log_prob.masked_fill(~mask, 0)
    if estimator == "k1":
        estimate = delta
    elif estimator == "k2":
        estimate = delta.square() / 2
    else:
        estimate = torch.expm1(-delta) + delta
    return estimate.masked_fill(~mask, 0)  # so that a gradient outside the mask is dropped


def sequence_kl(
    log_prob: torch.Tensor,
    reference_log_prob: torch.Tensor,
    mask: torch.Tensor,
    *,
    estimator: str = "k1",
) -> torch.Tensor:
    """Return the KL that is logged: the mean over sequences of the sum over tokens of `kl`.

    Parameters
    ----------
    mask : torch.Tensor of bool [batch, time]
        As in `kl`; a sequence without response tokens counts as one of KL 0.

    Returns
    -------
    torch.Tensor []
        In nats a sequence; 0 for an empty batch.

    Raises
    ------
    ValueError
        As in `kl`, or if the arguments are not [batch, time].
    """
    expect_batch_time("log_prob", log_prob)
    per_token = kl(log_prob, reference_log_prob, mask, estimator=estimator)
    return per_token.sum() / max(1, len(per_token))


def expect_float32(**tensors: torch.Tensor) -> None:
    """Refuse per-token numbers in any dtype but float32: half precision is for activations.

    Parameters
    ----------
    **tensors : torch.Tensor
        The arguments by name.

    Raises
    ------
    ValueError
        Naming the first one of another dtype.
    """
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            refuse(
                name,
                "dtype torch.float32",
                f"dtype {tensor.dtype}",
                "left in the model's precision: call .float()",
            )
