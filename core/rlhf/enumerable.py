"""The smallest world with everything in it: a language model whose every answer can be listed.

RLHF (Ziegler et al. 2019, arXiv 1909.08593; InstructGPT, arXiv 2203.02155, section 3.5) asks for
the policy π that scores well and stays near the reference π_ref:

    J(π) = E_{y~π}[r(y)] − β·KL(π‖π_ref)

Usually nobody knows how large J can become. Here everybody does: 5 tokens and 3 steps make 125
sequences, so that every expectation is a sum of 125 terms.

**Why the optimum has a closed form.** Put the reward into the logarithm:

    J(π) = Σ_y π(y)·[r(y) − β·log π(y)/π_ref(y)] = −β·Σ_y π(y)·log( π(y) / (π_ref(y)·e^(r(y)/β)) )

The denominator is a distribution but for its sum Z = Σ π_ref·e^(r/β). Divide by it:

    π* = π_ref·e^(r/β) / Z,     J* = β·ln Z,     J(π) = J* − β·KL(π‖π*)

KL is never negative, and is 0 only if the two are equal. So π* is the one optimum, and the gap
J* − J(π) says how far away a policy is: in units of β, the nats between it and the optimum. What a
table of logits can express is every π on these sequences, π* among them; whatever gap remains is
thus the fault of the training.

**Why this proves the whole of PPO.** The reward of a token, the advantages, the clipped loss and
its gradient each have tests of their own. That they are the right parts, put together rightly, no
such test can say. Here they are put together as in training, and the end is known in advance:

    logits ─► log π ─► token rewards ─► advantages (GAE) ─► clipped loss ─► gradient of the logits

`exact_gradient` takes the expectation over all sequences, so that what it climbs must end at π*
up to rounding; `train_ppo` samples, learns its value function, whitens, clips and takes several
steps per batch, as in real training, and must come close.

**What to see on the way.** At π* every single advantage is 0, not only their mean: the per-token
KL eats up exactly what a token gains, and every sequence brings the same J*. A perfect critic
thus leaves nothing to learn and no noise. Whitening undoes this: it scales what little is left to
variance 1, which is why the learning rate has to fall.
"""

import dataclasses
import functools
import itertools
import math
from typing import Any

import numpy as np

from ..checks import expect_positive, refuse
from ..layers.softmax import softmax, softmax_backward, softmax_forward
from .gae import gae
from .ppo import PPO, Answers
from .ppo_loss import PPOResults, ppo_loss_backward, ppo_loss_forward
from .token_rewards import token_rewards

N_TOKENS = 5
LENGTH = 3
N_PREFIXES = 31  # 1 of no token, 5 of one, 25 of two
BETA = 0.5


# --- the language model: one row of logits for every prefix ----------------------------------


@functools.cache
def all_sequences() -> np.ndarray:
    """List every sequence in the order of counting: int [sequence, time], read-only."""
    sequences = np.array(list(itertools.product(range(N_TOKENS), repeat=LENGTH)))
    sequences.setflags(write=False)
    return sequences


def prefix_rows(tokens: np.ndarray) -> np.ndarray:
    """Find the row of the table that scores each token, from the tokens before it.

    Row 0 is the empty prefix, rows 1 to 5 those of one token, rows 6 to 30 those of two: int
    [batch, time], like `tokens`.
    """
    rows = np.zeros_like(tokens)
    for t in range(1, tokens.shape[1]):
        rows[:, t] = rows[:, t - 1] * N_TOKENS + tokens[:, t - 1] + 1
    return rows


def log_probs_forward(logits: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, Any]:
    """Score each token given those before it: log softmax(logits[prefix])[token].

    Takes the policy's table of logits, [prefix, token], and `tokens`, int [batch, time]. Returns
    the log-probabilities, [batch, time], and what `log_probs_backward` needs.
    """
    rows = prefix_rows(tokens)
    probabilities, saved = softmax_forward(logits)
    chosen = probabilities[rows, tokens]  # [batch, time]
    return np.log(chosen), (saved, rows, tokens, chosen)


