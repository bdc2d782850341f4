"""The whole objective: what PPO is made of, put together, ends where it can be shown to end."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.rlhf import enumerable, ppo
from gptwin.core.rlhf.enumerable import (
    N_PREFIXES,
    all_sequences,
    ascend,
    exact_advantages,
    exact_gradient,
    kl_divergence,
    log_probs_backward,
    log_probs_forward,
    make_world,
    objective,
    optimum,
    ppo_of,
    prefix_rows,
    sample,
    total_variation,
    train_ppo,
)
from gptwin.core.rlhf.exact_kl import exact_kl
from gptwin.core.rlhf.gae import gae
from gptwin.core.rlhf.kl import kl
from gptwin.core.rlhf.ppo import Experience
from gptwin.core.rlhf.ppo_loss import ppo_loss_forward
from gptwin.core.rlhf.token_rewards import token_rewards
from gptwin.kernels.common import launch
from gptwin.kernels.layers.softmax import softmax as torch_softmax
from gptwin.kernels.rlhf.gae import gae as torch_gae
from gptwin.kernels.rlhf.ppo_loss import ppo_loss as torch_ppo_loss
from gptwin.kernels.rlhf.token_rewards import token_rewards as torch_token_rewards
from gptwin.kernels.rlhf.whiten import whiten as torch_whiten

SEEDS = range(5)
GAP, VARIATION = 1e-3, 1e-2  # what gradient ascent must reach: J* − J(π), and TV(π, π*)
SHARE = 0.95  # what sampled PPO must reach: J(π) / J*, where J(π_ref) = 0
distributions = st.tuples(st.integers(2, 30), st.integers(0, 2**32 - 1)).map(
    lambda t: np.random.default_rng(t[1]).dirichlet(np.ones(t[0]), size=2)
)


# --- the closed form -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beta", "best", "highest"),
    [
        (1.0, [0.108368, 0.147288, 0.200185, 0.544159], 1.529072),
        (0.5, [0.008389, 0.030994, 0.114508, 0.846108], 2.043833),
    ],
)
def test_the_optimum_of_four_outcomes(beta, best, highest):
    reference, rewards = np.array([1 / 2, 1 / 4, 1 / 8, 1 / 8]), np.arange(4.0)
    found, at_best = optimum(reference, rewards, beta)
    np.testing.assert_allclose(found, best, atol=5e-7)
    assert at_best == pytest.approx(highest, abs=5e-7)
    assert objective(found, reference, rewards, beta) == pytest.approx(at_best, abs=1e-12)


@given(distributions, st.floats(0.05, 5), st.integers(0, 2**32 - 1))
def test_the_gap_is_beta_times_the_kl_from_the_optimum(both, beta, seed):
    policy, reference = both
    rewards = np.random.default_rng(seed).normal(size=len(policy))
    best, highest = optimum(reference, rewards, beta)
    gap = highest - objective(policy, reference, rewards, beta)
    assert gap == pytest.approx(beta * kl_divergence(policy, best), abs=1e-10)
    assert gap >= -1e-12


def test_the_limits_of_beta():
    reference, rewards = np.array([1 / 2, 1 / 4, 1 / 8, 1 / 8]), np.arange(4.0)
    best, highest = optimum(reference, rewards, 1e6)  # nothing counts but the reference
    np.testing.assert_allclose(best, reference, atol=1e-5)
    assert highest == pytest.approx(reference @ rewards, abs=1e-5)
    best, highest = optimum(reference, rewards, 1e-4)  # nothing counts but the reward
    np.testing.assert_array_equal(best, [0, 0, 0, 1])  # e^30000 would overflow
    assert highest == pytest.approx(3, abs=1e-3)


@pytest.mark.parametrize(
    ("reference", "beta", "message"),
    [
        ([0.5, 0.5], 0.0, "beta: expected a finite number above 0, got 0.0"),
        ([0.0, 1.0, 2.0], 1.0, "reference: expected probabilities that sum to 1, got a sum of 3"),
    ],
)
def test_bad_arguments_are_named(reference, beta, message):
    with pytest.raises(ValueError, match=message):
        optimum(np.array(reference), np.zeros(len(reference)), beta)


def test_divergence_and_variation():
    p, q = np.array([0.4, 0.3, 0.2, 0.1]), np.array([1 / 2, 1 / 4, 1 / 8, 1 / 8])
    assert kl_divergence(p, q) == pytest.approx(0.0371254, abs=5e-8)  # facts, vector 7
    assert total_variation(p, q) == pytest.approx(0.125)
    assert kl_divergence(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == pytest.approx(np.log(2))
    assert kl_divergence(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == np.inf


# --- the language model ----------------------------------------------------------------------


def test_every_prefix_has_a_row_of_its_own():
    tokens = all_sequences()
    rows = prefix_rows(tokens)
    assert tokens.shape == (125, 3)
    prefixes = {}
    for sequence, row in zip(tokens, rows, strict=True):
        for t in range(3):
            prefixes.setdefault(row[t], set()).add(tuple(sequence[:t]))
    assert sorted(prefixes) == list(range(N_PREFIXES))
    assert all(len(same_row) == 1 for same_row in prefixes.values())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_world(seed):
    world = make_world(seed)
    reference = world.probabilities(world.reference_logits)
    assert reference.sum() == pytest.approx(1, abs=1e-12)
    # The reference's mean reward is 0; the optimum is well above.
    assert world.objective(world.reference_logits) == pytest.approx(0, abs=1e-12)
    assert world.optimum()[1] > 0.25
    np.testing.assert_array_equal(world.score(all_sequences()), world.rewards)


def test_log_probs_gradient_is_that_of_finite_differences():
    rng = np.random.default_rng(0)
    logits, weights = rng.normal(size=(31, 5)), rng.normal(size=(40, 3))
    tokens = rng.integers(0, 5, size=(40, 3))
    d_logits = log_probs_backward(log_probs_forward(logits, tokens)[1], weights)

    def loss(logits):
        return (weights * log_probs_forward(logits, tokens)[0]).sum()

    step = 1e-6
    for row, token in [(0, 0), (0, 4), (3, 1), (17, 2), (30, 0)]:
        shift = np.zeros_like(logits)
        shift[row, token] = step
        slope = (loss(logits + shift) - loss(logits - shift)) / (2 * step)
        assert d_logits[row, token] == pytest.approx(slope, abs=1e-7)


def test_samples_are_drawn_as_often_as_they_are_probable():
    world = make_world(0)
    tokens, log_probs = sample(world.reference_logits, 200_000, np.random.default_rng(1))
    np.testing.assert_array_equal(log_probs, log_probs_forward(world.reference_logits, tokens)[0])
    counts = np.bincount(tokens @ [25, 5, 1], minlength=125) / len(tokens)
    # The expected variation of 200,000 draws from 125 outcomes is about 0.008.
    assert total_variation(counts, world.probabilities(world.reference_logits)) < 0.012


# --- the proof: gradient ascent through the reference twins ------------------------------------


def random_logits(seed):
    return np.random.default_rng(seed).normal(size=(N_PREFIXES, 5))


def logits_of(policy):
    """Return the table of logits that gives the sequences these probabilities."""
    tokens = all_sequences()
    reached = np.zeros((N_PREFIXES, 5))
    for t in range(3):
        np.add.at(reached, (prefix_rows(tokens)[:, t], tokens[:, t]), policy)
    return np.log(reached / reached.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_gradient_ascent_reaches_the_optimum(seed):
    world = make_world(seed)
    best, highest = world.optimum()
    start = world.probabilities(world.reference_logits)
    assert highest - world.objective(world.reference_logits) > 250 * GAP  # there is far to go
    assert total_variation(start, best) > 30 * VARIATION

    logits = ascend(world)
    assert 0 <= highest - world.objective(logits) <= GAP
    assert total_variation(world.probabilities(logits), best) <= VARIATION


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_gradient_ascent_reaches_the_optimum_of_another_beta(beta):
    world = make_world(7, beta)
    logits = ascend(world, steps=1000)
    best, highest = world.optimum()
    assert highest - world.objective(logits) <= GAP
    assert total_variation(world.probabilities(logits), best) <= VARIATION


@pytest.mark.parametrize(
    "settings",
    [{"lam": 0.95}, {"lam": 0.0}, {"lam": 1.0}, {"lam": 1.0, "values": np.arange(31.0) - 7}],
    ids=["as in PPO", "one step", "all steps", "all steps, any critic"],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_gradient_is_that_of_the_objective(seed, settings):
    """PPO's parts give ∇J itself: compared with finite differences of the formula."""
    world, logits = make_world(seed), random_logits(seed + 10)
    gradient = exact_gradient(world, logits, **settings)
    rng, step = np.random.default_rng(seed), 1e-5
    for _ in range(5):
        way = rng.normal(size=logits.shape)
        rise = world.objective(logits + step * way) - world.objective(logits - step * way)
        assert (gradient * way).sum() == pytest.approx(rise / (2 * step), abs=1e-8)


