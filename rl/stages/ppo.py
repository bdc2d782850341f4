"""Proximal policy optimisation from a reward model: InstructGPT's, with its pretraining term.

One iteration (InstructGPT equation 2 and C.4; Schulman et al. 2017; lm-human-preferences), the twin
of core/rlhf/ppo.py, which says the same in NumPy:

    1. roll out    the policy answers a batch of prompts
    2. judge       log π, log π_ref and the values of every token, the score of every answer
    3. credit      r_t = −β·KL_t + [t is last]·score;  advantages by GAE, whitened;  returns
    4. update      minibatches: clipped policy loss + c·clipped value loss (+ γ·pretraining loss),
                   one optimizer step each for policy and value
    5. average     EMA of the policy; β steered towards its target, if asked

Several ranks, and the two halves of a CPU's cores, share this work (crew.py): every verb of `crew`
is the obvious one for a single process, and below, "every answer" is every rank's.

Step 4 computes log π again, by one pass over padded rows. So the first minibatch's ratio is 1 up to
rounding (under `run.batch_invariant`, 1 to the bit), and an iteration in which it is not is
stopped, because its gradient is not that of the policy that acted.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from ...kernels.common.launch import door
from ...kernels.model.gpt import GPT
from ...kernels.optimizer.ema import ema_
from ...kernels.rlhf.gae import gae
from ...kernels.rlhf.linear_ppo_loss import linear_ppo_loss
from ...kernels.rlhf.token_rewards import token_rewards
from ...kernels.rlhf.whiten import whiten
from ..configuration import PPOSettings
from ..data.batches import IGNORED, Windows, collate
from ..data.sources import Prompt
from ..training.run import Statistics
from ..training.schedule import constant_after_warmup
from ..training.update import Update
from . import ppo_statistics
from .crew import Crew
from .generation import Generation, generate
from .rollout import (
    Answers,
    Experience,
    Judged,
    response_log_probs,
    response_values,
    side_by_side,
)
from .scorer import Scorer

# The first minibatch's ratio may be so far from 1, since products of other shapes round otherwise.
RATIO_TOLERANCE = 1e-3


@dataclasses.dataclass(eq=False)
class PPO:
    """A policy in training, and all that takes part in it.

    Attributes
    ----------
    policy : GPT
        Trained; the mean of its parameters over time is `average`.
    value : Scorer
        Trained; its trunk is the policy itself if `settings.shared_trunk`.
    reference : GPT
        The policy as it began, frozen.
    score : callable
        `(prompts, responses) -> torch.Tensor [batch]`: the reward of lists of ids.
    prompts : Prompts
        What is answered.
    pretraining : Windows or None
        For the pretraining term; needed if `settings.ptx` is not 0.
    settings : PPOSettings
    crew : Crew
        Whoever computes.
    updates : list of Update
        Of policy and value, or of both in one.
    average : list of torch.Tensor
        Beside the policy's parameters.
    beta : float
        Weight of the KL divergence from the reference, now.
    pad, end : int
        Ids of the padding and the end token.
    seed : int
        Of sampling.
    generate : callable
        As generation.py's. A comparison with another trainer replaces it by that trainer's answers.
    """

    policy: GPT
    value: Scorer
    reference: GPT
    score: Callable[[Sequence[Prompt], Sequence[list[int]]], torch.Tensor]
    prompts: "Prompts"
    pretraining: Windows | None
    settings: PPOSettings
    crew: Crew
    updates: list[Update]
    average: list[torch.Tensor]
    beta: float
    pad: int
    end: int
    seed: int
    generate: Callable[..., Generation] = generate

    def step(self, index: int) -> Statistics:
        """Do one iteration; see `run.Stage`."""
        answers = self.roll_out(index)
        judged = self.judge(answers)
        experience = self.credit(answers, judged)
        statistics = self.update(index, experience) | {"beta": self.beta}
        ema_(self.average, list(self.policy.parameters()), self.settings.ema)
        statistics |= ppo_statistics.of_rollout(judged, experience, self.end)
        self.steer(statistics["kl"])
        return statistics

    @torch.no_grad()
    def roll_out(self, index: int) -> Answers:
        """Let the policy answer the iteration's prompts."""
        s = self.settings
        prompts = self.prompts.batch(index)
        mine = self.crew.part(range(len(prompts)))
        self.policy.eval()
        self.value.eval()
        with self.crew.holding(self.policy):
            said = self.generate(
                self.policy, [prompts[i].ids for i in mine], max_new_tokens=s.max_response,
                temperature=s.temperature, stop_tokens=(self.end,), seed=self.seed + index,
                rows=mine, graphs=s.cuda_graphs, read=self.value.head if s.shared_trunk else None,
            )  # fmt: skip
        responses = self.crew.joined(said.token_lists())
        batch = side_by_side([p.ids for p in prompts], responses, self.pad, self.crew.device)
        log_probs = self.crew.whole(said.log_probs, batch)
        values = None if said.readings is None else self.crew.whole(said.readings, batch)
        return Answers(prompts, responses, batch, log_probs, values)

    @torch.no_grad()
    def judge(self, answers: Answers) -> Judged:
        """Ask the reference, the value network and the reward model; the policy, where it must be.

        Generation has computed log π, and the values that are read from the policy's own states.
        A model in half precision rounds a pass with a cache otherwise than the whole pass of the
        update, by more than the first ratio allows: there the whole pass is taken here, too.
        """
        batch, crew, temperature = answers.batch, self.crew, self.settings.temperature

        def log_probs_of(model: GPT) -> torch.Tensor:
            return crew.of_each(batch, lambda rows: response_log_probs(model, rows, temperature))

        exact = door().batch_invariant or self.policy.dtype in (torch.float32, torch.float64)
        log_probs = answers.log_probs if exact else log_probs_of(self.policy)
        values = answers.values if exact else None
        if values is None:
            values = crew.of_each(batch, lambda rows: response_values(self.value, rows))
        reference = log_probs_of(self.reference)
        scores = self.score(crew.part(answers.prompts), crew.part(answers.responses))
        scores = crew.whole(scores.to(values), batch)
        difference = None if exact else (answers.log_probs - log_probs).abs().max().item()
        return Judged(log_probs, reference, values, scores, difference)

    @torch.no_grad()
    def credit(self, answers: Answers, judged: Judged) -> Experience:
        """Say what every token was worth."""
        s, batch = self.settings, answers.batch
        rule: dict[str, Any] = {
            "ended": batch.ended(self.end),
            "missing_end": s.missing_end,
            "missing_end_value": s.missing_end_value,
        }
        rewards = token_rewards(
            judged.log_probs, judged.reference, judged.scores, batch.mask,
            beta=self.beta, estimator=s.kl_estimator, **({} if s.missing_end == "keep" else rule),
        )  # fmt: skip
        advantages, returns = gae(
            rewards, judged.values, batch.mask, gamma=s.gamma, lam=s.gae_lambda
        )
        advantages = whiten(advantages, batch.mask)
        return Experience(batch, judged.log_probs, rewards, judged.values, advantages, returns)

    def update(self, index: int, experience: Experience) -> Statistics:
        """Take an optimizer step on each minibatch; return the statistics' means over them."""
        s = self.settings
        self.policy.train()
        self.value.train()
        rng = np.random.default_rng((self.seed, index))
        rates = [constant_after_warmup(index, lr, s.lr_warmup) for lr in (s.lr, s.value_lr)]
        names = ("gradient_norm", "value_gradient_norm")
        found: list[Statistics] = []
        for _ in range(s.inner_epochs):
            for rows in np.array_split(rng.permutation(len(experience.returns)), s.minibatches):
                step = self.gradients(experience, rows)
                if not found:
                    expect_first_ratio(step)
                draw = index * s.inner_epochs * s.minibatches + len(found)
                step |= self.pretraining_gradients(draw)
                for name, update, rate in zip(names, self.updates, rates, strict=False):
                    step[name] = update.apply(rate)
                found.append(step)
        difference = ppo_statistics.farthest(found[0])
        means = ppo_statistics.over_minibatches(found)
        return means | {"lr": rates[0], "generation_difference": difference}

    def gradients(self, experience: Experience, rows: np.ndarray) -> Statistics:
        """Add the gradients of a minibatch's loss; return the loss and its statistics."""
        s = self.settings
        n_tokens = float(experience.batch.mask[torch.from_numpy(rows)].sum())

        def add(numbers: np.ndarray) -> Statistics:
            then = experience.rows(torch.tensor(numbers, device=self.crew.device))
            batch = then.batch
            hidden = batch.states(self.policy)  # [row, response, d_model]
            shared = s.shared_trunk
            values = self.value.head(hidden) if shared else response_values(self.value, batch)
            results = linear_ppo_loss(
                hidden.flatten(0, 1), self.policy.output_matrix(),
                torch.where(batch.mask, batch.response, 0).flatten(),
                then.log_probs.flatten(), then.advantages.flatten(),
                values.flatten(), then.values.flatten(), then.returns.flatten(),
                batch.mask.flatten(),
                temperature=s.temperature, clip=s.clip_ratio, value_clip=s.clip_value,
                value_coefficient=s.value_coefficient, entropy_coefficient=s.entropy_coefficient,
            )  # fmt: skip
            # The loss is the mean over the minibatch's tokens, of which these rows hold a share.
            share = float(results.n_tokens) / max(n_tokens, 1.0)
            (results.loss * share).backward()
            return ppo_statistics.of_share(results, share)

        return self.crew.add(add, rows)

    def pretraining_gradients(self, draw: int) -> Statistics:
        """Add γ times the gradients of the pretraining loss (InstructGPT equation 2)."""
        if self.settings.ptx == 0 or self.pretraining is None:
            return {}
        mine = self.crew.part(self.pretraining.batch(draw))
        tokens, targets = (t.to(self.crew.device) for t in collate(mine, self.pad))
        counted = int((targets != IGNORED).sum())
        share = counted / self.crew.total(counted)
        loss = self.policy.loss(tokens, targets, ignore_index=IGNORED) * share
        (loss * self.settings.ptx).backward()
        return {"pretraining_loss": self.crew.total(loss.item())}

    def steer(self, kl: float) -> None:
        """Move β towards where the KL divergence of an answer is the one wanted, if asked to."""
        s = self.settings
        if s.adaptive_kl:
            self.beta = adapted(self.beta, kl, s.kl_target, s.kl_horizon, s.batch)