def log_probs_backward(saved: Any, d_log_probs: np.ndarray) -> np.ndarray:
    """Carry the gradient from [batch, time] log-probabilities back to the table of logits."""
    softmax_saved, rows, tokens, chosen = saved
    d_probabilities = np.zeros_like(softmax_saved[0])
    np.add.at(d_probabilities, (rows, tokens), d_log_probs / chosen)  # a prefix occurs many times
    return softmax_backward(softmax_saved, d_probabilities)


def sample(
    logits: np.ndarray, batch: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw sequences, token by token, at temperature 1.

    Returns the tokens, int [batch, time], and the log-probabilities the sampler drew them with.
    """
    probabilities = softmax(logits)
    cumulative = np.cumsum(probabilities, axis=1)
    cumulative[:, -1] = 1  # rounding must not leave a gap at the end
    tokens = np.zeros((batch, LENGTH), dtype=np.int64)
    log_probs = np.zeros((batch, LENGTH))
    for t in range(LENGTH):
        row = prefix_rows(tokens)[:, t]
        drawn = rng.random(batch)
        tokens[:, t] = (drawn[:, None] >= cumulative[row]).sum(axis=1)
        log_probs[:, t] = np.log(probabilities[row, tokens[:, t]])
    return tokens, log_probs


# --- the truth: exact quantities, by enumeration ---------------------------------------------


def optimum(reference: np.ndarray, rewards: np.ndarray, beta: float) -> tuple[np.ndarray, float]:
    """Return the best policy there is and its objective: π* ∝ π_ref·e^(r/β) and J* = β·ln Z.

    Parameters
    ----------
    reference, rewards : numpy.ndarray [outcome]
        π_ref, which sums to 1, and r.
    beta : float
        Weight of the KL divergence; above 0.

    Returns
    -------
    best : numpy.ndarray [outcome]
    highest : float

    Raises
    ------
    ValueError
        If the probabilities do not sum to 1 or `beta` is not above 0.
    """
    expect_positive("beta", beta)
    if not math.isclose(reference.sum(), 1, rel_tol=1e-9):
        refuse("reference", "probabilities that sum to 1", f"a sum of {reference.sum()}", "logits")
    exponents = rewards / beta
    top = exponents.max()  # as in softmax: nothing overflows
    weights = reference * np.exp(exponents - top)
    return weights / weights.sum(), float(beta * (top + np.log(weights.sum())))


def kl_divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Return Σ p·ln(p/q) in nats, where p = 0 counts 0: infinite if p has an outcome q has not."""
    possible = p > 0
    with np.errstate(divide="ignore"):
        return float((p[possible] * np.log(p[possible] / q[possible])).sum())


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Return ½·Σ|p − q|: the most by which p and q can differ on any event, from 0 to 1."""
    return float(np.abs(p - q).sum() / 2)


def objective(policy: np.ndarray, reference: np.ndarray, rewards: np.ndarray, beta: float) -> float:
    """Return J(π) = E_π[r] − β·KL(π‖π_ref) from π, π_ref and r, each [outcome]."""
    return float(policy @ rewards) - beta * kl_divergence(policy, reference)


@dataclasses.dataclass(frozen=True)
class World:
    """A reference model and a reward: all that RLHF is given, and small enough to list.

    Attributes
    ----------
    reference_logits : numpy.ndarray [prefix, token]
        π_ref, where every policy starts.
    rewards : numpy.ndarray [sequence]
        The reward of every sequence of `all_sequences()`.
    beta : float
        Weight of the KL divergence.
    """

    reference_logits: np.ndarray
    rewards: np.ndarray
    beta: float = BETA

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the probability of every sequence, [sequence], under these logits."""
        return np.exp(log_probs_forward(logits, all_sequences())[0].sum(axis=1))

    def objective(self, logits: np.ndarray) -> float:
        """Return J of the policy with these logits."""
        policy, reference = map(self.probabilities, (logits, self.reference_logits))
        return objective(policy, reference, self.rewards, self.beta)

    def optimum(self) -> tuple[np.ndarray, float]:
        """Return π* over the sequences, and J*."""
        return optimum(self.probabilities(self.reference_logits), self.rewards, self.beta)

    def score(self, tokens: np.ndarray) -> np.ndarray:
        """Return the reward of each sequence, [batch]: what a reward model would say."""
        return self.rewards[tokens @ N_TOKENS ** np.arange(LENGTH - 1, -1, -1)]


def make_world(seed: int, beta: float = BETA) -> World:
    """Draw a world.

    The reward likes some tokens and some pairs of neighbours, and has its whims: a part that
    belongs to one sequence alone, so that no policy that forgets the prefix can be the best. As in
    InstructGPT, it is shifted so that the reference's mean is 0: J(π_ref) = 0.

    Parameters
    ----------
    seed : int
    beta : float

    Returns
    -------
    World
    """
    rng = np.random.default_rng(seed)
    reference_logits = rng.normal(size=(N_PREFIXES, N_TOKENS))
    by_token = rng.normal(0, 0.35, size=N_TOKENS)
    by_pair = rng.normal(0, 0.42, size=(N_TOKENS, N_TOKENS))
    y = all_sequences()
    rewards = by_token[y].sum(axis=1) + by_pair[y[:, :-1], y[:, 1:]].sum(axis=1)
    rewards += rng.normal(0, 0.5, size=len(y))
    world = World(reference_logits, rewards, beta)
    return dataclasses.replace(
        world, rewards=rewards - world.probabilities(reference_logits) @ rewards
    )


# --- the proof: PPO's own parts, in expectation ----------------------------------------------


def exact_values(policy: np.ndarray, rewards: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the perfect critic, [prefix]: the mean of all rewards still to come.

    `policy` [sequence] holds probabilities; `rewards` and `rows` (of `prefix_rows`) are
    [sequence, time].
    """
    to_come = rewards[:, ::-1].cumsum(axis=1)[:, ::-1]  # [sequence, time]
    weights = np.broadcast_to(policy[:, None], rows.shape).ravel()
    total = np.bincount(rows.ravel(), weights * to_come.ravel(), minlength=N_PREFIXES)
    return total / np.bincount(rows.ravel(), weights, minlength=N_PREFIXES)


def exact_advantages(
    world: World,
    logits: np.ndarray,
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
    values: np.ndarray | None = None,
) -> np.ndarray:
    """Compute the advantage of every token of every sequence, as PPO does.

    Parameters
    ----------
    world : World
    logits : numpy.ndarray [prefix, token]
    gamma, lam : float
        γ and λ.
    values : numpy.ndarray [prefix], optional
        The critic; the perfect one if left out.

    Returns
    -------
    numpy.ndarray [sequence, time]
        In the order of `all_sequences()`.
    """
    tokens = all_sequences()
    rows, mask = prefix_rows(tokens), np.ones(tokens.shape, dtype=bool)
    log_probs, _ = log_probs_forward(logits, tokens)
    reference, _ = log_probs_forward(world.reference_logits, tokens)
    rewards = token_rewards(log_probs, reference, world.score(tokens), mask, beta=world.beta)
    if values is None:
        values = exact_values(np.exp(log_probs.sum(axis=1)), rewards, rows)
    return gae(rewards, values[rows], mask, gamma=gamma, lam=lam)[0]


def exact_gradient(world: World, logits: np.ndarray, **settings: Any) -> np.ndarray:
    """Return the gradient of J as PPO's first step on an infinite batch would see it.

    In an infinite batch, sequence y makes up the share π(y). Here each occurs once, and its share
    goes in with its advantages: max(−Aρ, −A·clip(ρ)) is proportional to a positive factor of A.
    All ratios are 1, so that nothing is clipped and the loss has the policy gradient
    −Σ_y π(y) Σ_t A_t·∇log π(y_t). The shares and ∇log π are constants to it, as in training.

    With the perfect critic every λ gives the same gradient: the error δ of each later step has
    mean 0, whatever its weight. With another critic λ = 1 alone still does.

    Takes `exact_advantages`' arguments and returns ∇J, [prefix, token].
    """
    tokens = all_sequences()
    log_probs, saved = log_probs_forward(logits, tokens)
    share = np.exp(log_probs.sum(axis=1, keepdims=True))  # [sequence, 1]
    weighted = exact_advantages(world, logits, **settings) * share * tokens.size
    nothing = np.zeros(tokens.shape)  # no value loss and no entropy bonus
    _, loss_saved = ppo_loss_forward(
        log_probs, log_probs, weighted, nothing, nothing, nothing, nothing, tokens >= 0
    )
    d_log_probs, _, _ = ppo_loss_backward(loss_saved, np.ones(()))
    return -log_probs_backward(saved, d_log_probs)  # the loss falls where J rises


def ascend(world: World, *, steps: int = 3000, **settings: Any) -> np.ndarray:
    """Climb from the reference along `exact_gradient` and return the policy's logits.

    The rate is constant, 2/β: at the optimum J curves by −β times the Fisher information of the
    logits, which is at most ½, so that a step goes at most to the top of the parabola.
    """
    logits = world.reference_logits
    for _ in range(steps):
        logits = logits + 2 / world.beta * exact_gradient(world, logits, **settings)
    return logits


# --- the practice: PPO on samples ------------------------------------------------------------


class Adam:
    """Adam (Kingma & Ba 2015, arXiv 1412.6980, algorithm 1) for one array, changed in place."""

    def __init__(self, parameter: np.ndarray, eps: float = 1e-5) -> None:
        self.parameter, self.eps, self.steps = parameter, eps, 0
        self.mean, self.square = np.zeros_like(parameter), np.zeros_like(parameter)

    def step(self, gradient: np.ndarray, rate: float) -> None:
        """Take a step against the gradient."""
        self.steps += 1
        self.mean += 0.1 * (gradient - self.mean)
        self.square += 0.001 * (gradient**2 - self.square)
        mean = self.mean / (1 - 0.9**self.steps)
        square = self.square / (1 - 0.999**self.steps)
        self.parameter -= rate * mean / (np.sqrt(square) + self.eps)


class TablePolicy(Adam):
    """The table of logits, [prefix, token], as `ppo.Policy`."""

    def forward(self, tokens: np.ndarray) -> tuple[np.ndarray, Any]:
        """Return log π of each token."""
        return log_probs_forward(self.parameter, tokens)

    def backward(self, saved: Any, d_output: np.ndarray) -> np.ndarray:
        """Return the gradient of the logits."""
        return log_probs_backward(saved, d_output)

    def sample(self, batch: int, rng: np.random.Generator) -> Answers:
        """Draw sequences, all of whose tokens count."""
        tokens, log_probs = sample(self.parameter, batch, rng)
        return Answers(tokens, np.ones(tokens.shape, dtype=bool), log_probs)


class TableCritic(Adam):
    """A table of values, [prefix], as `ppo.Network`."""

    def forward(self, tokens: np.ndarray) -> tuple[np.ndarray, Any]:
        """Return the value of the prefix before each token."""
        rows = prefix_rows(tokens)
        return self.parameter[rows], rows

    def backward(self, saved: Any, d_output: np.ndarray) -> np.ndarray:
        """Return the gradient of the values."""
        return np.bincount(saved.ravel(), d_output.ravel(), minlength=N_PREFIXES)


def ppo_of(world: World, **settings: Any) -> PPO:
    """Return PPO in a world: the policy begins as the reference, the critic knows nothing.

    `settings` are those of `PPO`.
    """
    start = world.reference_logits
    policy, critic = TablePolicy(start.copy()), TableCritic(np.zeros(N_PREFIXES))
    return PPO(policy, critic, TablePolicy(start), world.score, world.beta, **settings)


def train_ppo(
    world: World, seed: int, *, iterations: int = 60, rate: float = 0.05, **settings: Any
) -> tuple[np.ndarray, list[PPOResults]]:
    """Train a policy by PPO on samples, with a critic that is learned along.

    Both learning rates fall linearly, towards 0; the critic's is twice the policy's.

    Parameters
    ----------
    world : World
    seed : int
    iterations : int
    rate : float
        The policy's learning rate at the start.
    **settings
        Of `PPO`.

    Returns
    -------
    logits : numpy.ndarray [prefix, token]
    first : list of PPOResults
        Statistics of each rollout's first minibatch.

    Raises
    ------
    ValueError
        If on a rollout's first minibatch the ratio is not 1: the policy that is trained is then
        not the one that sampled.
    """
    rng, ppo = np.random.default_rng(seed), ppo_of(world, **settings)
    first = []
    for index in range(iterations):
        now = rate * (1 - index / iterations)
        first.append(ppo.step((now, 2 * now), rng)[0])
    return ppo.policy.parameter, first
