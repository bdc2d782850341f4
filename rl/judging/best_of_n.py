"""Best-of-n: say n things, keep the one that the reward model likes best.

The simplest way to use a reward model, with no training, and the yardstick of what PPO gains. Its
distance from the model it samples from is known (Stiennon et al. 2020, arXiv 2009.01325):

    KL(best-of-n ‖ model) ≤ ln n − (n − 1)/n      equal unless two answers can be the same

So proxy and gold reward over √KL need no estimate of the KL (Gao et al., arXiv 2210.10760). For
the means of all n up to N, N answers to each prompt are enough: of the answers in the order of
their scores, the one with i − 1 below it is the best of n drawn from the N with the chance
C(i − 1, n − 1) / C(N, n) (`weights`).
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from ...core.checks import expect_positive, refuse
from ...kernels.model.gpt import GPT
from ...records import write_together
from ..data.dialogue import Template
from ..data.sources import Prompt
from ..ranks.group import ALONE, Group
from ..stages.generation import generate
from ..stages.reward_model import Score
from .evaluation import grade

FILE = "best_of_n.json"


@dataclasses.dataclass(frozen=True)
class Choice:
    """What was said to one prompt.

    Attributes
    ----------
    responses : list of list of int
        All of them.
    scores : list of float
        Of each.
    """

    responses: list[list[int]]
    scores: list[float]

    @property
    def best(self) -> list[int]:
        """The response of the highest score, of equal ones the first."""
        return self.responses[max(range(len(self.scores)), key=self.scores.__getitem__)]


def best_of_n(
    model: GPT,
    template: Template,
    score: Score,
    prompts: Sequence[Prompt],
    n: int,
    *,
    max_response: int,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[Choice]:
    """Say n things to each prompt, and score them.

    Parameters
    ----------
    model : GPT
        Samples the responses.
    template : Template
        Of its tokenizer.
    score : callable
        `(prompts, responses) -> torch.Tensor [response]`.
    prompts : sequence of Prompt
    n : int
        Responses to each.
    max_response : int
        Tokens a response may have.
    temperature : float
        Of sampling; above 0, where all n would be the same.
    seed : int
        Of sampling.

    Returns
    -------
    list of Choice
        One for each prompt.
    """
    expect_positive("n", n)
    if temperature <= 0 and n > 1:
        cause = "every answer would be the likeliest one: name a temperature"
        refuse("temperature", f"above 0 to say {n} different things", f"{temperature}", cause)
    repeated = [prompt for prompt in prompts for _ in range(n)]
    said = generate(
        model,
        [prompt.ids for prompt in repeated],
        max_new_tokens=max_response,
        temperature=temperature,
        stop_tokens=(template.end,),
        seed=seed,
    )
    responses = said.token_lists()
    with torch.no_grad():
        scores = score(repeated, responses).tolist() if repeated else []
    starts = range(0, len(repeated), n)
    return [Choice(responses[i : i + n], scores[i : i + n]) for i in starts]


def kl_bound(n: int) -> float:
    """Return the most that best-of-n can be away from the model it samples from, in nats.

    Parameters
    ----------
    n : int
        At least 1.

    Returns
    -------
    float
    """
    expect_positive("n", n)
    return math.log(n) - (n - 1) / n


def weights(total: int, n: int) -> list[float]:
    """Return how likely each of some responses is the best of n drawn from them.

    Parameters
    ----------
    total : int
        Responses, in the order of their scores, the lowest first.
    n : int
        How many are drawn, without putting back; at most `total`.

    Returns
    -------
    list of float
        They sum to 1.
    """
    if not 1 <= n <= total:
        refuse("n", f"from 1 to the {total} responses", f"{n}")
    return [math.comb(below, n - 1) / math.comb(total, n) for below in range(total)]


def mean_of_best(scores: Sequence[float], wanted: Sequence[float], n: int) -> float:
    """Estimate, without bias, what the best of n is worth.

    Parameters
    ----------
    scores : sequence of float
        Of the responses to one prompt: by these the best is chosen.
    wanted : sequence of float
        Of the same responses: the scores themselves, or their gold rewards.
    n : int
        At most the number of responses.

    Returns
    -------
    float
    """
    order = sorted(range(len(scores)), key=scores.__getitem__)
    chances = weights(len(scores), n)
    return sum(chance * wanted[i] for chance, i in zip(chances, order, strict=True))


def measure(
    model: GPT,
    template: Template,
    score: Score,
    prompts: Sequence[Prompt],
    most: int,
    folder: Path,
    *,
    max_response: int,
    seed: int = 0,
    group: Group = ALONE,
) -> list[dict[str, float]]:
    """Write best_of_n.json: proxy and gold reward of best-of-n for n = 1, 2, 4, ...

    Parameters
    ----------
    model, template, score, max_response, seed
        As in `best_of_n`.
    prompts : sequence of Prompt
        Each with its exercise, so that answers have a gold reward.
    most : int
        The largest n; as many answers are sampled for each prompt.
    folder : pathlib.Path
        Where the file is written.
    group : Group
        The ranks, which share the work.

    Returns
    -------
    list of dict
        For each n its bound on the KL, and the mean proxy and gold reward.
    """
    repeated = [prompt for prompt in prompts for _ in range(most)]
    grades = grade(model, template, repeated, max_response=max_response, seed=seed, group=group)
    with torch.no_grad():
        mine = score(group.part(repeated), group.part(grades.responses)).tolist()
    scores = group.joined(mine)
    rows = [slice(i, i + most) for i in range(0, len(repeated), most)]
    found = []
    for n in (2**i for i in range(most.bit_length())):
        proxy = [mean_of_best(scores[row], scores[row], n) for row in rows]
        gold = [mean_of_best(scores[row], grades.gold[row], n) for row in rows]
        means = (sum(proxy) / len(rows), sum(gold) / len(rows))
        found.append({"n": n, "kl": kl_bound(n), "proxy": means[0], "gold": means[1]})
    if group.is_main:
        write_together(folder, {FILE: json.dumps(found, indent=1)})
    return found
