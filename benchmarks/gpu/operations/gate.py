"""The gate: nobody is timed who computes something else.

The truth is the NumPy reference in float64 where the work is small, else the eager twin on the same
device in float64, or float32 where memory does not suffice. The budget is that of `gptwin verify`:
an element may be off by twice (a gradient: three times) the worst error of the eager twin in the
dtype that is timed, one rounding of itself, and a few float32 roundings of the largest. Where the
truth is no number, the result must be the same. Drawn tokens must be equal, but for one in a
hundred: in float64 a draw on the edge falls on the other side. That is gptwin's budget; peers, who
may round elsewhere and still compute the same, get `PEERS` of it.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np
import torch

from ....lab.twins.twin import as_tuple, by_argument
from ...inputs import Arguments, Operation, Tensors
from ...timing import GateError

RESULT_MULTIPLE, GRADIENT_MULTIPLE = 2.0, 3.0
DIFFERENT_DRAWS = 0.01
PEERS = 4.0
FLOPS_FOR_NUMPY, NUMBERS_FOR_NUMPY = 2e8, 2e6
PIECE = 2**26  # elements compared at a time
FLOAT32_ROUNDING = 2.0**-24
KEPT_BYTES = 8 * 2**30  # more than this waits on the host


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is right, and how far off eager PyTorch is.

    Attributes
    ----------
    values : dict
        Results and gradients by name; on the host if they are large.
    eager_error : dict
        The worst error of the eager twin in the dtype that is timed.
    how : str
        "NumPy float64", "eager float64" or "eager float32".
    """

    values: Tensors
    eager_error: dict[str, float]
    how: str


def find_truth(arguments: Arguments) -> Truth:
    """Compute the truth of a call.

    Parameters
    ----------
    arguments : Arguments

    Returns
    -------
    Truth

    Raises
    ------
    GateError
        If no way to it fits into memory.
    """
    eager = run(arguments, arguments.twin.eager)
    dtype = next(iter(arguments.leaves.values())).dtype
    for how, attempt in _ways(arguments):
        try:
            values = attempt()
        except torch.OutOfMemoryError:
            _free()
            continue
        errors = {name: _worst_error(eager[name], values[name]) for name in values}
        if dtype.itemsize < 4:  # float32 is exact enough to judge half precision by
            values = {n: x.float() if x.is_floating_point() else x for n, x in values.items()}
        return Truth(_put_away(values), errors, how)
    raise GateError("no room for a truth to compare with")


def _ways(arguments: Arguments) -> Iterator[tuple[str, Callable[[], Tensors]]]:
    """Yield the ways to the truth, the best first."""
    numbers = sum(x.numel() for x in arguments.leaves.values())
    flops = numbers  # at least
    if "cost" not in arguments.twin.undeclared:
        flops = arguments.twin.cost(arguments.case, 4)[0].flops
    if flops <= FLOPS_FOR_NUMPY and numbers <= NUMBERS_FOR_NUMPY:
        yield "NumPy float64", lambda: _by_numpy(arguments)
    dtype = next(iter(arguments.leaves.values())).dtype
    for wider in (torch.float64, torch.float32):
        if wider.itemsize > dtype.itemsize:
            name = str(wider).removeprefix("torch.")
            yield f"eager {name}", functools.partial(_run_as, wider, arguments)


def _run_as(dtype: torch.dtype, arguments: Arguments) -> Tensors:
    return run(arguments.as_dtype(dtype), arguments.twin.eager, cotangents_of=arguments)


def run(
    arguments: Arguments, operation: Operation, *, cotangents_of: Arguments | None = None
) -> Tensors:
    """Run an operation forward and backward; return results and gradients.

    Parameters
    ----------
    arguments : Arguments
    operation : callable
    cotangents_of : Arguments, optional
        In whose dtype the cotangents are drawn: the same numbers in every dtype.

    Returns
    -------
    dict of torch.Tensor
        Only what every provider has: see `Arguments.roots`.
    """
    twin = arguments.twin
    # Dropout's draws depend on a head's place among all heads.
    apart = twin.name == "attention" and not arguments.options.get("dropout")
    if apart and operation is twin.eager:
        return _head_by_head(arguments, operation, cotangents_of or arguments)
    results = arguments.forward(operation)
    kept = {name: x.detach() for name, x in results.items()}
    if arguments.has_backward:
        roots = arguments.roots(results)
        kept |= arguments.backward(roots, (cotangents_of or arguments).cotangents(roots))
    return _put_away(kept)


def _put_away(tensors: Tensors) -> Tensors:
    """Move results to the host if they would take the room that providers need."""
    if sum(x.nbytes for x in tensors.values()) > KEPT_BYTES:
        return {name: x.cpu() for name, x in tensors.items()}
    return tensors


