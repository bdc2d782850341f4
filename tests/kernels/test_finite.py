"""Infinities and NaN: refused by name where they count, unread where they are masked.

Every twin of the RLHF objective that takes a mask, in its three forms, with every float argument
poisoned in turn.
"""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwin.core.checks import expect_finite
from gptwin.kernels import launch
from gptwin.kernels.finite import checking_finite, checks_finite
from gptwin.kernels.kl import kl
from gptwin.kernels.ppo_loss import ppo_loss
from gptwin.lab.draw import RandomArrays, to_torch
from gptwin.lab.twin import as_tuple
from gptwin.lab.twins import TWINS

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


def run(form, name, arguments):
    """Return results and gradients of one form as NumPy arrays."""
    twin, rng = TWINS[name], RandomArrays(0)

    def cotangents(results):
        named = zip(twin.results, results, strict=True)
        return {n: rng.normal(*np.shape(r)) for n, r in named if n not in twin.statistics}

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


@pytest.mark.parametrize("form", ["core", "eager", "triton"])
@pytest.mark.parametrize("name", CASES)
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


@pytest.mark.parametrize("form", ["core", "eager", "triton"])
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


def test_the_message_counts_and_points(device):
    x = np.array([[1.0, math.inf, math.nan], [math.nan, 2.0, 3.0]])
    rows = np.array([False, True])
    for array, mask in ((x, rows), (torch.tensor(x, device=device), torch.tensor(rows).to(device))):
        with pytest.raises(ValueError, match=re.escape("3 that are not, the first inf at (0, 1)")):
            expect_finite("x", array)
        with pytest.raises(ValueError, match=re.escape("1 that are not, the first nan at (1, 0)")):
            expect_finite("x", array, mask)
        expect_finite("x", array, mask & ~mask)
    with pytest.raises(ValueError, match=r"^loss: .*the first nan at \(\)"):
        expect_finite("loss", torch.tensor(math.nan, device=device))
    expect_finite("empty", np.empty((0, 3)))


def test_who_is_asked(monkeypatch, device):
    on_cpu, nowhere = torch.zeros(1), torch.zeros(1, device="meta")
    monkeypatch.delenv("GPTWIN_CHECK_FINITE", raising=False)
    assert checks_finite(on_cpu) and not checks_finite(nowhere)
    assert checks_finite(torch.zeros(1, device=device)) == (device == "cpu")
    monkeypatch.setenv("GPTWIN_CHECK_FINITE", "0")
    assert not checks_finite(on_cpu)
    with checking_finite(True):
        assert checks_finite(on_cpu) and not checks_finite(nowhere)
        with checking_finite(False):
            assert not checks_finite(on_cpu)
        assert checks_finite(on_cpu)
    monkeypatch.setenv("GPTWIN_CHECK_FINITE", "1")
    assert checks_finite(torch.zeros(1, device=device))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not checks_finite(on_cpu)
    monkeypatch.undo()
    monkeypatch.setenv("GPTWIN_CHECK_FINITE", "yes")
    with pytest.raises(ValueError, match="GPTWIN_CHECK_FINITE: expected 0 or 1, got 'yes'"):
        checks_finite(on_cpu)


def test_unchecked_it_passes_through(device):
    x = torch.tensor([math.nan, 1.0], device=device)
    every = torch.ones(2, dtype=torch.bool, device=device)
    with checking_finite(False):
        assert kl(x, x, every).isnan().tolist() == [True, False]
        assert ppo_loss(*[x] * 7, every).loss.isnan()


def test_compiled_it_leaves_the_graph_whole():
    every = torch.ones(3, dtype=torch.bool)
    with launch.backend("eager"):
        compiled = torch.compile(kl, fullgraph=True, backend="eager")
        result = compiled(torch.full((3,), math.nan), torch.zeros(3), every)
    assert result.isnan().all()
