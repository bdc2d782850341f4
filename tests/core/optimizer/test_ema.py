"""The reference moving average."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.optimizer.ema import ema

decays = st.floats(0, 1)


def draw(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in shapes]


def test_known_values():
    (average,) = ema([np.array([1.0, -2.0])], [np.array([2.0, 2.0])], 0.75)
    np.testing.assert_array_equal(average, [1.25, -1.0])


@given(decays, st.integers(1, 6))
def test_n_steps_are_a_weighted_sum(decay, n_steps):
    start, *steps = draw(*[(3,)] * (n_steps + 1))
    averages = [start]
    for parameter in steps:
        averages = ema(averages, [parameter], decay)
    weights = [decay**n_steps] + [(1 - decay) * decay ** (n_steps - 1 - t) for t in range(n_steps)]
    expected = sum(w * x for w, x in zip(weights, (start, *steps), strict=True))
    assert sum(weights) == pytest.approx(1)
    np.testing.assert_allclose(averages[0], expected, atol=1e-14)


@given(decays)
def test_the_average_lies_between(decay):
    (average,), (parameter,) = draw((50,), seed=1), draw((50,), seed=2)
    (new,) = ema([average], [parameter], decay)
    slack = 1e-15 * (np.abs(average) + np.abs(parameter))
    assert (new >= np.minimum(average, parameter) - slack).all()
    assert (new <= np.maximum(average, parameter) + slack).all()


def test_decay_1_keeps_and_decay_0_copies():
    averages, parameters = draw((2, 3), (), (0,)), draw((2, 3), (), (0,), seed=1)
    for decay, kept in ((1.0, averages), (0.0, parameters)):
        for new, expected in zip(ema(averages, parameters, decay), kept, strict=True):
            np.testing.assert_array_equal(new, expected)


def test_arguments_are_not_changed_and_no_tensors_give_none():
    averages, parameters = draw((4,)), draw((4,), seed=1)
    before = averages[0].copy()
    ema(averages, parameters, 0.5)
    np.testing.assert_array_equal(averages[0], before)
    assert ema([], [], 0.5) == []


def test_averages_keep_their_dtype():
    averages = [x.astype(np.float32) for x in draw((4,), ())]
    parameters = [x.astype(np.float16) for x in draw((4,), (), seed=1)]
    assert {new.dtype for new in ema(averages, parameters, np.float64(0.9))} == {np.dtype("f4")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decay": 1.5}, "decay: expected a number from 0 to 1, got 1.5"),
        ({"decay": float("nan")}, "decay: expected a number from 0 to 1, got nan"),
        ({"parameters": []}, "parameters: expected 1 tensors, like averages, got 0"),
        ({"parameters": [np.zeros(4)]}, r"parameters\[0\]: expected shape \(3,\), got shape"),
        ({"parameters": iter([np.zeros(3)])}, "parameters: expected a list of tensors, got list_"),
        ({"averages": [np.zeros(3, int)]}, r"averages\[0\]: expected a floating dtype, got dtype"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    good = {"averages": [np.zeros(3)], "parameters": [np.zeros(3)], "decay": 0.9}
    with pytest.raises(ValueError, match=message):
        ema(**good | arguments)
