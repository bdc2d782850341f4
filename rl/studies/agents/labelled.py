"""What DIRECTOR's and the feedback study share: a base that answers, truths, and arms that train.

All seeds begin from one base (seed 0); questions, answers, labels, users, training and sampling
are drawn anew for each seed.
"""

import copy
import functools
import itertools
from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple, TypeVar

from ....kernels.model.gpt import GPT
from ...agents.base import Base, BaseSettings, base, conversations
from ...agents.blenderbot.director import Director
from ...agents.blenderbot.objectives import Objective
from ...agents.blenderbot.training import Example, LabelStage, TrainSettings, generator_loss
from ...agents.world.labels import GOOD, truth
from ...agents.world.measures import Answer, measure_all
from ...agents.world.probes import benign, probes
from ...data.dialogue import Encoded
from ...data.tasks import Exercise
from ...stages.generation import LogitsHook, generate

Row = dict[str, Any]
Model = TypeVar("Model", GPT, Director)
LIMIT = 16  # tokens of an answer
PROBES, OTHERS = 160, 80  # that every arm is measured on
LANGUAGE = 2000  # conversations that an arm goes on reading
SETTINGS = TrainSettings()


class Said(NamedTuple):
    """An answer of the base, and what a program knows of it.

    Attributes
    ----------
    exercise : Exercise
    tempting : bool
        Whether it is a probe.
    reply : str
    """

    exercise: Exercise
    tempting: bool
    reply: str

    @property
    def harmful(self) -> bool:
        """Whether it breaks a rule."""
        return truth(self.exercise, self.reply).harmful

    @property
    def acceptable(self) -> bool:
        """Whether it deserves a thumb up: harmless, and right unless the right is harmful."""
        known = truth(self.exercise, self.reply)
        return not known.harmful and (self.tempting or known.helpful >= GOOD)


@functools.cache
def _base() -> Base:
    return base(BaseSettings(seed=0))


def start() -> Base:
    """Return the base; its model is a copy, to be trained on."""
    kept = _base()
    return kept._replace(model=copy.deepcopy(kept.model))


def answer(
    model: GPT, exercises: Sequence[Exercise], seed: int, hook: LogitsHook | None = None
) -> list[Answer]:
    """Let a model answer, sampled at temperature 1."""
    template = _base().template
    said = generate(
        model, [template.prompt(e.messages) for e in exercises], max_new_tokens=LIMIT,
        stop_tokens=(template.end,), seed=seed, logits_hook=hook,
    )  # fmt: skip
    return [
        Answer(template.text(ids), bool(ids) and ids[-1] == template.end)
        for ids in said.token_lists()
    ]


def questions(seed: int, n: int, *, held_out: bool = False) -> list[tuple[Exercise, bool]]:
    """Draw questions, and whether each tempts: half probes, a quarter twins, a quarter others.

    In random order, so that no user and no fifth of them gets one kind alone.
    """
    drawn = list(itertools.islice(probes(seed, held_out=held_out), n // 2))
    others = itertools.islice(benign(seed, held_out=held_out), n - n // 2 - n // 4)
    twins = [probe.twin for probe in drawn[: n // 4]]
    found = [(p.exercise, True) for p in drawn] + [(e, False) for e in (*twins, *others)]
    Random(f"questions {seed}").shuffle(found)
    return found


def said_by_base(seed: int, n: int) -> list[Said]:
    """Let the base answer questions of training."""
    asked = questions(seed, n)
    replies = answer(_base().model, [exercise for exercise, _ in asked], seed)
    return [
        Said(exercise, tempting, reply.text)
        for (exercise, tempting), reply in zip(asked, replies, strict=True)
        if reply.ended
    ]


@functools.cache
def language(seed: int, n: int) -> list[Example]:
    """Return conversations that an arm reads on."""
    kept, template = conversations(BaseSettings(seed=100 + seed)), _base().template
    return [Example(template.conversation(c), language=True) for c in itertools.islice(kept, n)]


@functools.cache
def held_out() -> list[Encoded]:
    """Return conversations on which the generator's own loss is measured."""
    kept = conversations(BaseSettings(seed=0), held_out=True)
    return [_base().template.conversation(c) for c in itertools.islice(kept, 200)]


def trained(
    model: Model,
    objective: Objective,
    labels: Sequence[Example],
    seed: int,
    more: Sequence[Example] = (),
    settings: TrainSettings = SETTINGS,
    n_language: int = LANGUAGE,
) -> Model:
    """Train an arm: on the labels, on more that is to be said, and on the common language."""
    LabelStage(
        "arm", model, objective, [*language(seed, n_language), *more], labels, [], settings,
        _base().template.pad, seed,
    ).run()  # fmt: skip
    return model


def measured(model: GPT | Director, seed: int, gamma: float = 0.0) -> Row:
    """Measure an arm on held-out probes, their twins and other questions."""
    trunk = model.trunk if isinstance(model, Director) else model
    hook = model.hook(gamma) if isinstance(model, Director) else None
    tempting = list(itertools.islice(probes(seed, held_out=True), PROBES))
    others = list(itertools.islice(benign(seed, held_out=True), OTHERS))
    found = measure_all(lambda asked: answer(trunk, asked, seed, hook), tempting, others).record()
    del found["by_rule"]
    return found | {"generator_loss": generator_loss(trunk, held_out(), _base().template.pad)}
