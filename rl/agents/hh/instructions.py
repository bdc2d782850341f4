"""A model that does what a prompt says: it refuses what the prompt forbids, and nothing else.

A prompt can only be distilled into a student if the teacher obeys it. Large models do so unasked;
one of less than a million parameters learns it here, from conversations with the prompt, in which
what breaks its rules is refused, and from others without, in which everything is answered. It
learns what this prompt says, and not to read: told a different word in each conversation, it
refused by the toss of a coin (docs/agents.md).
"""

import dataclasses
from collections.abc import Iterator
from random import Random

from ....core.checks import refuse
from ....kernels.model.gpt import GPT
from ...bounds import ABOVE_0, COUNT, FROM_0, SHARE, setting
from ...configuration import SFTSettings
from ...data.batches import Shuffled
from ...data.dialogue import Message, Template
from ...data.sources import answered
from ...data.tasks import exercises
from ...ranks.group import ALONE
from ...stages.language_model import LanguageModelStage
from ..world.probes import Probe, probe
from ..world.rules import ALL_RULES, REFUSAL, Rule
from .distillation import prompted


@dataclasses.dataclass(frozen=True)
class InstructionSettings:
    """How a model learns to obey a prompt.

    Attributes
    ----------
    examples, batch, lr, warmup : int, int, float, int
        Conversations, each read once; the rest of the optimizer is `SFTSettings`.
    prompted : float
        Share of the conversations that begin with the prompt.
    """

    examples: int = setting(8000, COUNT)
    batch: int = setting(32, COUNT)
    lr: float = setting(2e-3, ABOVE_0)
    warmup: int = setting(20, FROM_0)
    prompted: float = setting(0.6, SHARE)


def conversations(
    settings: InstructionSettings, prompt: str, seed: int
) -> Iterator[tuple[Message, ...]]:
    """Draw conversations with and without a prompt, without end.

    Parameters
    ----------
    settings : InstructionSettings
    prompt : str
        Texts of rules (world/rules.py).
    seed : int

    Yields
    ------
    tuple of Message
        Of questions that the prompt forbids to answer, and of their benign twins, as many; without
        the prompt half of these, answered, and half of other exercises.

    Raises
    ------
    ValueError
        If the prompt states no rule that a program can check.
    """
    rules = [rule for rule in ALL_RULES if rule.text in prompt]
    if not rules:
        expected = f"texts of rules, such as {ALL_RULES[0].text!r}"
        refuse("prompt", expected, repr(prompt), "a prompt that the embedded world cannot teach")
    rng = Random(f"instructions {seed}")
    ordinary = exercises(seed, held_out=False)
    while True:
        drawn = _probe(rules, rng)
        exercise, reply = rng.choice(
            ((drawn.exercise, REFUSAL), (drawn.twin, drawn.twin.answer))
        )  # fmt: skip
        if rng.random() < settings.prompted:
            yield (*prompted(exercise, prompt), Message("assistant", reply))
        elif rng.random() < 0.5:
            yield answered(exercise, exercise.answer)
        else:
            other = next(ordinary)
            yield answered(other, other.answer)


def _probe(rules: list[Rule], rng: Random) -> Probe:
    """Draw a probe that nobody keeps for evaluation."""
    while True:
        drawn = probe(rng.choice(rules), rng, rules)
        if not (drawn.exercise.is_held_out() or drawn.twin.is_held_out()):
            return drawn


def instruction_stage(
    model: GPT, template: Template, settings: InstructionSettings, prompt: str, seed: int
) -> LanguageModelStage:
    """Return the fine-tuning of a model on such conversations. A `run.Stage`.

    Parameters
    ----------
    model : GPT
        Trained in place.
    template : Template
    settings : InstructionSettings
    prompt : str
    seed : int
    """
    drawn = conversations(settings, prompt, seed)
    examples = [template.conversation(next(drawn)) for _ in range(settings.examples)]
    source = Shuffled(examples, settings.batch, seed)
    optimizer = SFTSettings(batch=settings.batch, lr=settings.lr, warmup=settings.warmup)
    return LanguageModelStage(
        "instructed", model, source, examples[:100], optimizer, source.steps_per_epoch,
        template.pad, ALONE,
    )  # fmt: skip


def instructed(
    model: GPT, template: Template, settings: InstructionSettings, prompt: str, seed: int
) -> GPT:
    """Teach a model to obey a prompt, in memory; arguments as in `instruction_stage`."""
    stage = instruction_stage(model, template, settings, prompt, seed)
    for index in range(stage.steps):
        stage.step(index)
    return model.eval()
