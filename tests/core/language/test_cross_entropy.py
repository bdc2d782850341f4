"""The reference cross-entropy: PyTorch's, a uniform model's, and the climb to tiles."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.language.cross_entropy import (
    REDUCTIONS,
    cross_entropy,
    cross_entropy_backward,
    cross_entropy_forward,
    cross_entropy_tiled,
)

seeds = st.integers(0, 1000)
reductions = st.sampled_from(REDUCTIONS)


def batch(seed=0, n=6, d_model=4, vocab=9, std=1.0, ignored=0.3):
    rng = np.random.default_rng(seed)
    targets = np.where(rng.random(n) < ignored, -100, rng.integers(0, vocab, n))
    return {
        "hidden": rng.normal(size=(n, d_model)),
        "weight": rng.normal(0, std, size=(d_model, vocab)),
        "targets": targets,
    }


def cotangents(results, seed=7):
    rng = np.random.default_rng(seed)
    return tuple(np.asarray(rng.normal(size=np.shape(r))) for r in results)


def loss_gradients(**arguments):
    """Gradients of the loss alone."""
    results, saved = cross_entropy_forward(**arguments)
    zeros = np.zeros(results[1].shape)
    return cross_entropy_backward(saved, np.ones(results[0].shape), zeros, zeros)


@given(seeds, reductions, st.sampled_from([-100, 3]))
def test_it_is_pytorchs(seed, reduction, ignore_index):
    arguments = batch(seed)
    arguments["targets"][0] = 1  # one counts: PyTorch's mean of none is NaN
    arguments["targets"][arguments["targets"] == -100] = ignore_index
    leaves = [torch.tensor(arguments[name], requires_grad=True) for name in ("hidden", "weight")]
    expected = torch.nn.functional.cross_entropy(
        leaves[0] @ leaves[1],
        torch.tensor(arguments["targets"]),
        ignore_index=ignore_index,
        reduction=reduction,
    )
    loss = cross_entropy(**arguments, ignore_index=ignore_index, reduction=reduction)[0]
    np.testing.assert_allclose(loss, expected.detach().numpy(), atol=1e-13)
    d_leaves = torch.autograd.grad(expected.sum(), leaves)
    actual = loss_gradients(**arguments, ignore_index=ignore_index, reduction=reduction)
    for a, b in zip(actual, d_leaves, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=1e-13)


@given(seeds, reductions, st.integers(1, 12), st.integers(1, 12))
def test_the_tiled_climb_equals_the_definition(seed, reduction, block, span):
    arguments = batch(seed)
    results, saved = cross_entropy_forward(**arguments, reduction=reduction)
    d_results = cotangents(results)
    gradients = cross_entropy_backward(saved, *d_results)
    tiled = cross_entropy_tiled(
        **arguments, d_results=d_results, reduction=reduction, block=block, span=span
    )
    for a, b in zip((*tiled[0], *tiled[1]), (*results, *gradients), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@given(seeds, st.integers(1, 300))
def test_a_uniform_models_loss_is_log_vocab(seed, vocab):
    arguments = batch(seed, vocab=vocab, ignored=0.0)
    arguments["weight"][:] = 0
    loss, log_prob, entropy = cross_entropy(**arguments)
    assert loss == pytest.approx(math.log(vocab), abs=1e-14)
    np.testing.assert_allclose(log_prob, -math.log(vocab), atol=1e-14)
    np.testing.assert_allclose(entropy, math.log(vocab), atol=1e-14)


@given(seeds)
def test_the_gradient_of_logits_sums_to_0_and_of_the_target_is_p_minus_1(seed):
    """W the identity: d_hidden is the gradient of the logits themselves."""
    arguments = batch(seed, d_model=9, ignored=0.0) | {"weight": np.eye(9)}
    _, log_prob, _ = cross_entropy(**arguments)
    d_logits = loss_gradients(**arguments, reduction="sum")[0]
    np.testing.assert_allclose(d_logits.sum(-1), 0, atol=1e-15)
    at = np.arange(len(log_prob))
    np.testing.assert_allclose(d_logits[at, arguments["targets"]], np.expm1(log_prob), atol=1e-15)


@given(seeds, st.sampled_from([0.01, 1.0, 1000.0]))
def test_log_prob_is_never_above_0(seed, std):
    """verl#2656 reached +123 in training."""
    arguments = batch(seed, std=std, ignored=0.0)
    for dtype in (np.float64, np.float32):
        a = arguments | {name: arguments[name].astype(dtype) for name in ("hidden", "weight")}
        a["targets"] = (a["hidden"] @ a["weight"]).argmax(-1)  # as near 0 as they come
        loss, log_prob, entropy = cross_entropy(**a)
        assert loss >= 0 and (log_prob <= 0).all() and (entropy >= 0).all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("n", [0, 5])
