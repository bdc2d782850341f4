"""Proximal policy optimisation from a reward model: InstructGPT's, with its pretraining term.

One iteration (InstructGPT equation 2 and C.4; Schulman et al. 2017; lm-human-preferences):

    1. roll out    the policy answers a batch of prompts
    2. judge       log π, log π_ref, values, and the reward model's score of each answer
    3. credit      r_t = −β·KL_t + [t is last]·score;  advantages by GAE, whitened;  returns
    4. update      minibatches: clipped policy loss + c·clipped value loss (+ γ·pretraining loss),
                   one optimizer step each for policy and value
    5. average     EMA of the policy; β steered towards its target, if asked

log π of step 2, and the values of a head on the policy, are those of the states that the tokens
were drawn from: generation computed them. Step 4 computes them again, by one pass over padded rows:
so the first minibatch's ratio is 1 up to rounding, and an iteration in which it is not is stopped,
because then the gradient is not that of the policy that acted. Half precision rounds a cached pass
otherwise than a whole one, by more than that: there step 2 takes the whole pass, too. How far
generation and the whole pass differ is logged.
"""

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from ...core.checks import refuse
from ...kernels.common.sharded import own_parts
from ...kernels.cpu.halves import Cores
from ...kernels.model.gpt import GPT
from ...kernels.optimizer.ema import ema_
from ...kernels.rlhf.gae import gae
from ...kernels.rlhf.kl import kl
from ...kernels.rlhf.linear_ppo_loss import linear_ppo_loss
from ...kernels.rlhf.token_rewards import token_rewards
from ...kernels.rlhf.whiten import whiten
from ..configuration import PPOSettings
from ..data.batches import IGNORED, Windows, collate
from ..data.sources import Prompt
from ..ranks.group import Group
from ..ranks.sharding import shard, together
from ..training.run import Statistics
from ..training.schedule import constant_after_warmup
from ..training.update import Update
from .generation import Generation, generate
from .rollout import (
    Acting,
    Responses,
    in_shares,
    joined,
    judge_acting,
    response_log_probs,
    response_values,
    side_by_side,
)
from .scorer import Scorer

# How far the first minibatch's ratio may be from 1: products of other shapes round otherwise.
RATIO_TOLERANCE = 1e-3


class Prompts(Protocol):
    """Where prompts come from; `batches.Shuffled` is such."""

    def batch(self, index: int) -> list[Prompt]:
        """Return the prompts of iteration `index`, over all ranks."""


@dataclasses.dataclass
class Experience:
    """What an iteration learns from. All of shape [batch, response] but `batch`.

    Attributes
    ----------
    batch : Responses
    log_prob, values, advantages, returns : torch.Tensor
        Of the policy that acted; constants of the update.
    acted : Acting
        The first two of this rank's rows, and how they came about.
    """

    batch: Responses
    log_prob: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    acted: Acting


