"""How cost grows with length and width: the exponent of a power law, fitted to times.

Sizes and providers take turns, as everywhere here, so each round gives one time for each size and
one exponent: the slope of log time over log size. What is reported is the median over the rounds
with p20 and p80; beside it the standard error of the fit to the median times, which tells how far
they are from any power law, and the exponent of the twin's count of FLOPs over the same sizes.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ...lab.twins.catalogue import TWINS
from ...lab.twins.twin import Twin
from ..inputs import Arguments
from ..models import Settings
from ..operations import MODEL_CASES, arguments, by_numpy, by_torch
from ..timing import (
    Contender,
    Finding,
    describe,
    expect_same,
    finding,
    side_by_side,
)

EXPONENT = "exponent"
TOLERANCE = 1e-3  # of the largest number of each result; float32, and sums of a thousand

# GPT-2's width at growing lengths, and a fixed length at growing widths; in heads of 64.
LENGTHS, WIDTHS = (64, 128, 256, 512, 1024), (192, 384, 768, 1536)
LENGTH, WIDTH = 256, 768
QUICK_LENGTHS, QUICK_WIDTHS = (4, 8, 16), (64, 128)


def growth_with_length(settings: Settings) -> Iterator[Finding]:
    """Fit how an operation's time grows with the number of tokens."""
    lengths, width = (QUICK_LENGTHS, 64) if settings.quick else (LENGTHS, WIDTH)
    yield from _growth("length", lengths, [(n, width) for n in lengths], settings)


def growth_with_width(settings: Settings) -> Iterator[Finding]:
    """Fit how an operation's time grows with the width of the model."""
    widths, length = (QUICK_WIDTHS, 4) if settings.quick else (WIDTHS, LENGTH)
    yield from _growth("width", widths, [(length, n) for n in widths], settings)


def _growth(
    axis: str, sizes: Sequence[int], shapes: Sequence[tuple[int, int]], settings: Settings
) -> Iterator[Finding]:
    for name, case_of in MODEL_CASES.items():
        yield from _growth_of(TWINS[name], axis, sizes, [case_of(*s) for s in shapes], settings)


def _growth_of(
    twin: Twin, axis: str, sizes: Sequence[int], cases: Sequence[Any], settings: Settings
) -> Iterator[Finding]:
    """Time a twin's reference and eager PyTorch at every size; the gate stands before each."""
    drawn = [arguments(twin, case) for case in cases]
    makers: dict[str, Callable[[Arguments], Contender]] = {
        "NumPy reference": by_numpy,
        "eager PyTorch": functools.partial(by_torch, operation=twin.eager),
    }
    kept = {"axis": axis, "operation": twin.name, "sizes": list(sizes), "dtype": "float32"}
    try:
        runs: dict[tuple[str, int], Any] = {}
        for size, given in zip(sizes, drawn, strict=True):
            providers = {name: make(given) for name, make in makers.items()}
            truth, other = (provider.result() for provider in providers.values())
            for key, expected in truth.items():
                expect_same(f"{twin.name} at {size}: {key}", other[key], expected, TOLERANCE)
            runs |= {(name, size): provider.run for name, provider in providers.items()}
    except Exception as error:
        for name in makers:
            yield _not_measured(twin.name, name, axis, describe(error), kept)
        return
    labels = {f"{name}, {size}": run for (name, size), run in runs.items()}
    share = settings.limit_s / (2 * len(MODEL_CASES))  # gates and overshooting take the other half
    seconds = side_by_side(labels, rounds=3 if settings.quick else 15, budget_s=share)
    counted = [sum(cost.flops for cost in twin.cost(case, 4) if cost) for case in cases]
    for name in makers:
        table = np.array([seconds[f"{name}, {size}"] for size in sizes])  # [size, round]
        medians = np.median(table, axis=1)
        by_count = float(slope(sizes, np.array(counted)))
        spread = standard_error(sizes, medians)
        note = f"FLOPs grow with {by_count:.2f}"
        yield finding(
            _name(twin.name, name, axis), slope(sizes, table).tolist(), None, EXPONENT,
            kept | {"provider": name}, by_count=by_count, standard_error=spread,
            median_seconds=medians.tolist(),
            note=note if spread is None else f"fit ± {spread:.2f}; {note}",
        )  # fmt: skip


def _name(operation: str, provider: str, axis: str) -> str:
    return f"{operation} with {axis}, {provider}"


def _not_measured(operation: str, provider: str, axis: str, reason: str, kept: Any) -> Finding:
    return {
        "name": _name(operation, provider, axis), "status": "not measured", "reason": reason,
        "unit": EXPONENT, "goal": None, "reached": None, "settings": kept | {"provider": provider},
    }  # fmt: skip


def slope(sizes: Sequence[int], values: np.ndarray) -> np.ndarray:
    """Return the exponent of the power law of least squares through values over sizes.

    Parameters
    ----------
    sizes : sequence of int
    values : numpy.ndarray [size, ...]
        Positive.

    Returns
    -------
    numpy.ndarray [...]
    """
    x = np.log(np.asarray(sizes, float))
    x = x - x.mean()
    return np.tensordot(x, np.log(values.astype(float)), axes=1) / (x @ x)


def standard_error(sizes: Sequence[int], values: np.ndarray) -> float | None:
    """Return the standard error of that exponent, from how far the values are from the power law.

    Parameters
    ----------
    sizes : sequence of int
    values : numpy.ndarray [size]

    Returns
    -------
    float or None
        None with two sizes, through which a power law always passes.
    """
    if len(sizes) < 3:
        return None
    x, y = np.log(np.asarray(sizes, float)), np.log(values)
    x, y = x - x.mean(), y - y.mean()
    residual = y - slope(sizes, values) * x
    return float(np.sqrt(residual @ residual / (len(sizes) - 2) / (x @ x)))
