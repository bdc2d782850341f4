"""Where is it finite? NaN and infinity in each argument, visible and hidden, on all backends.

A kernel that drops a NaN gives a diverged model a loss of 0; one that lets it out of what a mask
hides spoils a whole batch for a padding token. Neither shows on the numbers that cases draw. So
each of a twin's `extremes`, small cases, is run again with one number of one argument replaced, in
turn, by NaN, +∞ and −∞: once where the reference's gradient says that the number counts, and once
where it says that it does not. Then, in eager PyTorch as in the kernel,

    finite       must be what is finite in NumPy's reference, and near it;
    not finite   what is not finite there and moves with the number while that takes finite values;
    either       the rest: 0 · NaN in a product. Which of these a backend computes depends on its
                 tiles, and that a masked score weighs 0 is all that is promised.

Which of NaN, +∞ and −∞ is not asked: it depends on the order of a sum.

Operations that refuse what is not finite are asked twice, with their checks on and off: all three
must refuse the same argument, and what they do on a GPU, where nobody checks, must agree as well.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ...kernels.common import launch
from ...kernels.common.finite import checking_finite
from ..twins.draw import RandomArrays, to_numpy
from ..twins.twin import Case, Inputs, Twin
from .budget import Comparison
from .check import Checked, Prepared, differentiable, prepare, reference, run

VALUES = ("nan", "inf", "-inf")
# What moves from each of these to the next depends on the number. Infinity is also approached: a
# weight that falls to 0 on the way does not depend on it any more.
FINITE_VALUES = {"nan": (0.3, 2.0), "inf": (0.3, 2.0, 1e3, 2e3), "-inf": (-0.3, -2.0, -1e3, -2e3)}
# How far a finite element may be off, in roundings of the tensor's largest entry. The budget of
# other cases finds small errors; here a number is wrong if NaN decided a comparison.
ROUNDINGS = 64
# What is appended to a result's name where eager PyTorch got it wrong.
IN_EAGER = " in eager"


def nonfinite_cases(twin: Twin) -> Iterator[Case]:
    """Yield a twin's extremes with one number replaced, one case for each number and value.

    Parameters
    ----------
    twin : Twin

    Yields
    ------
    Case
        With `"nonfinite"`: argument, index and value; see `twins.draw.with_nonfinite`. An extreme's
        own `"values"` says which of `VALUES` are tried.
    """
    for case in twin.extremes:
        random = np.random.default_rng(case.get("seed", 0))
        inputs = twin.inputs(case, RandomArrays(case.get("seed", 0)))
        for name, kinds in _places(twin, inputs).items():
            for value, places in itertools.product(case.get("values", VALUES), kinds):
                index = [int(i) for i in random.choice(places)]
                yield case | {"nonfinite": [name, index, value]}


def check_nonfinite(twin: Twin, case: Case, dtype: str, device: str) -> Checked:
    """Run a case with a number that is not finite on all three backends.

    Parameters
    ----------
    twin, dtype, device
        As in `check`.
    case : Case
        From `nonfinite_cases`.

    Returns
    -------
    Checked
        What eager PyTorch got wrong is called by the result's name and "in eager".
    """
    prepared = prepare(twin, case, dtype, device, None)
    refusal = _refusal(lambda: twin.forward(**_arrays(prepared)))
    free = _free(twin, case, prepared)
    comparisons: list[Comparison] = []
    for backend, suffix in (("triton", ""), ("eager", IN_EAGER)):
        with launch.backend(backend), launch.configuration(0):
            if refusal:
                arguments = prepared.tensors | prepared.options
                with checking_finite(True):
                    own = _refusal(lambda: twin.kernel(**arguments))  # noqa: B023 (called here)
                if _subject(own) != _subject(refusal):
                    told = f"expected what NumPy says, {refusal!r}, got {own!r}"
                    return Checked(case, (), frozenset(), f"{backend}: {told}")
            try:
                with checking_finite(not refusal):
                    actual = run(twin, twin.kernel, prepared)
            except Exception as error:  # what a kernel raises is what the check shows
                message = f"{backend}: {type(error).__name__}: {error}"
                return Checked(case, (), frozenset(), message)
        comparisons += [
            _compare(name + suffix, truth, to_numpy(actual[name]), free[name], dtype)
            for name, truth in prepared.truth.items()
        ]
    return Checked(case, tuple(comparisons), frozenset())


def _places(twin: Twin, inputs: Inputs) -> dict[str, list[np.ndarray]]:
    """Find where numbers may be replaced: for each argument, [place, axis] of each kind.

    The kinds are what counts and what does not, if the argument has a gradient, and else every
    place. Numbers that a case draws as not finite are left out.
    """
    results = differentiable(twin, reference(twin, inputs.tensors, inputs.options, ()))
    cotangents = RandomArrays(1)
    d_results = tuple(cotangents.normal(*r.shape) for r in results.values())
    gradients = reference(twin, inputs.tensors, inputs.options, d_results)
    places = {}
    for name, x in (inputs.tensors | inputs.options).items():
        if isinstance(x, np.ndarray) and x.dtype.kind == "f":
            counts = gradients.get(f"d_{name}", np.ones_like(x)) != 0
            kinds = (np.isfinite(x) & counts, ~counts)
            places[name] = [np.argwhere(kind) for kind in kinds if kind.any()]
    return places


def _arrays(prepared: Prepared) -> dict[str, Any]:
    """Return the arguments as NumPy's reference takes them."""
    arguments = prepared.tensors | prepared.options
    return {n: to_numpy(x) if isinstance(x, torch.Tensor) else x for n, x in arguments.items()}