class PPOStage:
    """Train a policy with a reward. A `run.Stage`; a step is an iteration.

    Parameters
    ----------
    policy : GPT
        Trained in place; a frozen copy of it is the reference.
    value : Scorer
        Trained in place; its trunk is the policy itself if `settings.shared_trunk`.
    score : callable
        `(prompts, responses) -> torch.Tensor [batch]`: the reward of lists of ids.
    prompts : Prompts
    settings : PPOSettings
    pad, end : int
        Ids of the padding and the end token.
    seed : int
        Of sampling.
    group : Group
        The ranks.
    pretraining : Windows, optional
        For the pretraining term; needed if `settings.ptx` is not 0.
    judge : callable, optional
        `(policy, reference) -> Statistics`: measures the policy in evaluations.
    """

    name = "ppo"

    def __init__(
        self,
        policy: GPT,
        value: Scorer,
        score: Callable[[Sequence[Prompt], Sequence[list[int]]], torch.Tensor],
        prompts: Prompts,
        settings: PPOSettings,
        *,
        pad: int,
        end: int,
        seed: int,
        group: Group,
        pretraining: Windows | None = None,
        judge: Callable[[GPT, GPT], Statistics] | None = None,
    ) -> None:
        # Another's may take its place, to learn from what is said already.
        self.generate: Callable[..., Generation] = generate
        self.policy, self.value, self.score, self.prompts = policy, value, score, prompts
        self.settings, self.pad, self.end, self.seed = settings, pad, end, seed
        self.group, self.pretraining, self.judge = group, pretraining, judge
        if settings.batch < settings.minibatches * group.world:
            expected = f"at least minibatches x ranks = {settings.minibatches} x {group.world}"
            refuse("ppo.batch", expected, str(settings.batch), "a minibatch without a row")
        if settings.cuda_graphs and group.device.type != "cuda":
            cause = "no GPU that PyTorch can use"
            refuse("ppo.cuda_graphs", "false where there is no CUDA device", "true", cause)
        self.steps = settings.episodes // settings.batch
        self.reference = copy.deepcopy(policy).requires_grad_(False).eval()
        for model in (policy, self.reference, value.trunk):
            shard(model, group)
        alone = group.world == 1 and group.device.type == "cpu"
        self.cores = Cores.of(alone, policy, value.trunk)
        for model in (policy, value.trunk):
            if model.compiled_loops:
                self.cores.prepare(model.compile_loops)
        self.beta = settings.kl_coefficient
        self.average = [p.detach().clone() for p in policy.parameters()]
        with_decay = _WithDecay(settings)
        if settings.shared_trunk:
            head = torch.nn.ParameterList([value.weight, value.bias])
            self.updates = [Update(torch.nn.ModuleList([policy, head]), with_decay, group)]
        else:
            self.updates = [Update(policy, with_decay, group), Update(value, with_decay, group)]

    # --- one iteration ---------------------------------------------------------------------------

    def step(self, index: int) -> Statistics:
        """Roll out, judge, credit, update, average; see `run.Stage`."""
        experience, statistics = self._experience(index, self.prompts.batch(index))
        statistics |= self._update(index, experience)
        parameters = [p.detach() for p in self.policy.parameters()]
        ema_(own_parts(self.average), own_parts(parameters), self.settings.ema)
        s = self.settings
        if s.adaptive_kl:
            self.beta = adapted(self.beta, statistics["kl"], s.kl_target, s.kl_horizon, s.batch)
        return statistics

    @torch.no_grad()
    def _experience(self, index: int, prompts: list[Prompt]) -> tuple[Experience, Statistics]:
        """Roll out, judge and credit: each rank its part of the prompts; all see the whole."""
        s, group = self.settings, self.group
        self.policy.eval()
        self.value.eval()
        numbers = group.part(list(range(len(prompts))))
        mine = [prompts[i] for i in numbers]
        with together(self.policy):
            said = self.generate(
                self.policy,
                [prompt.ids for prompt in mine],
                max_new_tokens=s.max_response,
                temperature=s.temperature,
                stop_tokens=(self.end,),
                seed=self.seed + index,
                rows=numbers,
                graphs=s.cuda_graphs,
                read=self.value.head if s.shared_trunk else None,
            )
        responses = said.token_lists()
        ids = [prompt.ids for prompt in prompts]
        batch = side_by_side(ids, group.joined(responses), self.pad, group.device)
        own = batch if group.world == 1 else batch.rows(torch.tensor(numbers, device=group.device))

        def whole(x: torch.Tensor) -> torch.Tensor:
            return group.joined_rows(x, batch.mask.shape)

        alone = s.minibatches == 1 and group.world == 1  # the first minibatch will be these rows
        acted = judge_acting(
            self.policy, self.value, own, said, s.temperature, ahead=alone, cores=self.cores
        )
        log_prob, values = whole(acted.log_prob), whole(acted.values)
        of_reference = in_shares(
            self.cores, lambda rows: response_log_probs(self.reference, rows, s.temperature), own
        )
        reference = whole(joined(of_reference, own))
        scores = self.score(mine, responses).to(values)
        scores = group.joined_rows(scores, batch.mask.shape[:1])
        ended = (batch.mask & (batch.response == self.end)).any(1)
        rule: dict[str, Any] = {
            "ended": ended,
            "missing_end": s.missing_end,
            "missing_end_value": s.missing_end_value,
        }
        rewards = token_rewards(
            log_prob, reference, scores, batch.mask, beta=self.beta, estimator=s.kl_estimator,
            **({} if s.missing_end == "keep" else rule),
        )  # fmt: skip
        advantages, returns = gae(rewards, values, batch.mask, gamma=s.gamma, lam=s.gae_lambda)
        advantages = whiten(advantages, batch.mask)
        n = len(prompts)
        tokens = int(batch.mask.sum())
        statistics = {
            "score": scores.mean().item(),
            "reward": rewards.sum().item() / n,
            "beta": self.beta,
            "response_length": tokens / n,
            "end_rate": ended.float().mean().item(),
            "explained_variance": explained_variance(values, returns, batch.mask),
            "tokens": tokens,
        }
        for estimator, name in (("k1", "kl"), ("k3", "kl_k3")):
            per_token = kl(log_prob, reference, batch.mask, estimator=estimator)
            statistics[name] = per_token.sum().item() / n
        return Experience(batch, log_prob, values, advantages, returns, acted), statistics

    def _update(self, index: int, experience: Experience) -> Statistics:
        """Take the iteration's optimizer steps; return the statistics' means over them."""
        s = self.settings
        self.policy.train()
        self.value.train()
        rng = np.random.default_rng((self.seed, index))
        n_rows = len(experience.batch.tokens)
        rates = [constant_after_warmup(index, lr, s.lr_warmup) for lr in (s.lr, s.value_lr)]
        found: list[Statistics] = []
        for _ in range(s.inner_epochs):
            for rows in np.array_split(rng.permutation(n_rows), s.minibatches):
                step = self._minibatch(experience, rows)
                if not found:
                    expect_first_ratio(step)
                draw = index * s.inner_epochs * s.minibatches + len(found)
                step |= self._pretraining_term(draw)
                names = ("gradient_norm", "value_gradient_norm")
                for name, update, lr in zip(names, self.updates, rates, strict=False):
                    step[name] = update.apply(lr)
                found.append(step)
        difference = experience.acted.difference
        if difference is None:  # the first minibatch compared the two
            difference = max(-math.log(found[0]["ratio_min"]), math.log(found[0]["ratio_max"]))
        return over_minibatches(found) | {"lr": rates[0], "generation_difference": difference}

    def _minibatch(self, experience: Experience, of_all: np.ndarray) -> Statistics:
        """Add the gradients of some rows, each rank of its share; return loss and statistics."""
        group = self.group
        counted = float(experience.batch.mask[torch.from_numpy(of_all)].sum())
        shares = self.cores.shares(of_all[group.rank :: group.world])
        ahead = experience.acted.take_ahead()
        values: list[Any] = [None] * len(shares)
        if ahead is not None and len(ahead) == len(shares):  # each in ascending order of its rows
            values = [part[rows // len(shares)] for part, rows in zip(ahead, shares, strict=True)]
        found = self.cores.map(
            functools.partial(self._add_gradients, experience, counted), shares, values
        )
        low = min(numbers.pop("ratio_min") for numbers in found)
        high = max(numbers.pop("ratio_max") for numbers in found)
        low, minus_high = group.least([low, -high])
        sums = [sum(numbers[name] for numbers in found) for name in found[0]]
        means = group.total_of_each(sums)
        return dict(zip(found[0], means, strict=True)) | {
            "ratio_min": low,
            "ratio_max": -minus_high,
        }

    def _add_gradients(
        self,
        experience: Experience,
        counted: float,
        of_all: np.ndarray,
        values: torch.Tensor | None,
    ) -> Statistics:
        """Add the gradients of some rows; return their part of loss and statistics.

        `counted` is the minibatch's number of tokens; `values` are there if they were computed
        ahead.
        """
        s = self.settings
        rows = torch.from_numpy(of_all.copy()).to(self.group.device)
        batch = experience.batch.rows(rows)
        n_response = batch.mask.shape[1]
        hidden = batch.states(self.policy)  # [row, response, d_model]
        if s.shared_trunk:
            values = self.value.head(hidden)
        elif values is None:
            values = response_values(self.value, batch)

        def flat(x: torch.Tensor) -> torch.Tensor:
            return x[rows, :n_response].flatten()

        result = linear_ppo_loss(
            hidden.flatten(0, 1),
            self.policy.output_matrix(),
            torch.where(batch.mask, batch.response, 0).flatten(),
            flat(experience.log_prob),
            flat(experience.advantages),
            values.flatten(),
            flat(experience.values),
            flat(experience.returns),
            batch.mask.flatten(),
            temperature=s.temperature,
            clip=s.clip_ratio,
            value_clip=s.clip_value,
            value_coefficient=s.value_coefficient,
            entropy_coefficient=s.entropy_coefficient,
        )
        # The mean over the minibatch's tokens, of which these are a share.
        share = float(result.n_tokens) / max(counted, 1.0)
        (result.loss * share).backward()
        names = [n for n in result._fields if n not in ("n_tokens", "explained_variance")]
        numbers = torch.stack([getattr(result, name).detach() for name in names]).tolist()
        found = dict(zip(names, numbers, strict=True))
        extremes = {name: found.pop(name) for name in ("ratio_min", "ratio_max")}
        return {name: value * share for name, value in found.items()} | extremes

    def _pretraining_term(self, draw: int) -> Statistics:
        """Add γ times the gradients of the pretraining loss (InstructGPT equation 2)."""
        if self.settings.ptx == 0 or self.pretraining is None:
            return {}
        mine = self.group.part(self.pretraining.batch(draw))
        tokens, targets = (t.to(self.group.device) for t in collate(mine, self.pad))
        counted = int((targets != IGNORED).sum())
        share = counted / self.group.total(counted)
        loss = self.policy.loss(tokens, targets, ignore_index=IGNORED) * share
        (loss * self.settings.ptx).backward()
        return {"pretraining_loss": self.group.total(loss.item())}

    # --- around the iterations -------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self) -> Statistics:
        """Measure the policy with `judge`; see `run.Stage`."""
        self.policy.eval()
        with together(self.policy, self.reference):
            return self.judge(self.policy, self.reference) if self.judge else {}

    def state_dict(self) -> dict[str, Any]:
        """Return policy, value, reference, average, moments and β; see `run.Stage`."""
        return {
            "policy": self.policy.state_dict(),
            "value": self.value.state_dict(),
            "reference": self.reference.state_dict(),
            "average": list(self.average),
            "optimizers": [update.state_dict() for update in self.updates],
            "beta": self.beta,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state; see `run.Stage`."""
        self.policy.load_state_dict(state["policy"])
        self.value.load_state_dict(state["value"])
        self.reference.load_state_dict(state["reference"])
        for average, kept in zip(self.average, state["average"], strict=True):
            average.copy_(kept)
        for update, kept in zip(self.updates, state["optimizers"], strict=True):
            update.load_state_dict(kept)
        self.beta = state["beta"]


@dataclasses.dataclass(frozen=True)
class _WithDecay:
    """PPO's optimizer settings, as `Update` wants them: without weight decay."""

    settings: PPOSettings
    weight_decay: float = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.settings, name)


def expect_first_ratio(statistics: Statistics) -> None:
    """Stop unless the first minibatch of a rollout sees the policy that acted.

    Parameters
    ----------
    statistics : dict
        Of the first minibatch: ratio_min, ratio_max, approx_kl.

    Raises
    ------
    RuntimeError
        If a ratio is not 1 or approx_kl not 0, up to rounding.
    """
    low, high = statistics["ratio_min"], statistics["ratio_max"]
    if max(abs(low - 1), abs(high - 1), statistics["approx_kl"]) > RATIO_TOLERANCE:
        raise RuntimeError(
            f"the first minibatch of a rollout: expected ratio 1 and approx_kl 0, got ratios from "
            f"{low:.6g} to {high:.6g} and approx_kl {statistics['approx_kl']:.3g} (likely cause: "
            "dropout in the update, another temperature, or padding that reaches the model)"
        )


def over_minibatches(found: Sequence[Statistics]) -> Statistics:
    """Join the statistics of an iteration's minibatches: extremes of the ratio, means of all else.

    Parameters
    ----------
    found : sequence of dict
        Of each minibatch, under the same names.

    Returns
    -------
    dict
    """
    joined = {name: sum(step[name] for step in found) / len(found) for name in found[0]}
    joined["ratio_min"] = min(step["ratio_min"] for step in found)
    joined["ratio_max"] = max(step["ratio_max"] for step in found)
    return joined


def explained_variance(values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor) -> float:
    """Return 1 − Var(returns − values) / Var(returns): what the value network knew beforehand.

    Parameters
    ----------
    values, returns : torch.Tensor [batch, response]
        Of the policy that acted.
    mask : torch.Tensor of bool [batch, response]

    Returns
    -------
    float
        0 where the returns do not vary.
    """
    wanted = returns[mask]
    variance = wanted.var(correction=0).item() if len(wanted) else 0.0
    if variance == 0:
        return 0.0
    return 1 - (wanted - values[mask]).var(correction=0).item() / variance


def adapted(beta: float, kl_: float, target: float, horizon: int, n: int) -> float:
    """Steer β: more where the policy strays, less where it stays (lm-human-preferences).

    Parameters
    ----------
    beta : float
        β now.
    kl_ : float
        The mean over episodes of the KL summed over tokens.
    target : float
        The KL wanted.
    horizon : int
        Episodes over which β may change by the error.
    n : int
        Episodes of this iteration.

    Returns
    -------
    float
    """
    error = min(max(kl_ / target - 1, -0.2), 0.2)
    return beta * (1 + error * n / horizon)
