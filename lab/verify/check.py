"""One check: a twin on one case, forward and backward, against its error budget (budget.py).

A tensor of few numbers shows one draw of eager's error, which may be small by luck in half
precision too. Before a disagreement there is reported, eager runs on more draws of the same case,
and its worst error on them counts.
(QKV attention with one or two numbers a head, in bfloat16: over 60 draws the kernel's root mean
square error was 0.01 to 1.33 of eager's, by tensor; yet in 4 of 60 random cases it exceeded three
times eager's worst somewhere.)
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ...core.checks import taking_anything
from ...kernels.common import launch
from ..twins.draw import RandomArrays, rounded_among, to_numpy, to_torch, with_nonfinite
from ..twins.real_text import activations
from ..twins.twin import Case, Inputs, Twin, as_tuple, by_argument
from .budget import Comparison, compare, largest, worst_error

# tf32 keeps 10 bits of mantissa and cuts the rest: a whole unit in the last place, not half.
FLOAT32_ROUNDING, TF32_ROUNDING = 2.0**-24, 2.0**-10
TEXT_CASE: Case = {"source": "text", "seed": 0}
# With so few numbers one draw of eager's error may be luck, so that many more draws are taken.
FEW_NUMBERS, MORE_DRAWS = 64, 8


@dataclasses.dataclass(frozen=True)
class Checked:
    """What one check of a case showed.

    Attributes
    ----------
    case : Case
        The case, with its `"configuration"`.
    comparisons : tuple of Comparison
        One per result and gradient; empty if the kernel raised.
    reached : frozenset of (str, int)
        Kernels launched, each with its configuration's index.
    error : str
        What the kernel raised, or why the runs differ; empty if nothing did.
    bits : dict of str
        A digest of each result and gradient; one NaN is like another.
    exact : bool
        Whether compiled kernels ran that give the same bits wherever they run: see
        kernels/native/kernel.py.
    """

    case: Case
    comparisons: tuple[Comparison, ...]
    reached: frozenset[tuple[str, int]]
    error: str = ""
    bits: dict[str, str] = dataclasses.field(default_factory=dict)
    exact: bool = False

    @property
    def worst(self) -> Comparison | None:
        """The comparison with the largest share, if there is any."""
        return max(self.comparisons, key=lambda c: c.share, default=None)

    @property
    def wrong(self) -> tuple[Comparison, ...]:
        """The comparisons beyond their budget; results come before the gradients they spoil."""
        return tuple(c for c in self.comparisons if c.share > 1)

    @property
    def share(self) -> float:
        """The largest share of a budget that was used up; 0 if nothing was compared."""
        return self.worst.share if self.worst else 0.0

    @property
    def passed(self) -> bool:
        """Whether everything stayed within its budget."""
        return not self.error and self.share <= 1


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A case's arguments on the device, quantised and laid out, and its cotangents.

    `frozen` are the arguments whose gradients are not asked for, so that no truth is of them.
    """

    tensors: dict[str, torch.Tensor]
    options: dict[str, Any]
    d_results: tuple[torch.Tensor, ...]
    truth: dict[str, np.ndarray]
    noise: dict[str, float]
    frozen: frozenset[str] = frozenset()


def prepare(twin: Twin, case: Case, dtype: str, device: str, text: str | None) -> Prepared:
    """Make a case's arguments and compute its truth.

    Parameters
    ----------
    twin : Twin
        The operation.
    case : Case
        What to run; `{"source": "text"}` takes the decoder block's activations.
    dtype : str
        "float32", "float16" or "bfloat16".
    device : str
        "cpu" or "cuda".
    text : str or None
        File for the text case; None for Python's documentation.

    Returns
    -------
    Prepared
        `truth` maps each result and each gradient ("d_" and the argument) to float64; `noise` to
        what the roundings of correct arithmetic may do to it.
    """
    inputs = case_inputs(twin, case, text)
    torch_dtype, layout = getattr(torch, dtype), case.get("layout", "contiguous")
    tensors = {n: to_torch(a, torch_dtype, device, layout) for n, a in inputs.tensors.items()}
    options = {
        n: to_torch(o, torch_dtype, device) if isinstance(o, np.ndarray) else o
        for n, o in inputs.options.items()
    }
    quantised = {n: to_numpy(t) for n, t in tensors.items()}
    numpy_options = {
        n: to_numpy(o) if isinstance(o, torch.Tensor) else o for n, o in options.items()
    }

    results = reference(twin, quantised, numpy_options, ())
    cotangents, d_layout = RandomArrays(case.get("seed", 0) + 1), case.get("d_layout", "contiguous")
    d_results = tuple(
        to_torch(cotangents.normal(*r.shape), torch_dtype, device, d_layout)
        for r in differentiable(twin, results).values()
    )
    d_quantised = tuple(to_numpy(d) for d in d_results)
    truth = reference(twin, quantised, numpy_options, d_quantised)
    frozen = frozenset(case.get("frozen", ()))
    truth = {n: expected for n, expected in truth.items() if n.removeprefix("d_") not in frozen}

    rounding = TF32_ROUNDING if case.get("precision") == "tf32" else FLOAT32_ROUNDING
    moved = {n: cotangents.jitter(a, rounding) for n, a in quantised.items()}
    d_moved = tuple(cotangents.jitter(d, rounding) for d in d_quantised)
    moved_truth = reference(twin, moved, numpy_options, d_moved)
    exponent = largest(truth[twin.exponent]) if twin.exponent else 0.0
    kept = truth
    if twin.kept:
        kept = reference(twin, quantised, numpy_options, d_quantised, torch_dtype)
    noise = {}
    for name, expected in truth.items():
        with np.errstate(invalid="ignore"):  # inf - inf
            movement = largest(moved_truth[name] - expected)
            reading = largest(kept[name] - expected)
        entry = rounding * largest(expected)
        noise[name] = twin.roundings * (movement + entry)
        if name.startswith("d_"):
            noise[name] += exponent * entry + reading
    return Prepared(tensors, options, d_results, truth, noise, frozen)


