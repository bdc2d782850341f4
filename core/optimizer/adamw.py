"""AdamW: Adam with decoupled weight decay, after clipping by the global norm.

    norm = √(Σ over all tensors Σ g²)              c = min(1, max_norm / (norm + 1e-6))
    g ← c·g
    m ← β₁·m + (1 − β₁)·g                          v ← β₂·v + (1 − β₂)·g²
    θ ← θ − lr·λ·θ − lr · m̂ / (√v̂ + ε)             m̂ = m / (1 − β₁ᵗ),  v̂ = v / (1 − β₂ᵗ)

with t = `step`, 1 at the first update (Kingma & Ba 2015, arXiv 1412.6980, algorithm 1; Loshchilov
& Hutter 2019, arXiv 1711.05101, algorithm 2, with the schedule in lr, as PyTorch has it). The decay
λ acts on the parameter, not through the gradient: it is not divided by √v̂.

Two conventions of ε go by the same name. PyTorch's is above, "ε hat after the correction".
TensorFlow's, in which OpenAI trained, adds it to the *uncorrected* √v:

    lr·√(1 − β₂ᵗ)/(1 − β₁ᵗ) · m / (√v + ε)    =    lr · m̂ / (√v̂ + ε/√(1 − β₂ᵗ))

At t = 1 and β₂ = 0.999 its ε is 32 times as large: with ε = 1e-5, as InstructGPT has it, the first
updates differ several times over wherever gradients are small.

One gradient that is infinite or NaN would spoil weights and moments for good. So a norm that is
not finite is an error that names the first gradient at fault, and nothing changes.

Edge semantics, the same in both twins: empty tensors and empty lists are fine, and the norm of
none is 0. A gradient of zeros still moves what has momentum, and decays what has weight decay.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..checks import (
    expect_finite,
    expect_matching_lists,
    expect_positive,
    refuse,
    takes_anything,
    whole,
)

EPSILONS = ("pytorch", "tensorflow")
# torch.nn.utils.clip_grad_norm_ adds this to the norm before it divides by it.
CLIP_EPS = 1e-6

Tensors = Sequence[np.ndarray]


class AdamWResults(NamedTuple):
    """What one step returns.

    Attributes
    ----------
    parameters, first_moments, second_moments : list of numpy.ndarray or torch.Tensor
        The new ones.
    gradient_norm : numpy.ndarray or torch.Tensor []
        Before clipping.
    """

    parameters: list[Any]
    first_moments: list[Any]
    second_moments: list[Any]
    gradient_norm: Any


class Coefficients(NamedTuple):
    """The step's numbers that no tensor enters, computed in float64 on the host.

    Attributes
    ----------
    step_size : float
        lr / (1 − β₁ᵗ): multiplies m.
    root_correction : float
        1/√(1 − β₂ᵗ): multiplies √v.
    eps : float
        What is added to √v̂, in PyTorch's convention.
    """

    step_size: float
    root_correction: float
    eps: float


def adamw(
    parameters: Tensors,
    gradients: Tensors,
    first_moments: Tensors,
    second_moments: Tensors,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float | Sequence[float] = 0.0,
    max_norm: float | None = None,
    epsilon: str = "pytorch",
) -> AdamWResults:
    """Compute one step of AdamW; nothing given is changed.

    Parameters
    ----------
    parameters, gradients, first_moments, second_moments : sequence of numpy.ndarray
        As many tensors in each, of the same shapes; moments begin as zeros.
    step : int
        Which update this is, 1 for the first.
    lr : float
        Learning rate.
    betas : (float, float)
        Memory of the first and the second moment, each 0 to below 1.
    eps : float
        ε, above 0.
    weight_decay : float or sequence of float
        λ, one for all or one for each tensor; 0 for biases and norms, as is usual.
    max_norm : float, optional
        Scale the gradients down to this norm, over all tensors, if theirs is larger.
    epsilon : str
        "pytorch" or "tensorflow".

    Returns
    -------
    AdamWResults

    Raises
    ------
    ValueError
        If the lists do not match, an option is out of range, or the gradients' norm is not finite.
    """
    lists = (parameters, gradients, first_moments, second_moments)
    check_adamw(*lists, step, lr, betas, eps, weight_decay, max_norm, epsilon)
    norm = gradient_norm(gradients)
    expect_finite_norm(norm, gradients)
    if not np.isfinite(norm):  # Where nobody looks, as on a GPU, everything stays as it is.
        parameters, first_moments, second_moments = map(list, (lists[0], *lists[2:]))
        return AdamWResults(parameters, first_moments, second_moments, norm)
    scale = clip_scale(float(norm), max_norm)
    known = coefficients(step, lr, betas, eps, epsilon)
    decays = decay_of_each(weight_decay, len(parameters))
    updates = [
        update_one(parameter, gradient, first, second, scale, betas, float(lr) * decay, known)
        for parameter, gradient, first, second, decay in zip(*lists, decays, strict=True)
    ]
    # [tensor][parameter, first, second] -> [parameter, first, second][tensor]
    new, first, second = ([update[i] for update in updates] for i in range(3))
    return AdamWResults(new, first, second, norm)


def update_one(
    parameter: np.ndarray,
    gradient: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    scale: float,
    betas: tuple[float, float],
    decay: float,
    known: Coefficients,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Update one tensor and its moments; the new arrays are typed like the old ones.

    `scale` is the gradient's, from `clip_scale`; `decay` is lr · λ.
    """
    beta_1, beta_2 = map(float, betas)  # NumPy float64 scalars would promote a float32 model
    gradient = gradient.astype(first.dtype, copy=False) * scale
    first = beta_1 * first + (1 - beta_1) * gradient
    second = beta_2 * second + (1 - beta_2) * gradient * gradient
    denominator = np.sqrt(second) * known.root_correction + known.eps
    # A half-precision parameter is moved in the moments' precision, and rounded once.
    moved = parameter * first.dtype.type(1 - decay) - known.step_size * (first / denominator)
    return np.asarray(moved, dtype=parameter.dtype), np.asarray(first), np.asarray(second)


