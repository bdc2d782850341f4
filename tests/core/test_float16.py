"""NumPy in float16, which a checkpoint may be stored in: computed and returned in float32."""

import numpy as np
import pytest

from gptwin.core.language.cross_entropy import cross_entropy
from gptwin.core.layers.layer_norm import layer_norm
from gptwin.core.layers.softmax import softmax
from gptwin.core.model.generation import generate
from gptwin.core.model.gpt import gpt, init_state, loss_and_gradients, train_step
from gptwin.core.model.parameters import init_parameters
from gptwin.core.model.presets import GPTConfig
from gptwin.core.optimizer.adamw import adamw
from gptwin.core.optimizer.ema import ema
from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.twins.draw import RandomArrays
from gptwin.lab.verify.check import reference

# Both return what they are given to move on: parameters, averages.
OPERATIONS = {name: twin for name, twin in TWINS.items() if name not in ("adamw", "ema")}
TINY = GPTConfig(11, 8, 2, 2, 16)


def to(dtype, arrays):
    """Cast the float arrays of a dict, and leave the rest."""
    is_float = {n: isinstance(x, np.ndarray) and x.dtype.kind == "f" for n, x in arrays.items()}
    return {n: x.astype(dtype) if is_float[n] else x for n, x in arrays.items()}


def with_cotangents(twin, tensors, options, dtype):
    """Run forward and backward on these tensors, with cotangents of `dtype`."""
    results = reference(twin, tensors, options, ())
    rng = RandomArrays(7)
    cotangents = [
        to(dtype, {"d": rng.normal(*np.shape(result)).astype(np.float16)})["d"]
        for name, result in results.items()
        if name not in twin.statistics
    ]
    return reference(twin, tensors, options, tuple(cotangents)) if cotangents else results


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_every_operation_computes_in_float32(name):
    twin = TWINS[name]
    for case in twin.corners[:3]:
        inputs = twin.inputs({"seed": 3} | case, RandomArrays(case.get("seed", 3)))
        tensors, options = (to(np.float16, arrays) for arrays in (inputs.tensors, inputs.options))
        found = with_cotangents(twin, tensors, options, np.float16)
        exact = with_cotangents(twin, to(np.float64, tensors), to(np.float64, options), np.float64)
        assert found.keys() == exact.keys()
        for result, truth in exact.items():
            got = np.asarray(found[result])
            if np.asarray(truth).dtype.kind == "f":
                assert got.dtype == np.float32, result
            size = np.abs(truth, where=np.isfinite(truth), out=np.zeros(np.shape(truth)))
            np.testing.assert_allclose(
                got, truth, rtol=1e-3, atol=1e-4 * size.max(initial=1e-3), err_msg=result
            )


def test_what_overflows_or_stops_growing_in_float16_does_not():
    """The three inputs of a bug report: zeros, zeros and infinity came out."""
    ones = np.ones(64, np.float16)
    x = (3000 * (-1.0) ** np.arange(64)).astype(np.float16)
    assert np.abs(layer_norm(x, ones, 0 * ones)).min() > 0.5
    equal = softmax(np.zeros(70_000, np.float16))
    np.testing.assert_allclose(equal, 1 / 70_000, rtol=1e-5)
    hidden, weight = np.ones((9000, 2), np.float16), np.ones((2, 3000), np.float16)
    loss, *_ = cross_entropy(hidden, weight, np.zeros(9000, np.int64))
    assert float(loss) == pytest.approx(np.log(3000), rel=1e-5)


def test_a_model_stored_in_float16_runs_and_trains_as_one_in_float32():
    stored = init_parameters(TINY, 0, np.float16)
    wide = to(np.float32, stored)
    tokens = np.random.default_rng(0).integers(0, 11, (2, 8))
    np.testing.assert_array_equal(gpt(stored, tokens, TINY), gpt(wide, tokens, TINY))
    (loss, gradients), (expected, _) = (
        loss_and_gradients(p, tokens, tokens, TINY) for p in (stored, wide)
    )
    assert loss == expected and all(g.dtype == np.float32 for g in gradients.values())
    new = [generate(p, TINY, [[1, 2], [3]], max_new_tokens=5) for p in (stored, wide)]
    assert new[0] == new[1]
    state = init_state(stored)
    assert all(m.dtype == np.float32 for m in state.first_moments.values())
    _, _, moved, state = train_step(stored, state, tokens, tokens, TINY, lr=1e-2)
    assert all(p.dtype == np.float16 for p in moved.values())
    assert all(m.dtype == np.float32 for m in state.second_moments.values())


def test_half_precision_moments_are_refused():
    half, single = [np.ones(3, np.float16)], [np.ones(3, np.float32)]
    adamw(half, half, single, single, step=1, lr=0.1)
    for moments, name in (((half, single), "first"), ((single, half), "second")):
        expected = rf"{name}_moments\[0\]: expected dtype float32"
        with pytest.raises(ValueError, match=expected):
            adamw(half, half, *moments, step=1, lr=0.1)


def test_an_eps_that_is_0_in_the_moments_precision_is_refused():
    single, double = [np.zeros(2, np.float32)], [np.zeros(2)]
    with pytest.raises(ValueError, match="eps: expected a number that float32 tells from 0"):
        adamw(single, single, single, single, step=1, lr=0.1, eps=1e-50)
    moved = adamw(double, double, double, double, step=1, lr=0.1, eps=1e-50)
    assert not moved.parameters[0].any()


def test_an_average_in_float16_is_computed_in_float32_and_rounded_once():
    average, parameter = np.random.default_rng(0).normal(size=(2, 5000)).astype(np.float16)
    (after,) = ema([average], [parameter], 0.992)
    exact = 0.992 * average.astype(np.float32) + (1 - 0.992) * parameter.astype(np.float32)
    np.testing.assert_array_equal(after, exact.astype(np.float16))