@pytest.mark.parametrize("seed", SEEDS)
def test_at_the_optimum_every_advantage_is_zero(seed):
    world = make_world(seed)
    best = logits_of(world.optimum()[0])
    np.testing.assert_allclose(world.probabilities(best), world.optimum()[0], atol=1e-14)
    np.testing.assert_allclose(exact_advantages(world, best), 0, atol=1e-12)
    assert np.abs(exact_advantages(world, world.reference_logits)).max() > 0.5


def test_the_kl_of_the_tokens_adds_up_to_that_of_the_sequences():
    tokens, other, reference = all_sequences(), random_logits(0), random_logits(1)
    log_probs, _ = log_probs_forward(other, tokens)
    reference_log_probs, _ = log_probs_forward(reference, tokens)
    policy = np.exp(log_probs.sum(axis=1))
    whole = kl_divergence(policy, np.exp(reference_log_probs.sum(axis=1)))
    mask = np.ones(tokens.shape, dtype=bool)
    for estimator in ("k1", "k3"):
        per_token = kl(log_probs, reference_log_probs, mask, estimator=estimator)
        assert policy @ per_token.sum(axis=1) == pytest.approx(whole, abs=1e-12)
    per_prefix = exact_kl(other, reference, np.ones(N_PREFIXES, dtype=bool))
    per_token = per_prefix[prefix_rows(tokens)]
    assert policy @ per_token.sum(axis=1) == pytest.approx(whole, abs=1e-12)


