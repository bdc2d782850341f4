"""What a mask promises, of every twin of the RLHF objective that takes one, in its three forms.

What it hides is never read, what it shows must be finite, the side that a batch is padded on makes
no difference, and of a batch that it hides whole nothing is left.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwin.kernels.common import launch
from gptwin.kernels.common.finite import checking_finite
from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.twins.draw import RandomArrays, to_torch
from gptwin.lab.twins.twin import as_tuple

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
JUNK = [math.nan, math.inf, -math.inf]
CASES = {
    "kl": {"shape": [2, 5], "estimator": "k3"},
    "token_rewards": {"shape": [3, 5], "missing_end": "replace", "share": 0.4},
    "gae": {"shape": [3, 5]},
    "whiten": {"shape": [3, 5]},
    "reward_loss": {"prompts": 3, "completions": 4, "present": 0.7, "centring": 0.01},
    "ppo_loss": {"shape": [3, 5]},
    "linear_ppo_loss": {"tokens": 7, "d_model": 3, "vocab": 4},
}

forms = pytest.mark.parametrize("form", ["core", "eager", "triton"])
each_twin = pytest.mark.parametrize("name", CASES)


def draw(name, seed):
    """Return a case's arguments, and for each float array which of its elements count."""
    inputs = TWINS[name].inputs(CASES[name], RandomArrays(seed))
    arguments = {**inputs.tensors, **inputs.options}
    floats = {n: a for n, a in arguments.items() if getattr(a, "dtype", None) == np.float64}
    mask = arguments["ranks"] >= 0 if name == "reward_loss" else arguments["mask"]
    counts = dict.fromkeys(floats, mask)
    if name == "token_rewards":
        counts["scores"] = mask.any(axis=1) & arguments["ended"]
    if name == "linear_ppo_loss":
        counts["weight"] = np.ones_like(floats["weight"], dtype=bool)
        counts["hidden"] = np.broadcast_to(mask[:, None], floats["hidden"].shape)
    return arguments, counts


def run(form, name, arguments, cotangent_mask=None):
    """Return results and gradients of one form as NumPy arrays.

    Cotangents are the same numbers in the same order, but only where `cotangent_mask` is True.
    """
    twin, rng = TWINS[name], RandomArrays(0)

    def cotangents(results):
        named = zip(twin.results, results, strict=True)
        drawn = {n: rng.normal(*np.shape(r)) for n, r in named if n not in twin.statistics}
        if cotangent_mask is not None:
            for d in drawn.values():
                if d.shape == cotangent_mask.shape:
                    kept = d.reshape(-1)[: cotangent_mask.sum()].copy()
                    d[:] = 0
                    d[cotangent_mask] = kept
        return drawn

    if form == "core":
        results, saved = twin.forward(**arguments)
        results = as_tuple(results)
        return [*results, *as_tuple(twin.backward(saved, *cotangents(results).values()))]
    tensors = {
        n: to_torch(a, torch.float32, DEVICE) if isinstance(a, np.ndarray) else a
        for n, a in arguments.items()
    }
    leaves = [tensors[n].requires_grad_() for n in twin.arguments]
    with launch.backend(form), checking_finite(True):
        results = as_tuple(twin.kernel(**tensors))
    d_results = {n: to_torch(d, torch.float32, DEVICE) for n, d in cotangents(results).items()}
    roots = [r for n, r in zip(twin.results, results, strict=True) if n in d_results]
    gradients = torch.autograd.grad(roots, leaves, list(d_results.values()))
    return [x.detach().cpu().numpy() for x in (*results, *gradients)]


@forms
@each_twin
@settings(max_examples=3)
@given(st.integers(0, 10**6), st.sampled_from(JUNK))
def test_every_float_argument_is_refused_by_name_or_unread(name, form, seed, junk):
    arguments, counts = draw(name, seed)
    clean = run(form, name, arguments)
    assert all(np.isfinite(x).all() for x in clean)
    where = np.random.default_rng(seed)
    unread = dict(arguments)
    for argument, counted in counts.items():
        unread[argument] = np.where(counted, arguments[argument], junk)
        if not counted.any():
            continue
        at = tuple(where.choice(np.argwhere(counted)))
        poisoned = arguments[argument].copy()
        poisoned[at] = junk
        place = ", ".join(str(i) for i in at)
        said = rf"^{argument}: expected finite .* the first {junk} at \({place},?\)"
        with pytest.raises(ValueError, match=said):
            run(form, name, arguments | {argument: poisoned})
    for before, after in zip(clean, run(form, name, unread), strict=True):
        np.testing.assert_array_equal(before, after)


@forms
@pytest.mark.parametrize("size", [1e6, -1e6])
def test_advantages_of_a_million_stay_finite(form, size):
    for name in ("ppo_loss", "linear_ppo_loss"):
        arguments, _ = draw(name, 0)
        arguments["advantages"] = np.full_like(arguments["advantages"], size)
        assert all(np.isfinite(x).all() for x in run(form, name, arguments))
    arguments, _ = draw("gae", 0)
    arguments["rewards"] = np.full_like(arguments["rewards"], size)
    advantages, returns = run(form, "gae", arguments)[:2]
    whitened = run(form, "whiten", draw("whiten", 0)[0] | {"x": advantages.astype(float)})
    assert all(np.isfinite(x).all() for x in (advantages, returns, *whitened))


@forms
@pytest.mark.parametrize("name", ["kl", "token_rewards", "gae", "whiten", "ppo_loss"])
def test_the_side_of_the_padding_makes_no_difference(name, form):
    arguments, counts = draw(name, 1)
    shape = arguments["mask"].shape
    lengths = np.array([shape[1], 2, 0, 4, 1])[: shape[0]]
    time = np.arange(shape[1])
    sides = []
    for starts in (0 * lengths, shape[1] - lengths):  # padded on the right, and on the left
        mask = (time >= starts[:, None]) & (time < (starts + lengths)[:, None])
        moved = dict(arguments) | {"mask": mask}
        for argument in counts:
            if np.shape(arguments[argument]) == shape:
                moved[argument] = np.full(shape, np.nan)
                kept = time < lengths[:, None]
                moved[argument][mask] = arguments[argument][kept]
        results = run(form, name, moved, cotangent_mask=mask)
        sides.append([x[mask] if x.shape == shape else x for x in results])
    for right, left in zip(*sides, strict=True):
        np.testing.assert_allclose(right, left, rtol=1e-5, atol=1e-6)


@forms
@each_twin
def test_of_an_all_masked_batch_nothing_is_left(name, form):
    arguments, counts = draw(name, 0)
    for argument in counts.keys() - {"weight"}:
        arguments[argument] = np.full_like(arguments[argument], np.nan)
    hidden = {"ranks": -1} if name == "reward_loss" else {"mask": False}
    arguments |= {n: np.full_like(arguments[n], nothing) for n, nothing in hidden.items()}
    assert not any(x.any() for x in run(form, name, arguments))
