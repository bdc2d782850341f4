"""What every twin must satisfy. A new entry in the catalogue is tested here as it is."""

import json
from datetime import date

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from gptwin.kernels.common import launch
from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.twins.draw import RandomArrays, to_numpy, to_torch
from gptwin.lab.twins.twin import as_tuple
from gptwin.lab.verify import regressions, verify
from gptwin.lab.verify.check import TEXT_CASE, check, differentiable, prepare, reference
from gptwin.lab.verify.verify import Job, fixed_cases, remember_row, variants, verify_row

each_twin = pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)


def tame(case: dict) -> dict:
    """The same case with numbers near 1, where differences are accurate.

    A norm of two or three features is nearly a step where they are nearly equal: some more.
    """
    wider = {"d_model": max(case["d_model"], 8)} if "d_model" in case else {}
    return case | {"magnitude": 1.0, "minus_inf": False, "offset": 0.0} | wider


def holds_for_tame_cases(twin, holds, max_examples):
    """Try a property on what failed once, then on random cases; remember a case that fails."""
    for failure in regressions.failures(twin.name):
        holds(tame({"seed": 0} | failure.case))
    last = {}

    @settings(max_examples=max_examples)
    @given(twin.cases)
    def on_random_cases(case):
        last["case"] = case  # in the end Hypothesis runs the smallest failing one
        holds(tame(case))

    try:
        on_random_cases()
    except Exception:
        note = f"{date.today()}: tests/test_twins.py, {holds.__qualname__.split('.')[0]}"
        regressions.remember(twin.name, regressions.Failure(twin.dtypes[0], last["case"], note))
        raise


def reference_case(twin, case):
    inputs = twin.inputs(case, RandomArrays(case["seed"]))
    rng = RandomArrays(case["seed"] + 1)
    results = differentiable(twin, reference(twin, inputs.tensors, inputs.options, ()))
    return inputs, tuple(rng.normal(*result.shape) for result in results.values())


@each_twin
def test_backward_agrees_with_finite_differences(twin):
    if set(twin.results) == set(twin.statistics):
        pytest.skip(f"{twin.name} has no gradient")

    def agrees(case):
        inputs, d_results = reference_case(twin, case)
        direction = RandomArrays(case["seed"] + 2)
        step = {name: direction.normal(*x.shape) for name, x in inputs.tensors.items()}

        def loss(h):
            moved = {name: x + h * step[name] for name, x in inputs.tensors.items()}
            results = differentiable(twin, reference(twin, moved, inputs.options, ()))
            return sum((r * d).sum() for r, d in zip(results.values(), d_results, strict=True))

        h = 1e-3  # fourth-order central difference: the error is of order h⁴
        numeric = (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h)
        named = reference(twin, inputs.tensors, inputs.options, d_results)
        products = [named[f"d_{name}"] * step[name] for name in step]
        exact = sum(p.sum() for p in products)
        size = sum(np.abs(p).sum() for p in products)
        assert abs(numeric - exact) <= 1e-7 * max(size, 1e-3)

    holds_for_tame_cases(twin, agrees, max_examples=15)


@each_twin
def test_reference_agrees_with_pytorch_in_float64(twin):
    def agrees(case):
        inputs, d_results = reference_case(twin, case)
        named = reference(twin, inputs.tensors, inputs.options, d_results)
        leaves = {n: torch.tensor(x, requires_grad=True) for n, x in inputs.tensors.items()}
        options = {
            n: torch.from_numpy(o) if isinstance(o, np.ndarray) else o
            for n, o in inputs.options.items()
        }
        results = as_tuple(twin.eager(**leaves, **options))
        actual = dict(zip(twin.results, results, strict=False))
        roots = tuple(differentiable(twin, actual).values())
        if roots:
            d_roots = tuple(map(torch.tensor, d_results))
            gradients = torch.autograd.grad(roots, tuple(leaves.values()), d_roots)
            actual |= {f"d_{n}": g for n, g in zip(leaves, gradients, strict=True)}
        assert actual.keys() == named.keys()
        for name, expected in named.items():
            finite = np.where(np.isfinite(expected), expected, 0)  # an lse may be -inf
            scale = np.abs(finite).max(initial=1.0)  # cotangents are of size 1
            np.testing.assert_allclose(to_numpy(actual[name]), expected, atol=1e-10 * scale)

    holds_for_tame_cases(twin, agrees, max_examples=25)