def gradient_norm(gradients: Tensors) -> np.ndarray:
    """Return the 2-norm of all gradients together: the root of the tensors' sums of squares.

    It is float64, unless every gradient is float32 or narrower: float32. It is 0 if there are none.
    """
    wide = [np.asarray(g, dtype=np.promote_types(g.dtype, np.float32)) for g in gradients]
    dtype = np.result_type(np.float32, *wide) if wide else np.dtype(np.float64)
    # Even a float32 model's squares are summed in float64: they are many and small.
    squares = sum(float(np.square(g, dtype=np.float64).sum()) for g in wide)
    return np.asarray(math.sqrt(squares), dtype=dtype)


def clip_scale(norm: float, max_norm: float | None) -> float:
    """Return what gradients of this norm are multiplied with, at most 1."""
    return 1.0 if max_norm is None else min(1.0, float(max_norm) / (norm + CLIP_EPS))


def coefficients(
    step: int, lr: float, betas: tuple[float, float], eps: float, epsilon: str
) -> Coefficients:
    """Compute the bias corrections, in float64: float32's 1 − 0.999ᵗ loses 10 bits at t = 1."""
    (beta_1, beta_2), step = map(float, betas), int(step)
    root_correction = 1 / math.sqrt(1 - beta_2**step)
    wider = root_correction if epsilon == "tensorflow" else 1.0
    return Coefficients(float(lr) / (1 - beta_1**step), root_correction, float(eps) * wider)


def decay_of_each(weight_decay: float | Sequence[float], n_tensors: int) -> list[float]:
    """Give each tensor its weight decay."""
    if isinstance(weight_decay, Sequence):
        return [float(decay) for decay in weight_decay]
    return [float(weight_decay)] * n_tensors


def expect_finite_norm(norm: Any, gradients: Any) -> None:
    """Refuse gradients whose norm is not finite, and name the first with an infinity or a NaN.

    They are all named if only their sum of squares overflows. It reads the norm: on a GPU, that
    waits.
    """
    norm = float(norm)
    if math.isfinite(norm) or takes_anything():
        return
    for i, gradient in enumerate(gradients):
        expect_finite(f"gradients[{i}]", gradient)
    refuse("gradients", "a finite norm", f"{norm}", "a sum of squares that overflowed")


def check_adamw(
    parameters: Any,
    gradients: Any,
    first_moments: Any,
    second_moments: Any,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: Any,
    max_norm: float | None,
    epsilon: str,
) -> None:
    """Refuse arguments that `adamw` has no meaning for."""
    expect_matching_lists(
        parameters=parameters,
        gradients=gradients,
        first_moments=first_moments,
        second_moments=second_moments,
    )
    narrow = ("float16", "bfloat16")
    for name, moments in (("first_moments", first_moments), ("second_moments", second_moments)):
        for i, moment in enumerate(moments):
            if str(moment.dtype).endswith(narrow):
                cause = "moments made like half-precision parameters: small steps would be lost"
                refuse(f"{name}[{i}]", "dtype float32 or float64", f"dtype {moment.dtype}", cause)
    if whole("step", step) < 1:
        refuse("step", "an integer of at least 1", repr(step), "steps counted from 0")
    if not (math.isfinite(lr) and lr >= 0):
        refuse("lr", "a finite number of at least 0", repr(lr))
    if len(betas) != 2:
        refuse("betas", "two numbers", repr(betas))
    for i, beta in enumerate(betas):
        if not 0 <= beta < 1:
            refuse(f"betas[{i}]", "a number from 0 to below 1", repr(beta))
    expect_positive("eps", eps)
    if eps < np.finfo(np.float32).tiny and any("32" in str(m.dtype) for m in second_moments):
        refuse("eps", "a number that float32 tells from 0", repr(eps), "0 / 0 without momentum")
    decays = decay_of_each(weight_decay, len(parameters))
    if len(decays) != len(parameters):
        refuse("weight_decay", f"one number, or {len(parameters)}", f"{len(decays)} of them")
    for decay in dict.fromkeys(decays):
        if not (math.isfinite(decay) and decay >= 0):
            refuse("weight_decay", "finite numbers of at least 0", repr(decay))
    if max_norm is not None:
        expect_positive("max_norm", max_norm)
    if epsilon not in EPSILONS:
        refuse("epsilon", "'pytorch' or 'tensorflow'", repr(epsilon))