def _refusal(call: Callable[[], Any]) -> str:
    """Return the message that a call refuses its arguments with; empty if it does not."""
    try:
        with np.errstate(all="ignore"):
            call()
    except ValueError as error:
        return str(error)
    return ""


def _subject(refusal: str) -> str:
    """Return the name of the argument that is refused."""
    return refusal.partition(":")[0]


def _free(twin: Twin, case: Case, prepared: Prepared) -> dict[str, np.ndarray]:
    """Say which elements may be finite or not: not finite in NumPy, though nothing moves them."""
    name, index, value = case["nonfinite"]
    arguments = _arrays(prepared)
    d_results = tuple(to_numpy(d) for d in prepared.d_results)
    found = []
    for number in FINITE_VALUES[value]:
        array = np.array(arguments[name])
        array[tuple(index)] = number
        moved = arguments | {name: array}
        options = {n: moved.pop(n) for n in prepared.options}
        found.append(reference(twin, moved, options, d_results))

    def moves(result: str) -> np.ndarray:
        # Where no sum contains the number, what two values of it give differs by no rounding.
        changes = [
            ~np.isclose(there[result], here[result], rtol=1e-9, atol=1e-12)
            for here, there in itertools.pairwise(found)
        ]
        return np.all(changes, axis=0)

    return {n: ~np.isfinite(truth) & ~moves(n) for n, truth in prepared.truth.items()}


def _compare(
    name: str, truth: np.ndarray, actual: np.ndarray, free: np.ndarray, dtype: str
) -> Comparison:
    """Compare where two arrays are finite, and coarsely what is."""
    truth, actual, free = (np.atleast_1d(x) for x in (truth, actual, free))
    finite = np.isfinite(truth) & np.isfinite(actual)
    largest = np.abs(truth[np.isfinite(truth)]).max(initial=1.0)
    allowed = ROUNDINGS * torch.finfo(getattr(torch, dtype)).eps * largest
    error = np.where(np.isfinite(truth) | np.isfinite(actual), np.inf, 0.0)
    error[finite] = np.abs(truth[finite].astype(np.float64) - actual[finite])
    error[free] = 0
    if error.size == 0:
        return Comparison(name, 0.0, (), 0.0, 0.0, allowed, 0, 0)
    worst = np.unravel_index(int(error.argmax()), error.shape)
    return Comparison(
        name,
        float(error[worst] / allowed),
        tuple(int(i) for i in worst),
        float(truth[worst]),
        float(actual[worst]),
        float(allowed),
        int((error > allowed).sum()),
        error.size,
    )
