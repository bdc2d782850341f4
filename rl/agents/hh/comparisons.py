"""What people compare: two answers of a model to one prompt, on one of two axes.

    helpful     which answers better?                        worth: the gold reward
    harmless    which breaks no rule?                        worth: 1, and 0 if it breaks one

Both kinds are about the same prompts by nature (a probe's best answer is harmful), and Bai et al.
(arXiv 2204.05862, section 2) collect them apart: on ordinary questions people choose the better
answer; when they try to make the model misbehave they choose the *worse* one, which is turned round
for the preference model. Where two answers are worth the same there is no preference, and no
comparison: ties are dropped, as there. A labeller errs as Bradley and Terry say, so the best
accuracy there can be is known (`judging.sampled_rankings.ceiling`).
"""

import math
from collections.abc import Callable, Sequence
from random import Random

from ....core.checks import refuse
from ....core.dialogue.preferences import vote_score
from ....kernels.model.gpt import GPT
from ...data.dialogue import Template
from ...data.rankings import Ranking
from ...data.sources import exercise_prompts
from ...data.tasks import Exercise, gold, rank
from ...stages.generation import generate
from ..world.rules import HOUSE, harm

Worth = Callable[[Exercise, str], float]
AT_ONCE = 512  # conversations, by which the cache grows


def helpfulness(exercise: Exercise, reply: str) -> float:
    """Return how well a reply answers, from 0 to 1."""
    return gold(exercise, reply)


def harmlessness(exercise: Exercise, reply: str) -> float:
    """Return 1 for a reply that breaks no rule in force, and 0 for another."""
    return 1.0 - float(harm(HOUSE, exercise.messages, reply))


AXES: dict[str, Worth] = {"helpful": helpfulness, "harmless": harmlessness}


def say(
    model: GPT,
    template: Template,
    prompts: Sequence[list[int]],
    n: int,
    *,
    max_response: int,
    seed: int,
    temperature: float = 1.0,
) -> list[list[list[int]]]:
    """Let a model answer prompts, n times each.

    Parameters
    ----------
    model : GPT
        In evaluation mode.
    template : Template
    prompts : sequence of list of int
        Ids of each.
    n : int
        Answers to each.
    max_response : int
        Tokens an answer may have.
    seed : int
        Of sampling.
    temperature : float

    Returns
    -------
    list of list of list of int
        The ids of each prompt's answers.
    """
    rows = sorted((i for i in range(len(prompts)) for _ in range(n)), key=lambda i: len(prompts[i]))
    found: list[list[list[int]]] = [[] for _ in prompts]
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        said = generate(
            model, [prompts[i] for i in part], max_new_tokens=max_response,
            temperature=temperature, stop_tokens=(template.end,), seed=seed,
            rows=list(range(start, start + len(part))),
        )  # fmt: skip
        for i, response in zip(part, said.token_lists(), strict=True):
            found[i].append(response)
    return found


def compare(
    models: Sequence[GPT],
    template: Template,
    exercises: Sequence[Exercise],
    axis: str,
    *,
    noise: float,
    max_response: int,
    seed: int,
    tries: int = 4,
) -> list[Ranking]:
    """Collect a comparison of two answers to each prompt.

    Parameters
    ----------
    models : sequence of GPT
        Several snapshots may answer: together they say more different things than the last alone
        (Bai et al., section 4.5). Each answers its share of the prompts.
    template : Template
    exercises : sequence of Exercise
        The prompts.
    axis : str
        "helpful" or "harmless".
    noise : float
        The labeller's, in worth; above 0.
    max_response : int
        Tokens an answer may have.
    seed : int
        Of answers and labeller.
    tries : int
        Answers sampled, of which two that differ in worth are shown.

    Returns
    -------
    list of Ranking
        With their worth as golds. Prompts whose answers are all worth the same are left out.
    """
    if axis not in AXES:
        refuse("axis", f"one of {', '.join(AXES)}", repr(axis))
    rng, worth_of = Random(f"compare {axis} {seed}"), AXES[axis]
    found = []
    for number, model in enumerate(models):
        mine = exercise_prompts(template, exercises[number :: len(models)])
        answers = say(
            model, template, [p.ids for p in mine], tries, max_response=max_response, seed=seed
        )
        for prompt, responses in zip(mine, answers, strict=True):
            assert prompt.exercise is not None
            worth = [worth_of(prompt.exercise, template.text(r)) for r in responses]
            two = _two_that_differ(worth, rng)
            if two:
                golds = [worth[i] for i in two]
                shown = [responses[i] for i in two]
                found.append(Ranking(prompt.ids, shown, rank(golds, rng, noise), golds))
    return found


def _two_that_differ(worth: Sequence[float], rng: Random) -> tuple[int, int] | None:
    """Choose two answers of different worth, in random order; None if there are none."""
    pairs = [(i, j) for i in range(len(worth)) for j in range(len(worth)) if worth[i] != worth[j]]
    return rng.choice(pairs) if pairs else None


# --- votes, for the preference model's pretraining -----------------------------------------------

MOST_VOTES = 7.0


def voted(
    model: GPT,
    template: Template,
    exercises: Sequence[Exercise],
    *,
    noise: float,
    max_response: int,
    seed: int,
    answers: int = 4,
) -> list[Ranking]:
    """Rank a model's answers by the votes of a public, which make scores as StackExchange's do.

    The better an answer, the more votes: 2^(7·impression) − 1, an impression being the gold reward
    and an error. Below 0 they are against it. The answer of the best impression is accepted. Equal
    scores are ties.

    Parameters
    ----------
    model : GPT
    template : Template
    exercises : sequence of Exercise
        The questions.
    noise : float
        Standard deviation of an impression's error.
    max_response : int
    seed : int
    answers : int
        To each question.

    Returns
    -------
    list of Ranking
        Without the questions that give no pair.
    """
    rng, found = Random(f"votes {seed}"), []
    asked = exercise_prompts(template, exercises)
    said = say(
        model, template, [p.ids for p in asked], answers, max_response=max_response, seed=seed
    )
    for prompt, responses in zip(asked, said, strict=True):
        assert prompt.exercise is not None
        different = [list(r) for r in dict.fromkeys(map(tuple, responses))]
        golds = [gold(prompt.exercise, template.text(r)) for r in different]
        seen = [g + rng.gauss(0, noise) for g in golds]
        votes = [math.floor(2 ** (MOST_VOTES * max(x, -1.0)) - 1) for x in seen]
        scores = [vote_score(v, accepted=x == max(seen)) for v, x in zip(votes, seen, strict=True)]
        if len(set(scores)) > 1:
            ranks = [max(scores) - score for score in scores]
            found.append(Ranking(prompt.ids, different, ranks, golds))
    return found
