"""Rounds of collecting anew: compare what the best policies say now, and learn from all of it.

Bai et al. (arXiv 2204.05862, section 4.5). In each round

    1. the best policies so far are deployed together, the first one among them, since a policy
       that was optimised says fewer different things
    2. people compare what they say
    3. a new preference model is taught by all comparisons, old and new
    4. a new policy is trained from the first one against it

The new pairs are of better answers, and harder: accuracy on them is lower, and what is learnt from
them is what the older pairs could not say. Whether a policy is better is then asked of people
again: `tournament` lets all of them meet, and core/dialogue/elo.py rates them.
"""

import copy
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from random import Random

import numpy as np

from ....core.rlhf.reward_loss import sigmoid
from ....kernels.model.gpt import GPT
from ...configuration import PPOSettings
from ...data.batches import Shuffled
from ...data.dialogue import Template
from ...data.rankings import Ranking
from ...data.sources import Prompt
from ...ranks.group import ALONE
from ...stages.ppo_stage import PPOStage
from ...stages.reward_model import scoring
from ...stages.scorer import Scorer


def policy_stage(
    policy: GPT,
    judge: Scorer,
    prompts: Sequence[Prompt],
    template: Template,
    settings: PPOSettings,
    *,
    seed: int,
    measure: Callable[[GPT, GPT], dict[str, float]] | None = None,
) -> PPOStage:
    """Return PPO of a policy against a preference model. A `run.Stage`.

    Parameters
    ----------
    policy : GPT
        Trained in place.
    judge : Scorer
        Frozen.
    prompts : sequence of Prompt
    template : Template
    settings : PPOSettings
    seed : int
    measure : callable, optional
        As `judge` of `PPOStage`.

    Returns
    -------
    PPOStage
    """
    value = copy.deepcopy(judge).requires_grad_(True)
    return PPOStage(
        policy, value, scoring(judge, template.pad), Shuffled(prompts, settings.batch, seed),
        settings, pad=template.pad, end=template.end, seed=seed, group=ALONE, judge=measure,
    )  # fmt: skip


@dataclasses.dataclass
class Round:
    """What a round left.

    Attributes
    ----------
    comparisons : list of Ranking
        Collected in it.
    judge : Scorer
        Taught by these and all before.
    policy : GPT
        Trained against it.
    """

    comparisons: list[Ranking]
    judge: Scorer
    policy: GPT


def iterated(
    first: GPT,
    rounds: int,
    collect: Callable[[Sequence[GPT], int], list[Ranking]],
    teach: Callable[[Sequence[Ranking]], Scorer],
    improve: Callable[[Scorer], GPT],
    *,
    deployed: int = 2,
) -> list[Round]:
    """Collect, teach and improve, in rounds.

    Parameters
    ----------
    first : GPT
        The policy before all rounds.
    rounds : int
    collect : callable
        `(policies, round) -> comparisons`.
    teach : callable
        `(all comparisons so far) -> preference model`, from the same beginning each time.
    improve : callable
        `(preference model) -> policy`, from the first policy each time.
    deployed : int
        Policies that answer together: the newest ones.

    Returns
    -------
    list of Round
    """
    found: list[Round] = []
    policies, everything = [first], []
    for number in range(rounds):
        new = collect(policies[-deployed:], number)
        everything += new
        judge = teach(everything)
        found.append(Round(new, judge, improve(judge)))
        policies.append(found[-1].policy)
    return found


def tournament(worths: Sequence[Sequence[float]], *, noise: float, seed: int) -> np.ndarray:
    """Let people compare policies' answers to the same prompts, all pairs of them.

    Parameters
    ----------
    worths : sequence of sequence of float
        Of each policy, what its answer to each prompt is worth.
    noise : float
        The labeller's, in worth; above 0.
    seed : int
        Of the labeller.

    Returns
    -------
    numpy.ndarray [policy, policy]
        Wins. Answers worth the same are no game.
    """
    rng = Random(f"tournament {seed}")
    wins = np.zeros((len(worths), len(worths)))
    for i, j in itertools.combinations(range(len(worths)), 2):
        for a, b in zip(worths[i], worths[j], strict=True):
            if a != b:
                first = rng.random() < sigmoid(np.asarray((a - b) / noise))
                wins[(i, j) if first else (j, i)] += 1
    return wins