@pytest.mark.parametrize("backend", ("triton", "eager"))
@each_twin
def test_second_derivative_is_true_or_an_error(twin, backend, device):
    """A gradient penalty must not lose its derivative in silence."""
    if set(twin.results) == set(twin.statistics):
        pytest.skip(f"{twin.name} has no gradient")
    dtype = torch.float64 if backend == "eager" else torch.float32
    inputs = twin.inputs(tame({"seed": 0} | twin.corners[0]), RandomArrays(0))
    options = {
        n: to_torch(o, dtype, device) if isinstance(o, np.ndarray) else o
        for n, o in inputs.options.items()
    }
    tensors = {n: torch.tensor(x, device=device, dtype=dtype) for n, x in inputs.tensors.items()}
    direction = [torch.from_numpy(RandomArrays(1).normal(*x.shape)) for x in tensors.values()]
    direction = [d.to(device, dtype) for d in direction]

    def penalised(operation, leaves):
        results = operation(**dict(zip(tensors, leaves, strict=True)), **options)
        named = dict(zip(twin.results, as_tuple(results), strict=False))
        loss = sum(r.sum() for r in differentiable(twin, named).values())
        gradients = torch.autograd.grad(loss, leaves, create_graph=True)
        return loss + sum((g**2).sum() for g in gradients)

    leaves = [x.clone().requires_grad_() for x in tensors.values()]
    with launch.backend(backend):
        try:
            gradients = torch.autograd.grad(penalised(twin.kernel, leaves), leaves)
        except RuntimeError as error:
            assert "second derivative" in str(error) or "not implemented" in str(error)
            return
    actual = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))

    def moved(h):
        there = zip(tensors.values(), direction, strict=True)
        return penalised(twin.eager, [(x + h * d).requires_grad_() for x, d in there]).detach()

    h = 1e-3  # as above
    numeric = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
    torch.testing.assert_close(actual, numeric, rtol=1e-6, atol=1e-6)


@each_twin
def test_results_can_be_written_in_place(twin, device):
    """As any tensor's; what backward needs as it was is refused by PyTorch's own error."""
    case = tame({"seed": 0} | twin.corners[0])
    prepared = prepare(twin, case, "float32", device, None)

    def gradients(name, double):
        leaves = {n: t.detach().requires_grad_() for n, t in prepared.tensors.items()}
        with launch.backend("triton"):
            results = as_tuple(twin.kernel(**leaves, **prepared.options))
            named = dict(zip(twin.results, results, strict=False))
            if name in named:
                named[name] = double(named[name])
            roots = tuple(differentiable(twin, named).values())
            return torch.autograd.grad(roots, tuple(leaves.values()), prepared.d_results)

    for name in differentiable(twin, dict.fromkeys(twin.results)):
        expected = gradients(name, lambda x: 2 * x)
        try:
            actual = gradients(name, lambda x: x.mul_(2))
        except RuntimeError as error:
            assert "needed for gradient computation has been modified" in str(error)
        else:
            torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


@each_twin
def test_reference_in_float32_stays_float32(twin):
    for case in twin.corners:
        inputs, d_results = reference_case(twin, {"seed": 0} | case)
        tensors = {name: x.astype(np.float32) for name, x in inputs.tensors.items()}
        d_results = tuple(d.astype(np.float32) for d in d_results)
        named = reference(twin, tensors, inputs.options, d_results)
        floats = {name: x.dtype for name, x in named.items() if x.dtype.kind == "f"}
        assert floats and floats == dict.fromkeys(floats, np.float32)


REACHED = {}  # by twin, dtype and case: the kernels that ran, each with its configuration's index


def remembering(twin, case, dtype, device, text=None):
    """Check a case, and remember what it reached."""
    checked = check(twin, case, dtype, device, text)
    REACHED[twin.name, dtype, json.dumps(case)] = checked.reached
    return checked


def reached(twin, case, dtype, device):
    """Say what a case reaches, without a second run if the check below has had it."""
    key = twin.name, dtype, json.dumps(case)
    return REACHED[key] if key in REACHED else remembering(twin, case, dtype, device).reached


@pytest.mark.parametrize("dtype", ("float32", "float16", "bfloat16"))
@each_twin
def test_kernel_agrees_with_reference(twin, dtype, device, monkeypatch):
    if dtype not in twin.dtypes:
        pytest.skip(f"{twin.name} does not take {dtype}")
    monkeypatch.setattr(verify, "check", remembering)
    row = verify_row(Job(twin.name, dtype, examples=10, seed=1, text=None), device, lambda: None)
    if row.failure is not None:
        remember_row(row, "tests/test_twins.py")
    assert row.failure is None, (row.failure, row.tile)


@each_twin
def test_fixed_cases_reach_every_kernel_and_configuration(twin, device):
    missing = set(variants(twin))
    for dtype in twin.dtypes:
        for case in fixed_cases(twin):
            if missing:
                missing -= reached(twin, case, dtype, device)
    assert not missing


@each_twin
def test_cases_are_json_and_draw_the_same_arrays_again(twin):
    @settings(max_examples=5)
    @given(twin.cases)
    def stable(case):
        again = json.loads(json.dumps(case))
        assert again == case
        first, second = (prepare(twin, c, "float32", "cpu", None) for c in (case, again))
        for name in first.truth:
            np.testing.assert_array_equal(first.truth[name], second.truth[name])

    stable()


@each_twin
def test_a_cost_is_declared_for_each_pass_that_there_is(twin):
    """tests/lab/trace/test_traffic.py counts its bytes."""
    forward_only = set(twin.results) == set(twin.statistics)
    for case in twin.corners:
        forward, backward = twin.cost(case, 4)
        assert min(forward.bytes, forward.flops) > 0
        assert (backward is None) == (twin.backward is None) == forward_only
        assert backward is None or min(backward.bytes, backward.flops) > 0


def test_real_text_reaches_the_kernels_as_it_is():
    prepared = prepare(TWINS["softmax"], TEXT_CASE, "float32", "cpu", None)
    assert prepared.tensors["x"].shape == (1, 4, 48, 48)
