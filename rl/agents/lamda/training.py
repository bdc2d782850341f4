"""LaMDA's three stages, and what they learn from.

    base ──sampled──▶ responses ──raters──▶ ratings
      │                                        │
      └──▶ stage `rated`: one model says and rates (loss on responses, loss on rating tokens)
                │ rates the conversations that the base has read, and keeps the best
                └──▶ stage `cleaned`: goes on with those alone, and with the ratings
                          └──▶ stage `tools`: learns to ask them, beside what it knows

Each is the stage of a language model: of its batches a part are conversations, in which what the
assistant says is learnt, and a part ratings, in which the last token is.
"""

import dataclasses
import functools
import itertools
import zlib
from collections.abc import Sequence
from pathlib import Path
from random import Random

from ....core.dialogue.lamda import WEIGHTS
from ....kernels.model.gpt import GPT
from ...configuration import SFTSettings
from ...data.batches import Shuffled
from ...data.dialogue import Encoded, Message
from ...data.records import Label
from ...data.tasks import Exercise
from ...ranks.group import ALONE
from ...stages.language_model import LanguageModelStage
from ...training.inputs import Inputs
from ..base import Base, conversations
from ..run import MODEL, files_of, load_model, run_stage, save_model
from ..world.probes import benign, probes
from .raters import rating_rows, rows_of_labels, voted
from .speaker import LamdaSettings, Speaker
from .tools import draw_questions, talk

RATED, CLEANED, TOOLED = "rated", "cleaned", "tools"
HELD_OUT = 20  # one rating in so many
CLEAN = 0.5  # least P(safe) of a conversation that is kept
# What the first two stages compute from; the other settings are of answering, and of the third.
TRAINED = (
    "prompts", "rater_error", "conversations", "kept", "batch", "lr", "cleaned_lr", "warmup",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Training:
    """The stages of one run.

    Attributes
    ----------
    folder : pathlib.Path
        The run's.
    settings : LamdaSettings
    begun : Base
        The model that the first stage trains.
    labels : sequence of Label
        The user's own; empty: raters of the world.
    quiet : bool
        No progress bars.
    """

    folder: Path
    settings: LamdaSettings
    begun: Base
    labels: Sequence[Label] = ()
    quiet: bool = False

    def run(self, last: str = TOOLED) -> None:
        """Train what is left to be trained, up to a stage."""
        s, begun = self.settings, self.begun
        inputs = begun.inputs | {f"lamda.{name}": getattr(s, name) for name in TRAINED}
        inputs["data"] = zlib.crc32(repr(self.labels).encode()) if self.labels else "the world"
        inputs = self._stage(RATED, inputs)
        inputs = self._stage(CLEANED, inputs)
        if last == CLEANED:
            return
        self._stage(TOOLED, inputs | {"lamda.tool_steps": s.tool_steps, "lamda.talks": s.talks})

    def left(self, name: str) -> GPT:
        """Return the model that a stage left."""
        return load_model(self.folder / name)[0]

    def _stage(self, name: str, inputs: Inputs) -> Inputs:
        def save(done: LanguageModelStage, there: Path) -> None:
            save_model(there, done.model, self.begun.template)

        made = functools.partial(self._made, name)
        seed = self.settings.base.seed
        run_stage(self.folder, inputs, made, save, name=name, seed=seed, quiet=self.quiet)
        return inputs | files_of(self.folder / name / MODEL, name)

    def _made(self, name: str) -> LanguageModelStage:
        s = self.settings
        quarter, lr = s.batch // 4, s.lr
        steps = max(1, len(self.rows) // (3 * quarter))  # in which each rating is read once
        if name == RATED:
            model = self.begun.model
            parts = [(self.rows, 3), (self.conversations(), 1)]
        elif name == CLEANED:
            model = self.left(RATED)
            parts = [(self.rows, 3), (self.cleaned(model, s.conversations), 1)]
            lr, steps = s.cleaned_lr, -(-steps // 2)
        else:
            model = self.left(CLEANED)
            cleaned = self.cleaned(model, s.conversations // 4)
            parts = [(self.rows, 1), (cleaned, 1), (self.talks(), 2)]
            steps = s.tool_steps
        source = _Beside(
            tuple(Shuffled(part, share * quarter, s.base.seed) for part, share in parts)
        )
        optimizer = SFTSettings(batch=s.batch, lr=lr, warmup=s.warmup)
        pad = self.begun.template.pad
        return LanguageModelStage(name, model, source, self.held_out, optimizer, steps, pad, ALONE)

    # --- what they learn from --------------------------------------------------------------------

    @property
    def rows(self) -> list[Encoded]:
        """Ratings to learn, each attribute a row."""
        return [row for i, row in enumerate(self._ratings) if i % HELD_OUT]

    @property
    def held_out(self) -> list[Encoded]:
        """Ratings to measure the loss on."""
        return self._ratings[::HELD_OUT]

    @functools.cached_property
    def _ratings(self) -> list[Encoded]:
        template, s = self.begun.template, self.settings
        if self.labels:
            return rows_of_labels(template, self.labels)
        # The first stage trains the base in place: whoever comes later reads it again.
        asked = mixed_prompts(s.base.seed, s.prompts, held_out=False)
        speaker = Speaker(self.begun.model, template, s)
        said = speaker.sample([e.messages for e in asked], 1, seed=s.base.seed)
        rng, rows = Random(f"raters {s.base.seed}"), []
        for exercise, (response,) in zip(asked, said, strict=True):
            reply = template.text(response)
            found = voted(exercise, reply, rng, s.rater_error)
            rows += rating_rows(template, exercise.messages, reply, found)
        return rows

    def conversations(self) -> list[Encoded]:
        """What the base has read, some of it."""
        read = self._read(self.settings.conversations)
        return [self.begun.template.conversation(m) for m in read]

    def _read(self, n: int) -> list[tuple[Message, ...]]:
        return list(itertools.islice(conversations(self.settings.base), n))

    def cleaned(self, model: GPT, n: int) -> list[Encoded]:
        """Keep, of n conversations that the base has read, what a model finds safe and good."""
        s, template = self.settings, self.begun.template
        read = self._read(n)
        responses = [[template.response(m[-1].content)] for m in read]
        found = Speaker(model, template, s).rated([m[:-1] for m in read], responses)
        quality = found.quality[:, 0] @ found.quality.new_tensor(WEIGHTS)
        order = (-quality.where(found.safe[:, 0] >= CLEAN, -1)).argsort(stable=True).tolist()
        kept = order[: max(s.batch // 4, round(s.kept * len(read)))]
        return [template.conversation(read[i]) for i in kept]

    def talks(self) -> list[Encoded]:
        """Talks with the tools, as they should go."""
        drawn = itertools.islice(draw_questions(self.settings.base.seed), self.settings.talks)
        return [talk(self.begun.template, question) for question in drawn]


@dataclasses.dataclass(frozen=True)
class _Beside:
    """Batches of several kinds of row beside each other. A `language_model.Source`."""

    parts: tuple[Shuffled[Encoded], ...]

    def batch(self, index: int) -> list[Encoded]:
        return [row for part in self.parts for row in part.batch(index)]


def mixed_prompts(seed: int, n: int, *, held_out: bool) -> list[Exercise]:
    """Draw prompts: two quarters probes, one their twins, one exercises that no rule touches."""
    tempting, others = probes(seed, held_out=held_out), benign(seed, held_out=held_out)
    found: list[Exercise] = []
    while len(found) < n:
        first, second = next(tempting), next(tempting)
        found += [first.exercise, first.twin, second.exercise, next(others)]
    return found[:n]