def reference(
    twin: Twin,
    tensors: dict[str, np.ndarray],
    options: dict[str, Any],
    d_results: tuple[np.ndarray, ...],
    kept_in: torch.dtype | None = None,
) -> dict[str, np.ndarray]:
    """Run the NumPy twin.

    Parameters
    ----------
    twin : Twin
        The operation.
    tensors, options : dict
        Its arguments by name, as NumPy arrays and plain values.
    d_results : tuple of numpy.ndarray
        Gradients of the results that carry one; empty to stop after the forward pass.
    kept_in : torch.dtype, optional
        Round the result `Twin.kept` to it before backward reads it again.

    Returns
    -------
    dict of numpy.ndarray
        Results by name and, with `d_results`, gradients by "d_" and the argument.
    """
    # infinities and NaN are cases like others
    with np.errstate(all="ignore"), taking_anything():
        results, saved = twin.forward(**tensors, **options)
        named = dict(zip(twin.results, as_tuple(results), strict=False))
        if not d_results:
            return named
        assert twin.backward is not None, f"{twin.name}: a result carries a gradient"
        if kept_in is not None and twin.kept is not None:
            saved = rounded_among(saved, named[twin.kept], kept_in)
        gradients = by_argument(twin, twin.backward(saved, *d_results))
    return named | {f"d_{name}": g for name, g in gradients.items() if name in tensors}


def differentiable(twin: Twin, results: dict[str, Any]) -> dict[str, Any]:
    """Keep the results that carry a gradient.

    Parameters
    ----------
    twin : Twin
        Whose they are.
    results : dict
        By name.

    Returns
    -------
    dict
    """
    return {name: result for name, result in results.items() if name not in twin.statistics}


def case_inputs(twin: Twin, case: Case, text: str | None) -> Inputs:
    """Draw a case's arrays, or take them from the text."""
    if case.get("source") == "text":
        return twin.real(activations(text, case.get("seed", 0)))
    inputs = twin.inputs(case, RandomArrays(case.get("seed", 0)))
    return with_nonfinite(inputs, *case["nonfinite"]) if "nonfinite" in case else inputs


def run(twin: Twin, operation: Any, prepared: Prepared) -> dict[str, torch.Tensor]:
    """Run an operation forward and backward.

    Parameters
    ----------
    twin : Twin
        Whose operation it is.
    operation : callable
        `Twin.kernel` or `Twin.eager`.
    prepared : Prepared
        Its arguments.

    Returns
    -------
    dict of torch.Tensor
        Results and gradients by name, as in `Prepared.truth`.
    """
    if operation is twin.eager:
        return _run(twin, operation, prepared)
    given = [*prepared.tensors.values(), *prepared.options.values(), *prepared.d_results]
    with twin.surroundings([value for value in given if isinstance(value, torch.Tensor)]):
        return _run(twin, operation, prepared)


def _run(twin: Twin, operation: Any, prepared: Prepared) -> dict[str, torch.Tensor]:
    leaves = {
        n: t.detach().requires_grad_(n not in prepared.frozen) for n, t in prepared.tensors.items()
    }
    named = dict(zip(twin.results, as_tuple(operation(**leaves, **prepared.options)), strict=False))
    roots = tuple(differentiable(twin, named).values())
    if not roots:
        return named
    wanted = {n: leaf for n, leaf in leaves.items() if n in twin.arguments and leaf.requires_grad}
    gradients = torch.autograd.grad(
        roots, tuple(wanted.values()), prepared.d_results, materialize_grads=True
    )
    return named | {f"d_{n}": g for n, g in zip(wanted, gradients, strict=True)}


