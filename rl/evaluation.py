"""How good a model's answers are: graded on exercises that no stage has trained on."""

import dataclasses
import math
from collections.abc import Sequence

from ..kernels.gpt import GPT
from .dialogue import Template
from .generation import generate
from .parallel import ALONE, Group
from .sources import Prompt
from .tasks import gold, passes


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
    """

    gold: list[float]
    passed: list[bool]
    responses: list[list[int]]

    @property
    def mean(self) -> float:
        """Mean gold reward."""
        return sum(self.gold) / len(self.gold)

    @property
    def interval(self) -> float:
        """Half the width of the mean's 95% interval: 1.96 standard errors."""
        mean, n = self.mean, len(self.gold)
        variance = sum((g - mean) ** 2 for g in self.gold) / max(n - 1, 1)
        return 1.96 * math.sqrt(variance / n)

    @property
    def pass_rate(self) -> float:
        """Share of perfect answers."""
        return sum(self.passed) / len(self.passed)


def grade(
    model: GPT,
    template: Template,
    prompts: Sequence[Prompt],
    *,
    max_response: int,
    temperature: float = 1.0,
    seed: int = 0,
    group: Group = ALONE,
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

    Returns
    -------
    Grades
    """
    numbers = group.part(list(range(len(prompts))))
    said = generate(
        model,
        [prompts[i].ids for i in numbers],
        max_new_tokens=max_response,
        temperature=temperature,
        stop_tokens=(template.end,),
        seed=seed,
        rows=numbers,
    )
    responses = group.joined(said.token_lists())
    pairs = [
        (prompt.exercise, template.text(ids))
        for prompt, ids in zip(prompts, responses, strict=True)
        if prompt.exercise is not None
    ]
    return Grades(
        [gold(exercise, text) for exercise, text in pairs],
        [passes(exercise, text) for exercise, text in pairs],
        responses,
    )