def test_all_labels_ignored_gives_zeros(reduction, n):
    """Liger#177: 0 / 0."""
    arguments = batch(n=n, ignored=1.1)
    arguments["hidden"][:] = np.nan
    results, saved = cross_entropy_forward(**arguments, reduction=reduction)
    assert results[0].shape == (() if reduction != "none" else (n,))
    assert not any(result.any() for result in results)
    assert not any(g.any() for g in cross_entropy_backward(saved, *cotangents(results)))


def test_one_class_and_the_last_column():
    """Liger#177."""
    one = batch(vocab=1, ignored=0.0)
    assert cross_entropy(**one)[0] == 0 and not any(g.any() for g in loss_gradients(**one))
    arguments = batch(n=1, ignored=0.0)
    arguments["targets"][:] = 8
    x = arguments["hidden"] @ arguments["weight"]
    expected = np.log(np.exp(x).sum()) - x[0, 8]
    assert cross_entropy(**arguments)[0] == pytest.approx(expected)


def test_ignored_tokens_never_leak():
    arguments = batch(3)
    ignored = arguments["targets"] == -100
    assert 0 < ignored.sum() < 6
    poisoned = arguments | {"hidden": np.where(ignored[:, None], np.nan, arguments["hidden"])}
    for a, b in zip(cross_entropy(**poisoned), cross_entropy(**arguments), strict=True):
        np.testing.assert_array_equal(a, b)
    d_hidden, d_weight = loss_gradients(**poisoned)
    assert not d_hidden[ignored].any()
    np.testing.assert_array_equal(d_weight, loss_gradients(**arguments)[1])


def test_float32_stays_float32():
    arguments = batch()
    for name in ("hidden", "weight"):
        arguments[name] = arguments[name].astype(np.float32)
    for reduction in REDUCTIONS:
        results, saved = cross_entropy_forward(**arguments, reduction=reduction)
        d_results = [d.astype(np.float32) for d in cotangents(results)]
        everything = (*results, *cross_entropy_backward(saved, *d_results))
        assert {x.dtype for x in everything} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": np.ones((2, 3, 4))}, r"hidden: expected 2 dimensions \[token, d_model\]"),
        ({"weight": np.ones((9, 4))}, r"weight: expected shape \[4, vocab\], as hidden's d_model"),
        ({"targets": np.zeros(6)}, "targets: expected integers, got dtype float64"),
        ({"targets": np.zeros((2, 3), int)}, r"targets: expected shape \(6,\), got shape \(2, 3\)"),
        ({"targets": np.array([0, 9, 1, 1, 1, 1])}, "targets: expected 0 to 8 where unmasked, got"),
        ({"targets": np.array([0, -1, 1, 1, 1, 1])}, "targets: .* got -1 at 1"),
        ({"reduction": "avg"}, "reduction: expected 'mean', 'sum' or 'none', got 'avg'"),
        ({"ignore_index": -100.0}, "ignore_index: expected an integer, got -100.0"),
        ({"weight": np.full((4, 9), np.inf)}, "weight: expected finite numbers"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        cross_entropy(**(batch() | arguments))


def test_gradients_of_the_wrong_shape_are_named():
    results, saved = cross_entropy_forward(**batch())
    good = cotangents(results)
    for i, name in enumerate(("d_loss", "d_log_prob", "d_entropy")):
        wrong = [np.zeros(3) if j == i else d for j, d in enumerate(good)]
        with pytest.raises(ValueError, match=f"{name}: expected shape"):
            cross_entropy_backward(saved, *wrong)