class Prompts(Protocol):
    """Where prompts come from; `batches.Shuffled` is such."""

    def batch(self, index: int) -> list[Prompt]:
        """Return the prompts of iteration `index`, over all ranks."""


def expect_first_ratio(statistics: Statistics) -> None:
    """Raise RuntimeError unless the first minibatch of a rollout sees the policy that acted."""
    low, high = statistics["ratio_min"], statistics["ratio_max"]
    away = (abs(low - 1), abs(high - 1), statistics["approx_kl"])
    tolerance = 0 if door().batch_invariant else RATIO_TOLERANCE
    if not all(distance <= tolerance for distance in away):  # nor is a NaN
        raise RuntimeError(
            f"the first minibatch of a rollout: expected ratio 1 and approx_kl 0, got ratios from "
            f"{low:.6g} to {high:.6g} and approx_kl {statistics['approx_kl']:.3g} (likely cause: "
            "dropout in the update, another temperature, or padding that reaches the model)"
        )


def adapted(beta: float, kl_: float, target: float, horizon: int, n: int) -> float:
    """Steer β: more where the policy strays, less where it stays (lm-human-preferences).

    `kl_` is the mean over the iteration's `n` episodes of the KL summed over tokens, `target` the
    one wanted, `horizon` the episodes over which β may change by the error.
    """
    error = min(max(kl_ / target - 1, -0.2), 0.2)
    return beta * (1 + error * n / horizon)