def _head_by_head(arguments: Arguments, operation: Operation, drawn: Arguments) -> Tensors:
    """Run attention one key head of one sequence at a time: its scores are quadratic."""
    query, key = (arguments.leaves[name].detach() for name in ("query", "key"))
    group = query.shape[1] // key.shape[1]
    cotangent = drawn.cotangents({"output": query})["output"]
    found = {"output": torch.empty_like(query), "lse": query.new_empty(query.shape[:3])}
    found |= {f"d_{n}": torch.empty_like(x) for n, x in arguments.leaves.items()}
    for b in range(query.shape[0]):
        options = dict(arguments.options)
        if options.get("key_start") is not None:
            options["key_start"] = options["key_start"][b : b + 1]
        for h in range(key.shape[1]):
            queries = (slice(b, b + 1), slice(h * group, (h + 1) * group))
            keys = (slice(b, b + 1), slice(h, h + 1))
            places = {"query": queries, "key": keys, "value": keys}
            leaves = {
                n: arguments.leaves[n].detach()[p].requires_grad_() for n, p in places.items()
            }
            output, lse = as_tuple(operation(**leaves, **options))
            gradients = torch.autograd.grad(output, list(leaves.values()), cotangent[queries])
            found["output"][queries], found["lse"][queries] = output.detach(), lse.detach()
            for (name, place), gradient in zip(places.items(), gradients, strict=True):
                found[f"d_{name}"][place] = gradient
            del output, lse, gradients
    return _put_away(found)


def _by_numpy(arguments: Arguments) -> Tensors:
    """Run the NumPy reference in float64 on the numbers that the kernels are given."""
    twin = arguments.twin
    tensors = {name: _as_numpy(x) for name, x in arguments.leaves.items()}
    options = {
        name: _as_numpy(x) if isinstance(x, torch.Tensor) else x
        for name, x in arguments.options.items()
    }
    results, saved = twin.forward(**tensors, **options)
    named = dict(zip(twin.results, as_tuple(results), strict=False))
    values = {name: torch.from_numpy(np.array(x)) for name, x in named.items()}
    if twin.backward is None:
        return values
    drawn = arguments.cotangents(arguments.roots(values))
    d_results = [
        _as_numpy(drawn[name]) if name in drawn else np.zeros_like(named[name])
        for name in named
        if name not in twin.statistics
    ]
    gradients = by_argument(twin, twin.backward(saved, *d_results))
    given = {name: g for name, g in gradients.items() if name in tensors}
    return values | {f"d_{n}": torch.from_numpy(np.array(g)) for n, g in given.items()}


def _as_numpy(x: torch.Tensor) -> np.ndarray:
    x = x.detach().cpu()
    return (x.double() if x.is_floating_point() else x).numpy()


def expect_right(
    arguments: Arguments, truth: Truth, actual: Tensors, budgets: float = 1.0
) -> float:
    """Refuse what is beyond its budget.

    Parameters
    ----------
    arguments : Arguments
    truth : Truth
    actual : dict of torch.Tensor
        A provider's results and gradients; a result it has not is not compared.
    budgets : float
        How many budgets it may use up.

    Returns
    -------
    float
        The largest share of a budget that was used up.

    Raises
    ------
    GateError
        Naming the first that is wrong.
    """
    worst = 0.0
    for name, x in actual.items():
        expected = truth.values[name]
        if x.shape != expected.shape:
            raise GateError(f"{name}: expected shape {tuple(expected.shape)}, got {tuple(x.shape)}")
        share = _share(arguments, name, x, expected, truth.eager_error[name])
        if not share <= budgets:
            raise GateError(f"{name}: {share:.3g} times its error budget")
        worst = max(worst, share)
    return worst


def _share(
    arguments: Arguments, name: str, actual: torch.Tensor, truth: torch.Tensor, eager_error: float
) -> float:
    """Return the largest share of its budget that any element uses up."""
    if not actual.is_floating_point():
        different = (actual.cpu() != truth.cpu()).double().mean() if actual.numel() else 0.0
        return float(different) / DIFFERENT_DRAWS
    info = torch.finfo(next(iter(arguments.leaves.values())).dtype)
    multiple = GRADIENT_MULTIPLE if name.startswith("d_") else RESULT_MULTIPLE
    entry = arguments.twin.roundings * FLOAT32_ROUNDING * _largest(truth)
    everywhere = multiple * eager_error + entry + info.smallest_normal * info.eps
    worst = 0.0
    for mine, right in _pieces(actual, truth):
        finite = right.isfinite()
        allowed = everywhere + torch.where(finite, right, 0.0).abs() * (info.eps / 2)
        share = (mine - right).abs() / allowed
        share = torch.where(mine.isfinite() | ~finite, share, torch.inf)
        same = (mine == right) | (mine.isnan() & right.isnan())
        share = torch.where(finite, share, torch.where(same, 0.0, torch.inf))
        worst = max(worst, float(share.max()))
    return worst


def _worst_error(actual: torch.Tensor, truth: torch.Tensor) -> float:
    """Return the largest difference where the truth is a number."""
    worst = 0.0
    if truth.is_floating_point():
        for mine, right in _pieces(actual, truth):
            error = torch.where(right.isfinite(), (mine - right).abs(), 0.0)
            worst = max(worst, float(torch.where(error.isfinite(), error, 0.0).max()))
    return worst


def _largest(x: torch.Tensor) -> float:
    """Return the largest finite magnitude."""
    worst = 0.0
    for one, _ in _pieces(x, x):
        worst = max(worst, float(torch.where(one.isfinite(), one, 0.0).abs().max()))
    return worst


def _pieces(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield the tensors in float64 piece by piece, on the GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    flat = [x.detach().reshape(-1) for x in tensors]
    for start in range(0, len(flat[0]), PIECE):
        yield tuple(x[start : start + PIECE].to(device, torch.float64) for x in flat)


def _free() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
