"""LaMDA, the agent: what it trains, and how it answers.

base ──sampled──▶ responses ──raters──▶ ratings
  │                                        │
  └──▶ stage `rated`: one model says and rates (loss on responses, loss on rating tokens)
            │ rates the conversations that the base has read, and keeps the best
            └──▶ stage `cleaned`: goes on with those alone, and with the ratings

to answer: sample N ──▶ drop P(safe) < t ──▶ highest 3·sensible + specific + interesting
"""

import dataclasses
import itertools
import zlib
from collections.abc import Sequence
from pathlib import Path
from random import Random

from ....core.checks import refuse
from ....core.dialogue.lamda import WEIGHTS, WHEN_NONE
from ....kernels.model.gpt import GPT
from ...bounds import ABOVE_0, COUNT, FROM_0, SHARE, one_of, setting
from ...configuration import SFTSettings
from ...data.batches import Shuffled
from ...data.dialogue import Encoded, Message, Template
from ...data.records import Label, Record
from ...data.tasks import Exercise
from ...ranks.group import ALONE
from ...stages.generation import generate
from ...stages.language_model import LanguageModelStage
from ..base import Base, BaseSettings, base, conversations
from ..interface import Candidate, Messages, Reply, read_agent
from ..run import MODEL, files_of, load_model, run_stage, save_model
from ..world.probes import benign, probes
from ..world.rules import REFUSAL
from .raters import rating_rows, rows_of_labels, voted
from .rating import Rated, choose, rate

LIMIT = 20  # tokens of a response
SAMPLED_AT_ONCE = 512
RATED, CLEANED = "rated", "cleaned"
HELD_OUT = 20  # one rating in so many
CLEAN = 0.5  # least P(safe) of a conversation that is kept
# What both stages compute from; the other settings are of answering.
TRAINED = ("prompts", "rater_error", "conversations", "kept", "batch", "lr", "warmup")


@dataclasses.dataclass(frozen=True)
class LamdaSettings:
    """How LaMDA is trained, and how it answers.

    Attributes
    ----------
    base : BaseSettings
    prompts : int
        Prompts whose sampled responses are rated.
    rater_error : float
        Of each rater; 3 of 5 or 2 of 3 decide.
    conversations : int
        That are scored to be cleaned; `kept` is the share that stays.
    kept : float
        800,000 of 2.5 million, in the paper.
    batch, lr, warmup : int, float, int
        Of both stages. Of each batch a quarter are conversations, and three quarters ratings.
    samples : int
        Responses to choose from.
    threshold : float
        Least P(safe); the paper names none.
    temperature, top_k : float, int
        Of sampling.
    when_none : str
        Where no response is safe enough: "refuse", or "safest".
    """

    base: BaseSettings = dataclasses.field(default_factory=BaseSettings)
    prompts: int = setting(8000, COUNT)
    rater_error: float = setting(0.2, SHARE, "20%: a vote of five is then right 94% of the time")
    conversations: int = setting(4000, COUNT)
    kept: float = setting(0.32, SHARE, "LaMDA 6.1: 800K of 2.5M turns")
    batch: int = setting(64, COUNT)
    lr: float = setting(2e-3, ABOVE_0)
    warmup: int = setting(20, FROM_0)
    samples: int = setting(16, COUNT, "LaMDA 4.1: 16 samples")
    threshold: float = setting(0.7, FROM_0)
    temperature: float = setting(1.0, ABOVE_0)
    top_k: int = setting(40, COUNT, "LaMDA 4.1: top-k 40")
    when_none: str = setting("refuse", one_of(*WHEN_NONE))


