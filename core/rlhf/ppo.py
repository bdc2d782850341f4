"""One iteration of PPO, whole: the twin of rl/stages/ppo.py, and the page to read first.

    1. roll out    the policy answers
    2. judge       log π_ref and the values of every token, the score of every answer
    3. credit      r_t = −β·KL_t + [t is last]·score;  advantages by GAE, whitened;  returns
    4. update      minibatches: clipped policy loss + c·clipped value loss, a step on each
    5. average     EMA of the policy

(InstructGPT, arXiv 2203.02155, equation 2 and C.4, without its pretraining term; Schulman et al.
2017, arXiv 1707.06347.) Any two networks will do that run forward and backward; enumerable.py
brings the smallest ones, and proves with them that this page ends at the optimum.

Arrays are [batch, time], `mask` is True at an answer's tokens, and rewards, values and advantages
of a token stand at its own place. What steps 1 to 3 find is constant in step 4: the gradient flows
through the new log-probabilities and the new values alone.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..checks import refuse
from ..optimizer.ema import ema
from .gae import gae
from .ppo_loss import PPOResults, ppo_loss_backward, ppo_loss_forward
from .token_rewards import token_rewards
from .whiten import whiten


@dataclasses.dataclass
class PPO:
    """A policy in training, and all that takes part in it.

    Attributes
    ----------
    policy : Policy
        Trained; the mean of its parameters over time is `average`.
    critic : Network
        Trained; its numbers are values.
    reference : Network
        The policy as it began; its numbers are log-probabilities.
    score : callable
        `tokens -> scores [batch]`: what a reward model says of whole answers.
    beta : float
        Weight of the KL divergence from the reference.
    batch, minibatches, epochs : int
        Answers an iteration; parts of them, with an update each; passes over them.
    gamma, lam, decay : float
        γ and λ of GAE, and how much of the average stays in an iteration.
    """

    policy: "Policy"
    critic: "Network"
    reference: "Network"
    score: Callable[[np.ndarray], np.ndarray]
    beta: float
    batch: int = 512
    minibatches: int = 4
    epochs: int = 4
    gamma: float = 1.0
    lam: float = 0.95
    decay: float = 0.992

    def __post_init__(self) -> None:
        """Begin the average where the policy begins."""
        self.average = [self.policy.parameter.copy()]

    def step(self, rates: tuple[float, float], rng: np.random.Generator) -> list[PPOResults]:
        """Do one iteration at the policy's and the critic's rate; return each update's results."""
        answers = self.roll_out(rng)
        judged = self.judge(answers)
        experience = self.credit(answers, judged)
        found = self.update(experience, rates, rng)
        self.average = ema(self.average, [self.policy.parameter], self.decay)
        return found

    def roll_out(self, rng: np.random.Generator) -> "Answers":
        """Let the policy answer."""
        return self.policy.sample(self.batch, rng)

    def judge(self, answers: "Answers") -> "Judged":
        """Ask the reference, the critic and the reward model."""
        reference_log_probs, _ = self.reference.forward(answers.tokens)
        values, _ = self.critic.forward(answers.tokens)
        return Judged(reference_log_probs, values, self.score(answers.tokens))

    def credit(self, answers: "Answers", judged: "Judged") -> "Experience":
        """Say what every token was worth."""
        tokens, mask, log_probs = answers
        reference_log_probs, values, scores = judged
        rewards = token_rewards(log_probs, reference_log_probs, scores, mask, beta=self.beta)
        advantages, returns = gae(rewards, values, mask, gamma=self.gamma, lam=self.lam)
        advantages = whiten(advantages, mask)
        return Experience(tokens, mask, log_probs, rewards, values, advantages, returns)

    def update(
        self, experience: "Experience", rates: tuple[float, float], rng: np.random.Generator
    ) -> list[PPOResults]:
        """Take an optimizer step on each minibatch."""
        found: list[PPOResults] = []
        for _ in range(self.epochs):
            for rows in np.array_split(rng.permutation(self.batch), self.minibatches):
                minibatch = Experience(*(array[rows] for array in experience))
                results, d_policy, d_critic = self.gradients(minibatch)
                if not found:
                    expect_first_ratio(results)
                self.policy.step(d_policy, rates[0])
                self.critic.step(d_critic, rates[1])
                found.append(results)
        return found

    def gradients(self, then: "Experience") -> tuple[PPOResults, np.ndarray, np.ndarray]:
        """Return the loss of a minibatch, and its gradients for policy and critic."""
        log_probs, saved_policy = self.policy.forward(then.tokens)
        values, saved_critic = self.critic.forward(then.tokens)
        entropy = np.zeros(then.mask.shape)  # earns no bonus: the KL divergence keeps π open
        results, saved = ppo_loss_forward(
            log_probs, then.log_probs, then.advantages,
            values, then.values, then.returns, entropy, then.mask,
        )  # fmt: skip
        d_log_probs, d_values, _ = ppo_loss_backward(saved, np.ones(()))
        d_policy = self.policy.backward(saved_policy, d_log_probs)
        return results, d_policy, self.critic.backward(saved_critic, d_values)


class Answers(NamedTuple):
    """What the policy said, and the log-probability that it drew each token with."""

    tokens: np.ndarray
    mask: np.ndarray
    log_probs: np.ndarray


class Judged(NamedTuple):
    """What the models make of answers; the scores are [batch]."""

    reference_log_probs: np.ndarray
    values: np.ndarray
    scores: np.ndarray


class Experience(NamedTuple):
    """What the updates learn from."""

    tokens: np.ndarray
    mask: np.ndarray
    log_probs: np.ndarray
    rewards: np.ndarray
    values: np.ndarray
    advantages: np.ndarray
    returns: np.ndarray


class Network(Protocol):
    """A number for every token: its log-probability, or the value of the state before it."""

    parameter: np.ndarray

    def forward(self, tokens: np.ndarray) -> tuple[np.ndarray, Any]:
        """Return the numbers, [batch, time], and what `backward` needs."""

    def backward(self, saved: Any, d_output: np.ndarray) -> np.ndarray:
        """Return the gradient of `parameter`."""

    def step(self, gradient: np.ndarray, rate: float) -> None:
        """Take an optimizer step against a gradient, in place."""


class Policy(Network, Protocol):
    """A network of log-probabilities that can be sampled."""

    def sample(self, batch: int, rng: np.random.Generator) -> Answers:
        """Draw answers at temperature 1."""


def expect_first_ratio(results: PPOResults) -> None:
    """Raise ValueError if the policy differs from the sampler before anything was learned."""
    far = (results.ratio_min - 1, results.ratio_max - 1, results.approx_kl)
    if not np.allclose(far, 0, rtol=0, atol=1e-9):  # NaN is not close either
        refuse(
            "log_probs",
            "ratios of 1 on a rollout's first minibatch",
            f"{results.ratio_min:.6g} to {results.ratio_max:.6g}",
            "sampled at another temperature, or by another policy",
        )
