"""Directional stimulus: a small policy writes a hint, a frozen model answers with it.

    start bade go 2 hint  →  the policy: steps      start bade go 2 steps  →  the frozen model

Li et al. 2023 (arXiv 2302.11520) tune the policy first on hints that people wrote, then by
reinforcement learning from what the answers are worth. Here it begins as a model that has read
hints drawn at random, and learns by PPO from gold reward alone which hint serves which question:
the frozen model is a black box to it.
"""

import copy
import dataclasses
from collections.abc import Mapping, Sequence

import torch

from ..configuration import PPOSettings
from ..data.batches import Shuffled
from ..data.dialogue import PAD
from ..data.sources import Prompt
from ..ranks.group import ALONE
from ..stages.ppo_stage import PPOStage
from ..stages.scorer import Scorer
from .corpus import HINTS, questions
from .interface import Answered, Call, Question, answer_all
from .speaker import Speaker
from .techniques import Steps, computed, last_answer

PPO = PPOSettings(
    episodes=1280, batch=64, minibatches=4, max_response=2, lr=5e-4, value_lr=1e-3, lr_warmup=2,
    ptx=0.0,
)  # fmt: skip
CUE = "hint"


def read(question: Question) -> Steps:
    """Ask a question that ends in its hint, and read the reply whatever its form is."""
    (said,) = yield Call(question.text)
    return last_answer(said.text) or computed(said.text)


def answered_with(
    answerer: Speaker, asked: Sequence[Question], hints: Sequence[str]
) -> list[Answered]:
    """Let the frozen model answer each question with its hint.

    Parameters
    ----------
    answerer : Speaker
    asked : sequence of Question
    hints : sequence of str
        One for each; what is not one of `HINTS` is asked all the same.

    Returns
    -------
    list of Answered
    """
    hinted = [
        dataclasses.replace(question, text=f"{question.text} {hint}")
        for question, hint in zip(asked, hints, strict=True)
    ]
    return answer_all(answerer, read, hinted)


def written(policy: Speaker, asked: Sequence[Question], temperature: float = 1.0) -> list[str]:
    """Let a policy write a hint for each question."""
    calls = [Call(f"{q.text} {CUE}", temperature=temperature, limit=2) for q in asked]
    return [said.text for (said,) in policy.say(calls)]


def best_of_all(answerer: Speaker, asked: Sequence[Question]) -> list[bool]:
    """Say of each question whether any hint leads to its answer: what a policy can reach."""
    tried = [answered_with(answerer, asked, [hint] * len(asked)) for hint in HINTS]
    return [any(found.right for found in row) for row in zip(*tried, strict=True)]


def drawn(n: int, seed: int, *, held_out: bool = True) -> list[Question]:
    """Draw questions of both families that hints are for, at most n in all; as `questions`."""
    families = ("links", "story")
    return [q for family in families for q in questions(family, n // 2, seed, held_out=held_out)]


def trained(
    answerer: Speaker, asked: Sequence[Question], seed: int = 0, settings: PPOSettings = PPO
) -> Speaker:
    """Improve the policy by PPO.

    Parameters
    ----------
    answerer : Speaker
        Frozen; a copy of its model is the policy that begins.
    asked : sequence of Question
        To learn on, at least a batch.
    seed : int
    settings : PPOSettings

    Returns
    -------
    Speaker
        The policy.
    """
    policy = copy.deepcopy(answerer.model)
    prompts = {tuple(answerer.encode(f"{q.text} {CUE}")): q for q in asked}

    def score(prompted: Sequence[Prompt], responses: Sequence[list[int]]) -> torch.Tensor:
        hints = [_word(answerer, response) for response in responses]
        about = [prompts[tuple(prompt.ids)] for prompt in prompted]
        return torch.tensor([float(a.right) for a in answered_with(answerer, about, hints)])

    stage = PPOStage(
        policy, Scorer(copy.deepcopy(answerer.model), seed), score,
        Shuffled([Prompt(list(ids), ()) for ids in prompts], settings.batch, seed, "ppo.batch"),
        settings, pad=answerer.tokenizer.special_tokens[PAD], end=answerer.end, seed=seed,
        group=ALONE,
    )  # fmt: skip
    for index in range(stage.steps):
        stage.step(index)
    return Speaker(policy.eval(), answerer.tokenizer, seed)


def _word(speaker: Speaker, response: Sequence[int]) -> str:
    return speaker.tokenizer.decode(t for t in response if t != speaker.end).strip()


def shares(hints: Sequence[str], asked: Sequence[Question]) -> Mapping[str, Mapping[str, float]]:
    """Count how often each hint is given to each family of questions."""
    found: dict[str, dict[str, float]] = {}
    for family in dict.fromkeys(q.family for q in asked):
        given = [h for h, q in zip(hints, asked, strict=True) if q.family == family]
        found[family] = {hint: given.count(hint) / len(given) for hint in HINTS}
    return found