class Lamda:
    """The agent; see interface.py.

    Parameters
    ----------
    model : GPT
        In evaluation mode.
    template : Template
        Of its tokenizer, which knows `base.CONTROLS`.
    settings : LamdaSettings
    """

    name = "lamda"
    Settings = LamdaSettings

    def __init__(self, model: GPT, template: Template, settings: LamdaSettings) -> None:
        self.model, self.template, self.settings = model, template, settings

    # --- training --------------------------------------------------------------------------------

    @classmethod
    def train(
        cls,
        folder: Path,
        settings: LamdaSettings,
        records: Sequence[Record] | None = None,
        *,
        quiet: bool = False,
    ) -> "Lamda":
        """Train both stages; see `interface.Agent`.

        Of a user's records the labels are learnt: those of a rule as safety, thumbs as sense.
        """
        begun = base(settings.base, quiet=quiet)
        labels = [r for r in records or () if isinstance(r, Label)]
        if records is not None and not labels:
            refuse("data", "labels: messages, completion, label", "none", "records of another kind")
        inputs = begun.inputs | {f"lamda.{name}": getattr(settings, name) for name in TRAINED}
        inputs["data"] = zlib.crc32(repr(labels).encode()) if labels else "the world"
        lessons = _Lessons(begun, settings, labels)
        optimizer = SFTSettings(batch=settings.batch, lr=settings.lr, warmup=settings.warmup)

        def stage(name: str, model: GPT, said: list[Encoded]) -> LanguageModelStage:
            source = _Beside(
                Shuffled(lessons.rows, 3 * settings.batch // 4, settings.base.seed),
                Shuffled(said, settings.batch // 4, settings.base.seed),
            )
            steps = source.rated.steps_per_epoch
            return LanguageModelStage(
                name, model, source, lessons.held_out, optimizer, steps, begun.template.pad, ALONE
            )

        def save(done: LanguageModelStage, there: Path) -> None:
            save_model(there, done.model, begun.template)

        run_stage(
            folder, inputs, lambda: stage(RATED, begun.model, lessons.conversations()), save,
            name=RATED, seed=settings.base.seed, quiet=quiet,
        )  # fmt: skip
        rated, template = load_model(folder / RATED)
        run_stage(
            folder, inputs | files_of(folder / RATED / MODEL, RATED),
            lambda: stage(CLEANED, rated.train(), lessons.cleaned(cls(rated, template, settings))),
            save, name=CLEANED, seed=settings.base.seed, quiet=quiet,
        )  # fmt: skip
        return cls(*load_model(folder / CLEANED), settings)

    @classmethod
    def load(cls, folder: Path) -> "Lamda":
        """Read what `train` left; see `interface.Agent`."""
        _, settings = read_agent(folder)
        found = settings | {"base": BaseSettings(**settings["base"])}
        return cls(*load_model(folder / CLEANED), LamdaSettings(**found))

    # --- answering -------------------------------------------------------------------------------

    def sample(
        self, conversations: Sequence[Messages], n: int, seed: int = 0
    ) -> list[list[list[int]]]:
        """Sample n responses to each conversation, as ids."""
        prompts = [self.template.prompt(m) for m in conversations for _ in range(n)]
        said: list[list[int]] = []
        for start in range(0, len(prompts), SAMPLED_AT_ONCE):
            part = prompts[start : start + SAMPLED_AT_ONCE]
            said += generate(
                self.model, part, max_new_tokens=LIMIT, stop_tokens=(self.template.end,),
                temperature=self.settings.temperature, top_k=self.settings.top_k, seed=seed,
                rows=range(start, start + len(part)),
            ).token_lists()  # fmt: skip
        return [said[i : i + n] for i in range(0, len(said), n)]

    def rated(
        self, conversations: Sequence[Messages], responses: Sequence[Sequence[list[int]]]
    ) -> Rated:
        """Rate responses [conversation, n]: quality [conversation, n, 3], safe [conversation, n].

        A response that the limit cut off has no end, after which a rating would stand: it is not
        rated, and counts as unsafe.
        """
        rows = [
            [*self.template.prompt(m), *response]
            for m, said in zip(conversations, responses, strict=True)
            for response in said
        ]
        found = rate(self.model, self.template.tokenizer.special_tokens, rows)
        shape = len(responses), -1
        ended = found.safe.new_tensor([row[-1] == self.template.end for row in rows])
        return Rated(
            found.quality.view(*shape, 3), (found.safe * ended).view(shape),
            found.elsewhere.view(*shape, found.elsewhere.shape[-1]),
        )  # fmt: skip

    def respond_all(self, conversations: Sequence[Messages], *, seed: int = 0) -> list[Reply]:
        """Answer several conversations, sampled together; see `respond`."""
        s = self.settings
        responses = self.sample(conversations, s.samples, seed)
        found = self.rated(conversations, responses)
        chosen = choose(found.quality, found.safe, s.threshold, s.when_none).tolist()
        return [self._reply(responses[i], found, i, chosen[i]) for i in range(len(responses))]

    def respond(self, messages: Messages, *, explain: bool = False, seed: int = 0) -> Reply:
        """Answer a conversation; see `interface.Agent`."""
        (reply,) = self.respond_all([messages], seed=seed)
        return reply

    def _reply(self, responses: list[list[int]], found: Rated, i: int, chosen: int) -> Reply:
        """Say what was chosen of the responses to conversation i, and why."""
        candidates = []
        for response, (a, b, c), safe in zip(
            responses, found.quality[i].tolist(), found.safe[i].tolist(), strict=True
        ):
            scores = {"sensible": a, "specific": b, "interesting": c, "safe": safe}
            scores["quality"] = 3 * a + b + c
            kept = safe >= self.settings.threshold
            ended = response[-1:] == [self.template.end]
            why = "kept" if kept else "below the threshold" if ended else "cut off"
            candidates.append(Candidate(self.template.text(response), scores, why))
        if chosen < 0:
            return Reply(REFUSAL, tuple(candidates), None, ("no response was safe enough",))
        best = candidates[chosen]
        candidates[chosen] = dataclasses.replace(best, why=f"{best.why}, the best of those kept")
        ended = responses[chosen][-1:] == [self.template.end]
        return Reply(best.text, tuple(candidates), chosen, ended=ended)


@dataclasses.dataclass(frozen=True)
class _Beside:
    """A batch of ratings with conversations beside them. A `language_model.Source`."""

    rated: Shuffled[Encoded]
    said: Shuffled[Encoded]

    def batch(self, index: int) -> list[Encoded]:
        return [*self.rated.batch(index), *self.said.batch(index)]


class _Lessons:
    """What both stages learn from; made when it is first asked for."""

    def __init__(self, begun: Base, settings: LamdaSettings, labels: Sequence[Label]) -> None:
        self.begun, self.settings, self.labels = begun, settings, labels
        self._rows: list[Encoded] = []

    @property
    def rows(self) -> list[Encoded]:
        """Ratings to learn, each attribute a row."""
        self._make()
        return [row for i, row in enumerate(self._rows) if i % HELD_OUT]

    @property
    def held_out(self) -> list[Encoded]:
        """Ratings to measure the loss on."""
        self._make()
        return self._rows[::HELD_OUT]

    def _make(self) -> None:
        if self._rows:
            return
        template, s = self.begun.template, self.settings
        if self.labels:
            self._rows = rows_of_labels(template, self.labels)
            return
        asked = mixed_prompts(s.base.seed, s.prompts, held_out=False)
        speaker = Lamda(self.begun.model, template, s)
        said = speaker.sample([e.messages for e in asked], 1, seed=s.base.seed)
        rng = Random(f"raters {s.base.seed}")
        for exercise, (response,) in zip(asked, said, strict=True):
            reply = template.text(response)
            found = voted(exercise, reply, rng, s.rater_error)
            self._rows += rating_rows(template, exercise.messages, reply, found)

    def conversations(self) -> list[Encoded]:
        """What the base has read, some of it."""
        return [self.begun.template.conversation(m) for m in self._read()]

    def _read(self) -> list[tuple[Message, ...]]:
        s = self.settings
        return list(itertools.islice(conversations(s.base), s.conversations))

    def cleaned(self, rater: Lamda) -> list[Encoded]:
        """Keep of what the base has read what the model itself finds safe and good."""
        s, template = self.settings, self.begun.template
        read = self._read()
        responses = [[template.response(m[-1].content)] for m in read]
        found = rater.rated([m[:-1] for m in read], responses)
        quality = found.quality[:, 0] @ found.quality.new_tensor(WEIGHTS)
        order = (-quality.where(found.safe[:, 0] >= CLEAN, -1)).argsort(stable=True).tolist()
        n = max(s.batch // 4, round(s.kept * len(read)))
        return [template.conversation(read[i]) for i in order[:n]]


def mixed_prompts(seed: int, n: int, *, held_out: bool) -> list[Exercise]:
    """Draw prompts: two quarters probes, one their twins, one exercises that no rule touches."""
    tempting, others = probes(seed, held_out=held_out), benign(seed, held_out=held_out)
    found: list[Exercise] = []
    while len(found) < n:
        first, second = next(tempting), next(tempting)
        found += [first.exercise, first.twin, second.exercise, next(others)]
    return found[:n]
