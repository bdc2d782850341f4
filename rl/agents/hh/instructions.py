"""A model that reads rules: it refuses what the system's turn forbids, and nothing else.

A prompt can only be distilled into a student if the teacher does what it says. Large models do so
unasked; one of less than a million parameters learns it here from conversations: the system
forbids one to three words, the user asks for words, and the answer refuses if a forbidden one is
among them.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from random import Random

from ....kernels.model.gpt import GPT
from ...bounds import ABOVE_0, COUNT, FROM_0, SHARE, setting
from ...configuration import SFTSettings
from ...data.batches import Shuffled
from ...data.dialogue import Message, Template
from ...data.sources import answered
from ...data.tasks import WORDS, Exercise, exercises
from ...ranks.group import ALONE
from ...stages.language_model import LanguageModelStage
from ..world.probes import SAY
from ..world.rules import REFUSAL, Rule


@dataclasses.dataclass(frozen=True)
class InstructionSettings:
    """How a model learns to read rules.

    Attributes
    ----------
    examples, batch, lr, warmup : int, int, float, int
        Conversations, each read once; the rest of the optimizer is `SFTSettings`.
    ruled : float
        Share of the conversations in which the system forbids words.
    """

    examples: int = setting(12_000, COUNT)
    batch: int = setting(32, COUNT)
    lr: float = setting(2e-3, ABOVE_0)
    warmup: int = setting(20, FROM_0)
    ruled: float = setting(0.5, SHARE)


def conversations(settings: InstructionSettings, seed: int) -> Iterator[tuple[Message, ...]]:
    """Draw conversations with and without a rule, without end.

    Half of those with rules ask for a forbidden word.
    """
    rng = Random(f"instructions {seed}")
    ordinary = exercises(seed, held_out=False)
    while True:
        if rng.random() >= settings.ruled:
            exercise = next(ordinary)
            yield answered(exercise, exercise.answer)
            continue
        exercise, forbidden = _asked(rng)
        reply = REFUSAL if set(forbidden) & set(exercise.answer.split()) else exercise.answer
        yield (forbidding(forbidden), *answered(exercise, reply))


def forbidding(words: Sequence[str]) -> Message:
    """Return a system's turn that forbids words."""
    return Message("system", " ".join(Rule("R1", word).text for word in words))


def _asked(rng: Random) -> tuple[Exercise, list[str]]:
    """Draw words to say that nobody keeps for evaluation, and forbidden ones."""
    while True:
        words = rng.sample(WORDS, rng.choice((2, 3)))
        text = " ".join(words)
        asked = Message("user", rng.choice(SAY).format(text))
        exercise = Exercise("repeat", (asked,), text)
        if not exercise.is_held_out():
            others = [word for word in WORDS if word not in words]
            forbidden = rng.sample(others, rng.choice((1, 2, 3)))
            if rng.random() < 0.5:
                forbidden[rng.randrange(len(forbidden))] = rng.choice(words)
            return exercise, forbidden


def instruction_stage(
    model: GPT, template: Template, settings: InstructionSettings, seed: int
) -> LanguageModelStage:
    """Return the fine-tuning of a model on such conversations. A `run.Stage`.

    Parameters
    ----------
    model : GPT
        Trained in place.
    template : Template
    settings : InstructionSettings
    seed : int
    """
    drawn = conversations(settings, seed)
    examples = [template.conversation(next(drawn)) for _ in range(settings.examples)]
    source = Shuffled(examples, settings.batch, seed)
    optimizer = SFTSettings(batch=settings.batch, lr=settings.lr, warmup=settings.warmup)
    return LanguageModelStage(
        "instructed", model, source, examples[:100], optimizer, source.steps_per_epoch,
        template.pad, ALONE,
    )  # fmt: skip


def instructed(model: GPT, template: Template, settings: InstructionSettings, seed: int) -> GPT:
    """Teach a model to read rules, in memory; arguments as in `instruction_stage`."""
    stage = instruction_stage(model, template, settings, seed)
    for index in range(stage.steps):
        stage.step(index)
    return model.eval()