# --- the practice: PPO on samples --------------------------------------------------------------


def test_the_average_follows_the_policy_and_begins_where_it_begins():
    ours, rng = ppo_of(make_world(0), batch=64, decay=0.9), np.random.default_rng(0)
    expected = ours.policy.parameter.copy()
    for _ in range(3):
        ours.step((0.05, 0.1), rng)
        expected = 0.9 * expected + 0.1 * ours.policy.parameter
    np.testing.assert_allclose(ours.average[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_sampled_ppo_reaches_the_optimum(seed):
    world = make_world(seed)
    logits, first = train_ppo(world, seed)
    assert SHARE <= world.objective(logits) / world.optimum()[1] <= 1
    assert len(first) == 60
    for results in first:  # nothing was learned yet, so nothing may differ
        assert results.ratio_min == results.ratio_mean == results.ratio_max == 1
        assert results.approx_kl == results.policy_clip_fraction == 0
    assert first[0].explained_variance == pytest.approx(0, abs=1e-12)  # the critic knew nothing
    assert first[-1].explained_variance > 0.8


def test_the_same_seed_gives_the_same_policy():
    world = make_world(0)
    one, again, other = (train_ppo(world, seed, iterations=3)[0] for seed in (4, 4, 5))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_sampling_at_another_temperature_is_noticed(monkeypatch):
    monkeypatch.setattr(enumerable, "sample", lambda x, *rest: sample(x / 1.1, *rest))
    with pytest.raises(ValueError, match="log_probs: expected ratios of 1 on a rollout's first"):
        train_ppo(make_world(0), 0)


def test_clipping_keeps_the_policy_near_the_sampler(monkeypatch):
    """Two hundred passes over one small batch: without the clip the policy learns it by heart."""
    world = make_world(0)
    once = {"iterations": 1, "batch": 64, "epochs": 200, "minibatches": 1}
    clipped = world.objective(train_ppo(world, 0, **once)[0])
    monkeypatch.setattr(ppo, "ppo_loss_forward", lambda *a: ppo_loss_forward(*a, clip=1e6))
    unclipped = world.objective(train_ppo(world, 0, **once)[0])
    assert clipped > 0 > unclipped  # 0 is where both began


# --- the same through PyTorch: the public operations, as the pipeline will call them -------------


class Tables:
    """Policy and critic as float32 tensors, and what PPO computes from them by gptwin.kernels."""

    def __init__(self, world, device):
        self.world, self.device = world, device
        self.logits = self.tensor(world.reference_logits).requires_grad_()
        self.values = self.tensor(np.zeros(N_PREFIXES)).requires_grad_()

    def tensor(self, array):
        return torch.tensor(array, dtype=torch.float32, device=self.device)

    def rows(self, tokens):
        return torch.tensor(prefix_rows(tokens), device=self.device)

    def mask(self, tokens):
        return torch.ones(tokens.shape, dtype=torch.bool, device=self.device)

    def log_probs(self, logits, tokens):
        chosen = torch.tensor(tokens, device=self.device)
        return torch_softmax(logits)[self.rows(tokens), chosen].log()

    @torch.no_grad()
    def roll_out(self, tokens):
        mask = self.mask(tokens)
        log_probs = self.log_probs(self.logits, tokens)
        reference = self.log_probs(self.tensor(self.world.reference_logits), tokens)
        scores = self.tensor(self.world.score(tokens))
        rewards = torch_token_rewards(log_probs, reference, scores, mask, beta=self.world.beta)
        predicted = self.values[self.rows(tokens)]
        advantages, returns = torch_gae(rewards, predicted, mask)
        whitened = torch_whiten(advantages, mask)
        return Experience(tokens, mask, log_probs, rewards, predicted, whitened, returns)

    def loss(self, part):
        return torch_ppo_loss(
            self.log_probs(self.logits, part.tokens), part.log_probs, part.advantages,
            self.values[self.rows(part.tokens)], part.values, part.returns,
            torch.zeros_like(part.log_probs), self.mask(part.tokens),
        )  # fmt: skip


def expect_equal(theirs, ours, atol, names):
    for name, its, expected in zip(names, theirs, ours, strict=True):
        its = its.detach().cpu().numpy() if torch.is_tensor(its) else its
        np.testing.assert_allclose(its, expected, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("backend", launch.BACKENDS)
def test_pytorch_takes_the_same_updates_from_the_same_samples(backend, device):
    """Three rollouts of four updates each: both tables stay within 1e-6 of the reference's."""
    world, rng, rate = make_world(0), np.random.default_rng(0), 0.02
    ours = ppo_of(world, batch=64)
    tables = Tables(world, device if backend == "triton" else "cpu")
    optimizer = torch.optim.Adam([tables.logits, tables.values], lr=rate, eps=1e-5)
    with launch.backend(backend):
        for _ in range(3):
            answers = ours.roll_out(rng)
            experience = ours.credit(answers, ours.judge(answers))
            same = tables.roll_out(experience.tokens)
            expect_equal(same, experience, 5e-6, Experience._fields)
            for rows in np.array_split(rng.permutation(64), 4):
                minibatch = Experience(*(array[rows] for array in experience))
                results, d_logits, d_values = ours.gradients(minibatch)
                ours.policy.step(d_logits, rate)
                ours.critic.step(d_values, rate)

                its_results = tables.loss(Experience(*(tensor[rows] for tensor in same)))
                optimizer.zero_grad()
                its_results.loss.backward()
                optimizer.step()
                expect_equal(its_results, results, 5e-6, results._fields)
                trained = ours.policy.parameter, ours.critic.parameter
                expect_equal((tables.logits, tables.values), trained, 1e-6, ("logits", "values"))
    assert np.abs(ours.policy.parameter - world.reference_logits).max() > 0.1  # it did learn


# --- teeth: whatever part is broken, the end is missed -----------------------------------------


def score_on(position: int | slice) -> Callable:
    """Return a `token_rewards` that puts the score on other tokens than the last."""

    def wrong(log_prob, reference_log_prob, scores, mask, *, beta):
        nothing = np.zeros_like(scores)
        rewards = token_rewards(log_prob, reference_log_prob, nothing, mask, beta=beta)
        rewards[:, position] += scores[:, None]
        return rewards

    return wrong


def without_last_token(log_prob, reference_log_prob, scores, mask, *, beta):
    shorter = mask & (np.arange(mask.shape[1]) < mask.shape[1] - 1)
    return token_rewards(log_prob, reference_log_prob, scores, shorter, beta=beta)


def from_the_start(rewards, values, mask, **settings):
    backwards = gae(rewards[:, ::-1], values[:, ::-1], mask, **settings)
    return tuple(result[:, ::-1] for result in backwards)


BREAKS = {
    "no KL": ("token_rewards", lambda *a, beta: token_rewards(*a, beta=0)),
    "beta doubled": ("token_rewards", lambda *a, beta: token_rewards(*a, beta=2 * beta)),
    "beta halved": ("token_rewards", lambda *a, beta: token_rewards(*a, beta=beta / 2)),
    "KL rewarded": (
        "token_rewards",
        lambda p, q, *a, beta: token_rewards(q, p, *a, beta=beta),
    ),
    # Unbiased as a number, as the test above shows, but its slope in π is missing here.
    "k3 in the reward": (
        "token_rewards",
        lambda *a, beta: token_rewards(*a, beta=beta, estimator="k3"),
    ),
    "no score": ("token_rewards", score_on(slice(0, 0))),
    "score on the first token": ("token_rewards", score_on(slice(0, 1))),
    "score on the second token": ("token_rewards", score_on(slice(1, 2))),
    "score on every token": ("token_rewards", score_on(slice(None))),
    "last token masked": ("token_rewards", without_last_token),
    "values one token late": (
        "gae",
        lambda r, v, mask, **settings: gae(r, np.roll(v, 1, axis=1), mask, **settings),
    ),
    "advantages from the start": ("gae", from_the_start),
    "advantages' sign": (
        "ppo_loss_forward",
        lambda new, old, advantages, *a: ppo_loss_forward(new, old, -advantages, *a),
    ),
}


def test_nothing_broken_passes_in_as_many_steps():
    world = make_world(0)
    assert world.optimum()[1] - world.objective(ascend(world, steps=1000)) <= GAP


@pytest.mark.parametrize("part", BREAKS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # some run off to probabilities of 0
def test_a_broken_part_is_noticed(part, monkeypatch):
    world = make_world(0)
    best, highest = world.optimum()
    for page in (enumerable, ppo):  # the proof and the practice both use it
        monkeypatch.setattr(page, *BREAKS[part])
    try:
        # Compared so that NaN fails too.
        logits = ascend(world, steps=1000)
        assert not highest - world.objective(logits) <= 100 * GAP
        assert not total_variation(world.probabilities(logits), best) <= 30 * VARIATION
        logits, _ = train_ppo(world, 0)
        assert not world.objective(logits) >= 0.75 * highest  # far below SHARE
    except ValueError as refused:  # what runs off to an infinity is refused by name
        assert "expected finite numbers" in str(refused)


@pytest.mark.parametrize(
    "settings",
    [{"gamma": 0.95}, {"gamma": 0.9}, {"values": np.zeros(31)}],
    ids=["gamma 0.95", "gamma 0.9", "a critic that knows nothing, and lambda below 1"],
)
def test_a_bias_of_the_advantages_is_noticed(settings):
    """Small, but above what is allowed: γ < 1 is another objective; λ < 1 trusts the critic."""
    world = make_world(0)
    best, highest = world.optimum()
    logits = ascend(world, steps=1000, **settings)
    assert highest - world.objective(logits) > 2 * GAP
    assert total_variation(world.probabilities(logits), best) > 2 * VARIATION
