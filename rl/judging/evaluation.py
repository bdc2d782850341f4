"""How good a model's answers are: graded on exercises that no stage has trained on."""

import dataclasses
import math
from collections.abc import Sequence

import torch

from ...kernels.model.gpt import GPT
from ...kernels.rlhf.kl import kl
from ..data.dialogue import Template
from ..data.sources import Prompt
from ..data.tasks import gold, passes
from ..ranks.group import ALONE, Group
from ..stages.generation import generate
from ..stages.rollout import response_log_probs, side_by_side

ANSWERED_AT_ONCE = 256  # prompts
MEASURED_AT_ONCE = 32  # answers


@dataclasses.dataclass(frozen=True)
class Grades:
    """Gold rewards of a model's answers.

    Attributes
    ----------
    gold : list of float
        Of each answer.
    passed : list of bool
        Whether it was perfect.
    responses : list of list of int
        The answers' ids.
    families : list of str
        What kind of exercise each answers.
    """

    gold: list[float]
    passed: list[bool]
    responses: list[list[int]]
    families: list[str]

    @property
    def mean(self) -> float:
        """Mean gold reward."""
        return sum(self.gold) / len(self.gold)

    @property
    def interval(self) -> float:
        """Half the width of the mean's 95% interval: 1.96 standard errors."""
        return mean_with_interval(self.gold)[1]

    @property
    def pass_rate(self) -> float:
        """Share of perfect answers."""
        return sum(self.passed) / len(self.passed)

    def by_family(self) -> dict[str, float]:
        """Return the mean gold reward of each family of exercises."""
        found: dict[str, list[float]] = {}
        for family, gold_ in zip(self.families, self.gold, strict=True):
            found.setdefault(family, []).append(gold_)
        return {family: sum(golds) / len(golds) for family, golds in found.items()}


def gain(after: Grades, before: Grades) -> tuple[float, float]:
    """Compare two models that answered the same prompts, prompt by prompt.

    Parameters
    ----------
    after, before : Grades
        Of the same prompts in the same order.

    Returns
    -------
    mean, interval : float
        Of the differences of gold rewards; the interval as in `mean_with_interval`.
    """
    return mean_with_interval([a - b for a, b in zip(after.gold, before.gold, strict=True)])


def mean_with_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return a mean and half the width of its 95% interval: 1.96 standard errors.

    Parameters
    ----------
    values : sequence of float
        Independent draws, at least one.

    Returns
    -------
    mean, interval : float
    """
    n = len(values)
    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / max(n - 1, 1)
    return mean, 1.96 * math.sqrt(variance / n)


def grade(
    model: GPT,
    template: Template,
    prompts: Sequence[Prompt],
    *,
    max_response: int,
    temperature: float = 1.0,
    seed: int = 0,
    group: Group = ALONE,
    at_once: int = ANSWERED_AT_ONCE,
) -> Grades:
    """Let a model answer exercises, and grade the answers.

    Parameters
    ----------
    model : GPT
        In evaluation mode.
    template : Template
        Of the model's tokenizer.
    prompts : sequence of Prompt
        Each with its exercise.
    max_response : int
        Tokens an answer may have.
    temperature : float
        1 measures the distribution that was trained; 0 the likeliest answers.
    seed : int
        Of sampling.
    group : Group
        The ranks, which share the prompts; each gets all the answers.
    at_once : int
        The most prompts that are answered together, by which the cache grows.

    Returns
    -------
    Grades
    """
    numbers = group.part(list(range(len(prompts))))
    numbers.sort(key=lambda i: len(prompts[i].ids))
    responses: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(numbers), at_once):
        part = numbers[start : start + at_once]
        said = generate(
            model,
            [prompts[i].ids for i in part],
            max_new_tokens=max_response,
            temperature=temperature,
            stop_tokens=(template.end,),
            seed=seed,
            rows=part,
        )
        for i, response in zip(part, said.token_lists(), strict=True):
            responses[i] = response
    responses = group.joined(group.part(responses))
    pairs = [
        (prompt.exercise, template.text(ids))
        for prompt, ids in zip(prompts, responses, strict=True)
        if prompt.exercise is not None
    ]
    return Grades(
        [gold(exercise, text) for exercise, text in pairs],
        [passes(exercise, text) for exercise, text in pairs],
        responses,
        [exercise.family for exercise, _ in pairs],
    )


@torch.no_grad()
def distance(
    policy: GPT,
    reference: GPT,
    template: Template,
    prompts: Sequence[Prompt],
    responses: Sequence[list[int]],
    *,
    at_once: int = MEASURED_AT_ONCE,
) -> float:
    """Estimate how far a policy has gone: KL from a reference, a mean over answers.

    Parameters
    ----------
    policy, reference : GPT
        In evaluation mode.
    template : Template
        Of their tokenizer.
    prompts : sequence of Prompt
    responses : sequence of list of int
        The policy's answers, at a temperature of 1.
    at_once : int
        The most answers in one pass, by which its memory grows.

    Returns
    -------
    float
        In nats an answer; by the estimator k3, which is never negative.
    """
    device = policy.wte.weight.device
    summed = 0.0
    for start in range(0, len(prompts), at_once):
        part = slice(start, start + at_once)
        ids = [prompt.ids for prompt in prompts[part]]
        batch = side_by_side(ids, responses[part], template.pad, device)
        log_prob, before = (response_log_probs(model, batch, 1.0) for model in (policy, reference))
        summed += kl(log_prob, before, batch.mask, estimator="k3").sum().item()
    return summed / len(prompts)
