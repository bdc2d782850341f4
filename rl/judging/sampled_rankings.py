"""Rankings without labellers: the SFT model's own answers, compared by noisy gold rewards.

InstructGPT's labellers ranked K = 4 to 9 completions of a prompt. Here the completions are sampled
from the SFT model, and `tasks.rank` plays the labeller, who errs as Bradley and Terry say. So the
best accuracy that any reward model can have is known: that of the gold rewards themselves
(`ceiling`).
"""

from collections.abc import Callable, Sequence
from random import Random

import numpy as np

from ...core.dialogue.preferences import ceiling as ceiling_of_gaps
from ...kernels.model.gpt import GPT
from ..configuration import RewardSettings
from ..data.dialogue import Template
from ..data.rankings import Ranking
from ..data.sources import Prompt, drawn, exercise_prompts
from ..data.tasks import rank
from ..ranks.group import ALONE, Group
from .evaluation import grade

HELD_OUT_PROMPTS = 800  # so many, since with fewer the labels' noise exceeds a percent


def sample_rankings(
    model: GPT,
    template: Template,
    settings: RewardSettings,
    max_response: int,
    seed: int,
    *,
    held_out: bool,
    group: Group = ALONE,
    say: Callable[[str], None] | None = None,
) -> list[Ranking]:
    """Sample completions and rank them.

    Parameters
    ----------
    model : GPT
        The SFT model, in evaluation mode.
    template : Template
        Of its tokenizer.
    settings : RewardSettings
        Prompts, K and the labeller's noise.
    max_response : int
        Tokens a completion may have.
    seed : int
        Of prompts, completions and labeller.
    held_out : bool
        On `HELD_OUT_PROMPTS` prompts that no stage trains on, or on those to train on.
    group : Group
        The ranks, which share the work; each gets all rankings.
    say : callable, optional
        Told in a line how many prompts are left out, if any are.

    Returns
    -------
    list of Ranking
        With their golds. Equal completions of a prompt are one; a prompt whose completions are all
        equal has nothing to rank, and is left out.
    """
    rng = Random(f"comparisons {seed} {held_out}")
    n = HELD_OUT_PROMPTS if held_out else settings.prompts
    prompts = exercise_prompts(template, drawn(seed + 2, n, held_out=held_out))
    repeated = [p for p in prompts for _ in range(rng.randint(settings.k_min, settings.k_max))]
    grades = grade(model, template, repeated, max_response=max_response, seed=seed, group=group)
    found: dict[int, dict[tuple[int, ...], float]] = {id(prompt): {} for prompt in prompts}
    for prompt, response, gold in zip(repeated, grades.responses, grades.gold, strict=True):
        found[id(prompt)][tuple(response)] = gold
    differing = [prompt for prompt in prompts if len(found[id(prompt)]) > 1]
    if say and len(differing) < n:
        which = "held-out prompts" if held_out else "prompts"
        say(f"reward: {n - len(differing)} of {n} {which} left out: all their answers are alike")
    return [_labelled(prompt, found[id(prompt)], rng, settings.noise) for prompt in differing]


def ceiling(rankings: Sequence[Ranking], noise: float) -> float:
    """Return the accuracy to be expected of the gold rewards themselves: Bradley and Terry's.

    Parameters
    ----------
    rankings : sequence of Ranking
        With their golds.
    noise : float
        The labeller's, above 0.

    Returns
    -------
    float
        The mean of σ(|gold_i − gold_j| / noise) over all pairs; ½ for a pair of equal golds.
    """
    gaps = [
        a - b
        for ranking in rankings
        for i, a in enumerate(ranking.golds)
        for b in ranking.golds[:i]
    ]
    return ceiling_of_gaps(np.array(gaps), noise)


def _labelled(
    prompt: Prompt, said: dict[tuple[int, ...], float], rng: Random, noise: float
) -> Ranking:
    golds = list(said.values())
    return Ranking(prompt.ids, [list(r) for r in said], rank(golds, rng, noise), golds)
