"""The reference PPO loss from hidden states: it is its parts, and the tiled climb equals it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.language.token_scores import backward_tiled, log_softmax, score_tiled
from gptwin.core.layers.linear import linear_backward, linear_forward
from gptwin.core.layers.softmax import softmax
from gptwin.core.rlhf.linear_ppo_loss import (
    linear_ppo_loss,
    linear_ppo_loss_backward,
    linear_ppo_loss_forward,
)
from gptwin.core.rlhf.ppo_loss import PPOResults, ppo_loss, ppo_loss_backward, ppo_loss_forward

TOKEN_NAMES = ("old_log_prob", "advantages", "values", "old_values", "returns")
ENTROPY = {"entropy_coefficient": 0.3}


def batch(seed=0, n=6, d_model=4, vocab=9, std=1.0):
    rng = np.random.default_rng(seed)
    arguments = {
        "hidden": rng.normal(size=(n, d_model)),
        "weight": rng.normal(0, std, size=(d_model, vocab)),
        "targets": rng.integers(0, vocab, n),
    }
    arguments |= {name: rng.normal(size=n) for name in TOKEN_NAMES}
    arguments["old_log_prob"] -= np.log(vocab)
    return arguments | {"mask": rng.random(n) < 0.7}


def gradients(**arguments):
    _, saved = linear_ppo_loss_forward(**arguments)
    return linear_ppo_loss_backward(saved, np.array(1.0))


@given(st.integers(0, 1000), st.sampled_from([1.0, 0.5]))
def test_it_is_linear_then_log_softmax_then_ppo_loss(seed, temperature):
    """Composed from the other files: linear, softmax with its own backward, ppo_loss."""
    arguments = batch(seed)
    hidden, weight, targets, mask = (
        arguments[name] for name in ("hidden", "weight", "targets", "mask")
    )
    logits, linear_saved = linear_forward(hidden, weight)
    p = softmax(logits, scale=1 / temperature)
    at = np.arange(len(targets))
    tokens = {name: arguments[name] for name in TOKEN_NAMES} | {
        "log_prob": np.log(p[at, targets]),
        "entropy": -(p * np.log(p)).sum(-1),
        "mask": mask,
    }
    results, ppo_saved = ppo_loss_forward(**tokens, **ENTROPY)
    actual = linear_ppo_loss(**arguments, temperature=temperature, **ENTROPY)
    np.testing.assert_allclose(actual, results, rtol=1e-10, atol=1e-12)

    d_log_prob, d_values, d_entropy = ppo_loss_backward(ppo_saved, np.array(1.0))
    d_p = -(np.log(p) + 1) * d_entropy[:, None]  # through H, and then through log p[target]
    d_p[at, targets] += d_log_prob / p[at, targets]
    d_logits = p * (d_p - (p * d_p).sum(-1, keepdims=True)) / temperature
    expected = (*linear_backward(linear_saved, d_logits)[:2], d_values)
    for a, b in zip(
        gradients(**arguments, temperature=temperature, **ENTROPY), expected, strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@given(
    st.integers(0, 1000),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from([1.0, 0.5]),
)
def test_the_tiled_climb_equals_the_definition(seed, block, span, chunk, temperature):
    arguments = batch(seed)
    hidden, weight, targets = (arguments[name] for name in ("hidden", "weight", "targets"))
    scores = score_tiled(hidden, weight, targets, temperature, block, span)
    log_p = log_softmax(hidden @ weight / temperature)
    np.testing.assert_allclose(scores[0], log_p[np.arange(len(targets)), targets], atol=1e-13)
    np.testing.assert_allclose(scores[1], -(np.exp(log_p) * log_p).sum(-1), atol=1e-13)

    arguments["mask"][:] = True
    named = {name: arguments[name] for name in (*TOKEN_NAMES, "mask")}
    _, saved = ppo_loss_forward(log_prob=scores[0], entropy=scores[1], **named, **ENTROPY)
    d_log_prob, _, d_entropy = ppo_loss_backward(saved, np.array(1.0))
    tiled = backward_tiled(
        hidden, weight, targets, temperature, chunk, scores, d_log_prob, d_entropy
    )
    whole = gradients(**arguments, temperature=temperature, **ENTROPY)
    for a, b in zip(tiled, whole, strict=False):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_uniform_logits_by_hand():
    """W = 0: log π = −log V, H = log V, and only log π has a gradient: (1[target] − 1/V)·g."""
    arguments = batch(n=2, vocab=4)
    arguments["weight"][:] = 0
    arguments["mask"][:] = True
    arguments["old_log_prob"][:] = -np.log(4)
    results = linear_ppo_loss(**arguments)
    assert results.entropy == pytest.approx(np.log(4))
    assert results.ratio_mean == pytest.approx(1)
    d_weight = gradients(**arguments, **ENTROPY)[1]
    g = -arguments["advantages"] / 2
    d_logits = (np.eye(4)[arguments["targets"]] - 0.25) * g[:, None]
    np.testing.assert_allclose(d_weight, arguments["hidden"].T @ d_logits, atol=1e-15)


@given(st.integers(0, 1000), st.sampled_from([0.01, 1.0, 1000.0]))
def test_log_prob_is_never_above_0(seed, std):
    for dtype in (np.float64, np.float32):
        a = batch(seed, std=std)
        hidden, weight = a["hidden"].astype(dtype), a["weight"].astype(dtype)
        assert (log_softmax(hidden @ weight) <= 0).all()
        log_prob, entropy, _ = score_tiled(hidden, weight, a["targets"], 1.0, 2, 4)
        assert (log_prob <= 0).all() and (entropy >= -1e-5).all()


def test_masked_rows_never_leak():
    arguments = batch(3)
    mask = arguments["mask"]
    mask[:] = [True, False, True, True, False, True]
    poisoned = {n: x.copy() for n, x in arguments.items()}
    for name in ("hidden", *TOKEN_NAMES):
        poisoned[name][~mask] = np.nan
    poisoned["targets"][~mask] = -100
    assert linear_ppo_loss(**poisoned) == linear_ppo_loss(**arguments)
    d_hidden, d_weight, d_values = gradients(**poisoned)
    assert not d_hidden[~mask].any() and not d_values[~mask].any()
    np.testing.assert_array_equal(d_weight, gradients(**arguments)[1])


@pytest.mark.parametrize("n", [0, 5])
def test_nothing_unmasked_gives_zeros(n):
    arguments = batch(n=n)
    arguments["mask"][:] = False
    assert linear_ppo_loss(**arguments) == PPOResults(*(0.0,) * 12)
    assert not any(g.any() for g in gradients(**arguments))


def test_coefficients_reach_the_loss():
    arguments = batch()
    scores = score_tiled(arguments["hidden"], arguments["weight"], arguments["targets"], 1.0, 5, 9)
    named = {name: arguments[name] for name in (*TOKEN_NAMES, "mask")}
    given_ = {"clip": 0.05, "value_clip": 0.3, "value_coefficient": 0.7, **ENTROPY}
    expected = ppo_loss(log_prob=scores[0], entropy=scores[1], **named, **given_)
    np.testing.assert_allclose(linear_ppo_loss(**arguments, **given_), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "temperature: expected a finite number above 0, got 0.0"),
        ({"weight": np.ones((9, 4))}, r"weight: expected shape \[4, vocab\], as hidden's d_model"),
        ({"weight": np.ones((4, 0))}, "weight: expected a vocabulary of at least 1"),
        ({"hidden": np.ones((2, 3, 4))}, r"hidden: expected 2 dimensions \[token, d_model\]"),
        ({"targets": np.zeros(5, int)}, r"targets: expected shape \(6,\), got shape \(5,\)"),
        ({"targets": np.zeros(6)}, "targets: expected integers, got dtype float64"),
        ({"mask": np.ones(6)}, "mask: expected dtype bool"),
        ({"mask": np.ones((6, 1), bool)}, r"mask: expected shape \(6,\)"),
        ({"clip": -1.0}, "clip: expected a finite number above 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        linear_ppo_loss(**(batch() | arguments))


@pytest.mark.parametrize("wrong", [-1, 9])
def test_targets_out_of_range_are_refused_where_unmasked(wrong):
    arguments = batch()
    arguments["mask"][:] = True
    arguments["targets"][2] = wrong
    with pytest.raises(ValueError, match=f"targets: expected 0 to 8 where unmasked, got {wrong} a"):
        linear_ppo_loss(**arguments)