def run_eager(twin: Twin, prepared: Prepared) -> dict[str, torch.Tensor]:
    """Run eager PyTorch, the yardstick, as it does best: on contiguous tensors.

    On a CPU with AMX, PyTorch 2.13's bfloat16 products of matrices whose rows are padded read the
    padding: NaN there is NaN in the result, and no yardstick.

    Parameters
    ----------
    twin : Twin
        Whose operation it is.
    prepared : Prepared
        Its arguments.

    Returns
    -------
    dict of torch.Tensor
        As from `run`.
    """
    tensors = {name: tensor.contiguous() for name, tensor in prepared.tensors.items()}
    d_results = tuple(d.contiguous() for d in prepared.d_results)
    best = dataclasses.replace(prepared, tensors=tensors, d_results=d_results)
    return run(twin, twin.eager, best)


def check(twin: Twin, case: Case, dtype: str, device: str, text: str | None = None) -> Checked:
    """Run a twin's kernel on one case and compare everything it returns with the truth.

    Output memory is filled with NaN before the launch, so an element that is never written shows.
    On a GPU the run is repeated and must be bit-identical.

    Parameters
    ----------
    twin, case, dtype, device, text
        As in `prepare`; `case["configuration"]` selects the autotune configuration.

    Returns
    -------
    Checked
    """
    prepared = prepare(twin, case, dtype, device, text)
    eager = run_eager(twin, prepared)
    checked = check_prepared(twin, case, dtype, device, prepared, eager)
    if any(0 < c.n_elements <= FEW_NUMBERS for c in checked.wrong):
        elsewhere = _errors_on_more_draws(twin, case, dtype, device, text)
        checked = check_prepared(twin, case, dtype, device, prepared, eager, elsewhere)
    return checked


def check_prepared(
    twin: Twin,
    case: Case,
    dtype: str,
    device: str,
    prepared: Prepared,
    eager: dict[str, torch.Tensor],
    elsewhere: dict[str, float] | None = None,
) -> Checked:
    """Check a kernel as `check` does, when all but the kernel has run already.

    Parameters
    ----------
    twin, case, dtype, device
        As in `check`.
    prepared : Prepared
        The case's arguments and truth.
    eager : dict of torch.Tensor
        What the eager equivalent makes of them.
    elsewhere : dict of float, optional
        As `compare`'s `error_elsewhere`, by name.

    Returns
    -------
    Checked
    """
    with launch.backend("triton"), launch.configuration(case.get("configuration", 0)):
        with launch.recording() as log, _poisoned_memory():
            try:
                actual = run(twin, twin.kernel, prepared)
                repeat = run(twin, twin.kernel, prepared) if device == "cuda" else actual
            except Exception as error:  # what a kernel raises is what the check shows
                return Checked(case, (), frozenset(), f"{type(error).__name__}: {error}")
    reached = frozenset((entry.kernel, entry.configuration) for entry in log)
    comparisons = tuple(
        compare(
            name,
            truth,
            to_numpy(eager[name]),
            to_numpy(actual[name]),
            dtype,
            prepared.noise[name],
            (elsewhere or {}).get(name, 0.0),
        )
        for name, truth in prepared.truth.items()
    )
    differing = [n for n in actual if not same_bits(actual[n], repeat[n])]
    unstable = f"two runs on the same input differ in {', '.join(differing)}" if differing else ""
    return Checked(
        case,
        comparisons,
        reached,
        unstable,
        bits={name: _digest(tensor) for name, tensor in actual.items()},
        exact=bool(log) and all(map(_is_exact, log)),
    )


def _is_exact(entry: launch.Launch) -> bool:
    """Say whether the compiler for the CPU vouches for a launch's bits."""
    return entry.compiled is not None and getattr(entry.compiled.metadata, "exact", False)


def _digest(tensor: torch.Tensor) -> str:
    known = tensor.detach()
    if known.is_floating_point():
        known = torch.where(known.isnan(), torch.full_like(known, torch.nan), known)
    raw = known.contiguous().reshape(-1).view(torch.uint8).cpu().numpy()
    return hashlib.blake2b(raw.tobytes(), digest_size=16).hexdigest()


def _errors_on_more_draws(
    twin: Twin, case: Case, dtype: str, device: str, text: str | None
) -> dict[str, float]:
    """Return eager's worst error on other draws of a case, for the tensors of few numbers."""
    worst: dict[str, float] = {}
    for draw in range(1, MORE_DRAWS + 1):
        prepared = prepare(twin, case | {"seed": case.get("seed", 0) + draw}, dtype, device, text)
        eager = run_eager(twin, prepared)
        for name, truth in prepared.truth.items():
            if truth.size <= FEW_NUMBERS:
                error = worst_error(to_numpy(eager[name]), truth)
                worst[name] = max(worst.get(name, 0.0), error)
    return worst


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Compare two tensors of one shape bit by bit."""
    if a is b:
        return True
    as_bytes = [t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
    return torch.equal(*as_bytes)


@contextlib.contextmanager
def _poisoned_memory() -> Iterator[None]:
    """Let PyTorch fill what `torch.empty` returns with NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    # torch.use_deterministic_algorithms would import PyTorch's compiler, for a second and more.
    torch._C._set_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch._C._set_deterministic_algorithms(before)
