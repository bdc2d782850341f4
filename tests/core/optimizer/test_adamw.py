"""The reference AdamW: PyTorch's in float64, both conventions of epsilon, clipping."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.optimizer.adamw import adamw

SHAPES = [(3, 5), (0,), (), (7,), (2, 0, 3)]
seeds = st.integers(0, 1000)


def draw(seed, std=1.0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.normal(0, std, size=shape), dtype) for shape in SHAPES]


def zeros(dtype=np.float64):
    return [np.zeros(shape, dtype) for shape in SHAPES]


@given(
    seeds,
    st.sampled_from([(0.9, 0.999), (0.9, 0.95), (0.0, 0.5)]),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from([None, 0.5, 1e3]),
)
def test_several_steps_are_pytorchs(seed, betas, decay, max_norm):
    parameters, first, second = draw(seed), zeros(), zeros()
    leaves = [torch.tensor(p, requires_grad=True) for p in parameters]
    optimizer = torch.optim.AdamW(leaves, lr=0.01, betas=betas, eps=1e-8, weight_decay=decay)
    for step in (1, 2, 3):
        gradients = draw(seed + step)
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = torch.tensor(gradient)
        norm = torch.nn.utils.clip_grad_norm_(leaves, max_norm or math.inf)
        optimizer.step()
        parameters, first, second, actual = adamw(
            *(parameters, gradients, first, second),
            step=step, lr=0.01, betas=betas, weight_decay=decay, max_norm=max_norm,
        )  # fmt: skip
        assert actual == pytest.approx(norm.item(), rel=1e-14)
        for new, leaf in zip(parameters, leaves, strict=True):
            np.testing.assert_allclose(new, leaf.detach().numpy(), atol=1e-14)
        for i, leaf in enumerate(leaves):
            state = optimizer.state[leaf]
            np.testing.assert_allclose(first[i], state["exp_avg"].numpy(), atol=1e-14)
            np.testing.assert_allclose(second[i], state["exp_avg_sq"].numpy(), atol=1e-14)


@pytest.mark.parametrize(
    ("epsilon", "expected"),
    [("pytorch", (0.90909, 0.50000, 0.09091)), ("tensorflow", (0.24025, 0.03065, 0.00315))],
)
def test_the_first_updates_of_both_epsilons(epsilon, expected):
    """Update / lr at eps 1e-5 and gradients 1e-4, 1e-5, 1e-6."""
    gradient = np.array([1e-4, 1e-5, 1e-6])
    nothing = np.zeros(3)
    new = adamw(
        *([nothing], [gradient], [nothing], [nothing]), step=1, lr=1.0, eps=1e-5, epsilon=epsilon
    ).parameters[0]
    np.testing.assert_allclose(-new, expected, atol=5e-6)


def test_a_thousand_steps_on_a_constant_gradient_move_lr_each():
    """Without bias correction the first would move 0.1/√0.001 = 3.2 times as far."""
    parameter, first, second = [np.zeros(1)], [np.zeros(1)], [np.zeros(1)]
    for step in range(1, 1001):
        parameter, first, second, _ = adamw(
            parameter, [np.full(1, 0.3)], first, second, step=step, lr=1e-3, eps=1e-12
        )
        np.testing.assert_allclose(parameter[0], -1e-3 * step, rtol=1e-9)


def test_decay_is_decoupled_and_one_for_each():
    """No gradient, no momentum: only lr · λ acts, and not through the moments."""
    parameters = [np.ones(2), np.ones(2)]
    nothing = [np.zeros(2), np.zeros(2)]
    new = adamw(parameters, nothing, nothing, nothing, step=1, lr=0.5, weight_decay=[0.1, 0.0])
    np.testing.assert_allclose(new.parameters[0], 0.95)
    np.testing.assert_array_equal(new.parameters[1], 1.0)
    assert not any(m.any() for m in (*new.first_moments, *new.second_moments))


@given(seeds, st.sampled_from([0.1, 1.0, 100.0]))
def test_clipping_scales_all_tensors_by_one_number(seed, max_norm):
    gradients, nothing = draw(seed), zeros()
    options = {"step": 1, "lr": 0.1, "betas": (0.0, 0.0)}
    new = adamw(nothing, gradients, nothing, nothing, max_norm=max_norm, **options)
    norm = math.sqrt(sum((g**2).sum() for g in gradients))
    assert new.gradient_norm == pytest.approx(norm)
    clipped = math.sqrt(sum((m**2).sum() for m in new.first_moments))
    assert clipped == pytest.approx(min(norm, max_norm), rel=1e-4)
    for first, gradient in zip(new.first_moments, gradients, strict=True):
        np.testing.assert_allclose(first * norm, gradient * clipped, atol=1e-12)


def test_arguments_are_not_changed_and_no_tensors_give_none():
    lists = [draw(0), draw(1), draw(2), [abs(x) for x in draw(3)]]
    before = [[x.copy() for x in tensors] for tensors in lists]
    adamw(*lists, step=2, lr=0.1, weight_decay=0.1, max_norm=1.0)
    for tensors, old in zip(lists, before, strict=True):
        for a, b in zip(tensors, old, strict=True):
            np.testing.assert_array_equal(a, b)
    new = adamw([], [], [], [], step=1, lr=0.1, max_norm=1.0)
    assert new[:3] == ([], [], []) and new.gradient_norm == 0


def test_dtypes_stay():
    """Parameters in half precision, moments in float32."""
    lists = [draw(0, dtype=np.float16), draw(1, dtype=np.float16), zeros("f4"), zeros("f4")]
    options = {"betas": (np.float64(0.9), np.float64(0.99)), "weight_decay": np.float64(0.1)}
    new = adamw(*lists, step=1, lr=np.float64(0.1), max_norm=np.float64(1), **options)
    for tensors, dtype in zip(new[:3], ("f2", "f4", "f4"), strict=True):
        assert {x.dtype for x in tensors} == {np.dtype(dtype)}
    assert new.gradient_norm.dtype == np.float32


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_gradient_that_is_not_finite_is_named(value):
    gradients = draw(1)
    gradients[3][2] = value
    with pytest.raises(ValueError, match=r"gradients\[3\]: expected finite numbers, got 1 that"):
        adamw(draw(0), gradients, zeros(), zeros(), step=1, lr=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 0}, "step: expected an integer of at least 1, got 0"),
        ({"lr": -1.0}, "lr: expected a finite number of at least 0, got -1.0"),
        ({"betas": (0.9, 1.0)}, r"betas\[1\]: expected a number from 0 to below 1, got 1.0"),
        ({"betas": (0.9,)}, "betas: expected two numbers"),
        ({"eps": 0.0}, "eps: expected a finite number above 0"),
        ({"weight_decay": [0.1]}, "weight_decay: expected one number, or 5, got 1 of them"),
        ({"weight_decay": -0.1}, "weight_decay: expected finite numbers of at least 0, got -0.1"),
        ({"max_norm": 0.0}, "max_norm: expected a finite number above 0"),
        ({"epsilon": "keras"}, "epsilon: expected 'pytorch' or 'tensorflow', got 'keras'"),
        ({"gradients": []}, "gradients: expected 5 tensors, like parameters, got 0"),
        ({"first_moments": [np.zeros(2)] * 5}, r"first_moments\[0\]: expected shape \(3, 5\)"),
        ({"parameters": iter(zeros())}, "parameters: expected a list of tensors, got list_iter"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    names = ("parameters", "gradients", "first_moments", "second_moments")
    good = dict(zip(names, (draw(0), draw(1), zeros(), zeros()), strict=True))
    with pytest.raises(ValueError, match=message):
        adamw(**(good | {"step": 1, "lr": 0.1} | changes))
