"""An operation by its NumPy reference, by eager PyTorch and others: one call, forward and backward.

All get the same numbers, in float32, and give results and gradients that can be compared.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..lab.twins.twin import Case, Twin, as_tuple, by_argument
from .inputs import Arguments, draw_arguments
from .timing import Contender

D_HEAD = 64

# The operations of a decoder block as GPT-2 shapes them: from tokens and width to a case.
MODEL_CASES: dict[str, Callable[[int, int], Case]] = {
    "layer_norm": lambda time, width: {"shape": [1, time, width], "residual": True},
    "gelu": lambda time, width: {"shape": [1, time, 4 * width]},
    "linear": lambda time, width: {
        "rows": time, "d_in": width, "d_out": 4 * width, "bias": True, "activation": "gelu",
    },
    "softmax": lambda time, width: {
        "shape": [1, width // D_HEAD, time, time], "causal": True, "scale": D_HEAD**-0.5,
    },
    "attention": lambda time, width: {
        "batch": 1, "head": width // D_HEAD, "queries": time, "d_head": D_HEAD, "causal": True,
    },
    "decoder_block": lambda time, width: {
        "batch": 1, "time": time, "d_model": width, "n_head": width // D_HEAD, "d_head": D_HEAD,
    },
}  # fmt: skip


def arguments(twin: Twin, case: Case) -> Arguments:
    """Draw a case's arguments on the CPU, in float32.

    Parameters
    ----------
    twin : Twin
    case : Case

    Returns
    -------
    Arguments
    """
    return draw_arguments(twin, case, "float32", "cpu")


def by_torch(given: Arguments, operation: Callable[..., Any]) -> Contender:
    """Make the provider of an operation on tensors: eager, compiled, or a kernel.

    Parameters
    ----------
    given : Arguments
    operation : callable
        With the twin's own signature.

    Returns
    -------
    Contender
    """
    cotangents = given.cotangents(_roots(given))

    def run() -> dict[str, Any]:
        results = given.forward(operation)
        if not given.has_backward:
            return results
        return results | given.backward(given.roots(results), cotangents)

    def result() -> Mapping[str, Any]:
        return comparable({name: x.detach().numpy() for name, x in run().items()})

    return Contender(run, result)


def by_numpy(given: Arguments) -> Contender:
    """Make the provider of the NumPy reference.

    Parameters
    ----------
    given : Arguments

    Returns
    -------
    Contender
    """
    twin = given.twin
    tensors = {name: x.detach().numpy() for name, x in given.leaves.items()}
    options = {name: x.numpy() if hasattr(x, "numpy") else x for name, x in given.options.items()}
    roots = _roots(given)
    cotangents = given.cotangents(roots)

    def run() -> dict[str, Any]:
        with np.errstate(all="ignore"):
            results, saved = twin.forward(**tensors, **options)
            named = dict(zip(twin.results, as_tuple(results), strict=False))
            if twin.backward is None:
                return named
            d_results = [
                cotangents[name].numpy() if name in roots else np.zeros_like(result)
                for name, result in named.items()
                if name not in twin.statistics
            ]
            gradients = by_argument(twin, twin.backward(saved, *d_results))
        return named | {f"d_{name}": g for name, g in gradients.items() if name in tensors}

    return Contender(run, lambda: comparable(run()))


def _roots(given: Arguments) -> dict[str, Any]:
    """Return the results that backward starts from, as eager PyTorch computes them."""
    if not given.has_backward:
        return {}
    return {name: x.detach() for name, x in given.roots(given.forward(given.twin.eager)).items()}


def comparable(results: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Part what is finite from what is not, which must be the same.

    Parameters
    ----------
    results : dict
        Arrays by name.

    Returns
    -------
    dict of numpy.ndarray
        Two for each: the numbers, 0 where there is none; and 1 where there is one.
    """
    parted = {}
    for name, result in results.items():
        array = np.asarray(result, np.float64)
        finite = np.isfinite(array)
        parted[name] = np.where(finite, array, 0.0)
        parted[f"{name}, finite"] = finite.astype(np.float64)
    return parted
