"""The agent: a model whose turn is made of modules, and whose replies a second head guides.

    agent = BlenderBot.train(Path("runs/blenderbot"), BlenderBotSettings())
    agent.respond((Message("user", "What does Ada like?"),)).text         the lamp

Two stages from the base: `modules` teaches the calls of a turn, and `director` the second head,
from thumbs: your own labels, or what users of the world say of the model's own answers, without
those that `trust` leaves out. Then `respond` runs the modules, samples replies from the guided
distribution and says the likeliest, of equal ones the first.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ....core.checks import refuse
from ....kernels.model.gpt import GPT
from ...bounds import COUNT, FROM_0, SEED, one_of, setting
from ...data.dialogue import Template
from ...data.records import Feedback, Label, Record
from ...data.tasks import Exercise
from ...stages.generation import generate
from ...training.inputs import Inputs
from ..base import BaseSettings, base, conversations
from ..interface import Candidate, Messages, Reply, read_agent, write_agent
from ..run import files_of, load_model, run_stage, save_model
from ..world.labels import RIGHT, thumb
from ..world.probes import benign, probes
from ..world.users import users, utterances
from .director import FILE, HEADS, Director, load_director, save_director
from .module_tasks import cases, lessons, library
from .modules import Modules, Turn, TurnSettings
from .objectives import objective
from .training import Example, LabelStage, TrainSettings, labelled
from .trolls import WAYS, chances, trusted

NAME = "blenderbot"
MODULES, DIRECTOR = "modules", "director"
VALIDATION = 200


@dataclasses.dataclass(frozen=True)
class BlenderBotSettings:
    """How the agent is trained and how it speaks.

    Attributes
    ----------
    base : BaseSettings
    turn : TurnSettings
    modules, director : TrainSettings
        Of the two stages.
    head : str
        Of the second head: "linear" or "shared".
    gamma_train, gamma, neutral : float
        γ_train, γ_infer, and the coefficient of the label normalisation.
    cases : int
        Questions that teach the modules.
    labels : int
        Answers that users of the world put a thumb on.
    bad, share : str, float
        What kind of users beside the helpers, and how many: "troll", 0.5.
    trust : str
        Which labels are believed (trolls.py).
    samples : int
        Replies that are sampled for each input; the likeliest is said.
    max_response : int
        Tokens.
    seed : int
    """

    base: BaseSettings = dataclasses.field(default_factory=BaseSettings)
    turn: TurnSettings = dataclasses.field(default_factory=TurnSettings)
    modules: TrainSettings = dataclasses.field(default_factory=lambda: TrainSettings(epochs=1))
    director: TrainSettings = dataclasses.field(default_factory=TrainSettings)
    head: str = setting("linear", one_of(*HEADS))
    gamma_train: float = setting(0.5, FROM_0, "arXiv 2206.07694, ParlAI's default")
    gamma: float = setting(1.0, FROM_0)
    neutral: float = setting(0.0, FROM_0)
    cases: int = setting(3000, COUNT)
    labels: int = setting(2000, COUNT)
    bad: str = setting("troll", one_of("troll", "lazy", "gaslighter", "all-up", "all-down"))
    share: float = setting(0.0, FROM_0)
    trust: str = setting("none", one_of(*WAYS))
    samples: int = setting(4, COUNT)
    max_response: int = setting(16, COUNT)
    seed: int = setting(0, SEED)


class BlenderBot:
    """BlenderBot 3 and its family; an `interface.Agent`.

    Parameters
    ----------
    director : Director
        In evaluation mode.
    template : Template
    settings : BlenderBotSettings
    """

    name = NAME
    Settings = BlenderBotSettings

    def __init__(
        self, director: Director, template: Template, settings: BlenderBotSettings
    ) -> None:
        self.director, self.template, self.settings = director, template, settings
        self.modules = Modules(
            template, self._speak, library(seed=settings.seed), director.trunk.config.n_ctx,
            settings.turn,
        )  # fmt: skip

    # --- training ----------------------------------------------------------------------------

    @classmethod
    def train(
        cls,
        folder: Path,
        settings: BlenderBotSettings,
        records: Sequence[Record] | None = None,
        *,
        quiet: bool = False,
    ) -> "BlenderBot":
        """Train in a folder; see `interface.Agent.train`.

        Of records of your own, labels are thumbs; feedback in words counts as one, up where it
        says "That is right."
        """
        write_agent(folder, NAME, settings)
        start = base(settings.base, quiet=quiet)
        inputs = start.inputs | _inputs(settings, MODULES)
        run_stage(
            folder, inputs, lambda: _modules_stage(start.model, start.template, settings),
            lambda stage, there: save_model(there, stage.trunk, start.template),
            name=MODULES, seed=settings.seed, quiet=quiet,
        )  # fmt: skip
        own = None if records is None else thumbs(records)
        inputs = files_of(folder / MODULES / "model", MODULES) | _inputs(settings, DIRECTOR)
        inputs |= {} if own is None else {"labels": str(len(own))}
        run_stage(
            folder, inputs, lambda: _director_stage(folder, settings, own),
            lambda stage, there: save_director(there, stage.director),
            name=DIRECTOR, left=(FILE,), seed=settings.seed, quiet=quiet,
        )  # fmt: skip
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> "BlenderBot":
        """Read what `train` left."""
        _, written = read_agent(folder)
        parts: dict[str, Any] = {"base": BaseSettings, "turn": TurnSettings}
        parts |= dict.fromkeys((MODULES, DIRECTOR), TrainSettings)
        settings = BlenderBotSettings(
            **{k: parts[k](**v) if k in parts else v for k, v in written.items()}
        )
        model, template = load_model(folder / MODULES)
        director = load_director(folder / DIRECTOR, model.config, settings.head)
        return cls(director, template, settings)

    # --- speaking ----------------------------------------------------------------------------

    def _speak(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Let a module speak: greedily, and unguided."""
        return generate(
            self.director.trunk, prompts, max_new_tokens=self.settings.max_response,
            temperature=0.0, stop_tokens=(self.template.end,),
        ).token_lists()  # fmt: skip

    def respond(self, messages: Messages, *, explain: bool = False, seed: int = 0) -> Reply:
        """Answer a conversation; see `interface.Agent.respond`."""
        s = self.settings
        turn = self.modules.turn(messages)
        prompts = [prompt for prompt in turn.prompts for _ in range(s.samples)]
        said = generate(
            self.director.trunk, prompts, max_new_tokens=s.max_response,
            stop_tokens=(self.template.end,), seed=seed, logits_hook=self.director.hook(s.gamma),
        )  # fmt: skip
        replies = said.token_lists()
        scores = self._scores(prompts, replies, said.log_probs)
        ended = [bool(ids) and ids[-1] == self.template.end for ids in replies]
        # What the limit cut off is said only if nothing ended.
        best = max(range(len(replies)), key=lambda i: (ended[i], scores[i]["guided"]))
        candidates = tuple(
            Candidate(
                self.template.text(ids), found,
                _why(i, best, ended[i], ids == replies[best], turn) if explain else "",
            )
            for i, (ids, found) in enumerate(zip(replies, scores, strict=True))
        )  # fmt: skip
        return Reply(candidates[best].text, candidates, best, turn.notes, ended[best])

    @torch.no_grad()
    def _scores(
        self, prompts: Sequence[list[int]], replies: Sequence[list[int]], log_probs: torch.Tensor
    ) -> list[dict[str, float]]:
        """Score replies: both distributions' mean log-probability, and the worst word's σ(c)."""
        found = []
        for prompt, ids, guided in zip(prompts, replies, log_probs, strict=True):
            tokens = torch.tensor([[*prompt, *ids]])
            hidden = self.director.trunk(tokens[:, :-1], states_from=len(prompt) - 1)[0]
            g = self.director.trunk.logits(hidden)
            wanted = torch.tensor(ids)[:, None]
            good = self.director.class_logits(hidden, g).gather(-1, wanted).sigmoid().min()
            plain = g.log_softmax(-1).gather(-1, wanted).mean()
            found.append(
                {
                    "guided": guided[: len(ids)].mean().item(), "plain": plain.item(),
                    "worst_word": good.item(),
                }
            )  # fmt: skip
        return found


def _why(i: int, best: int, ended: bool, same: bool, turn: Turn) -> str:
    if i == best:
        return "the likeliest under the guide" + (f"; {turn.notes[-1]}" if turn.notes else "")
    if same:
        return "the same, said again"
    return "less likely under the guide" if ended else "cut off by the limit"


def _inputs(settings: BlenderBotSettings, stage: str) -> Inputs:
    """Return what a stage computes from: its own settings, for both share the seed."""
    own = {
        MODULES: ("modules", "cases", "seed"),
        DIRECTOR: (
            "director", "head", "gamma_train", "neutral", "labels", "bad", "share", "trust", "seed",
        ),
    }[stage]  # fmt: skip
    written = dataclasses.asdict(settings)
    return {f"{stage}.{name}": str(written[name]) for name in own}


def _language(settings: BlenderBotSettings, template: Template, n: int) -> list[Example]:
    spoken = itertools.islice(conversations(settings.base), n)
    return [Example(template.conversation(c), language=True) for c in spoken]


def _held_out(settings: BlenderBotSettings, template: Template) -> list[Any]:
    spoken = itertools.islice(conversations(settings.base, held_out=True), VALIDATION)
    return [template.conversation(c) for c in spoken]


def _modules_stage(model: GPT, template: Template, settings: BlenderBotSettings) -> LabelStage:
    nobody = Modules(
        template, lambda prompts: [[] for _ in prompts], library(), model.config.n_ctx,
        settings.turn,
    )  # fmt: skip
    drawn = itertools.islice(cases(settings.seed, held_out=False), settings.cases)
    taught = [example for case in drawn for example in lessons(nobody, case)]
    spoken = _language(settings, template, settings.cases)
    return LabelStage(
        MODULES, model, objective("language"), [*taught, *spoken], [],
        _held_out(settings, template), settings.modules, template.pad, settings.seed,
    )  # fmt: skip


def _director_stage(
    folder: Path, settings: BlenderBotSettings, own: list[Label] | None
) -> LabelStage:
    model, template = load_model(folder / MODULES)
    labels = said_of(model, template, settings) if own is None else own
    if settings.trust != "none":
        good = chances(model, template, labels, settings.director, settings.seed)
        labels = [labels[i] for i in trusted(labels, good, settings.trust)]
    goal = objective("director", gamma=settings.gamma_train, neutral=settings.neutral)
    return LabelStage(
        DIRECTOR, Director(model, settings.head), goal,
        _language(settings, template, settings.labels), labelled(template, labels),
        _held_out(settings, template), settings.director, template.pad, settings.seed,
    )  # fmt: skip


def thumbs(records: Sequence[Record]) -> list[Label]:
    """Return the thumbs of records: labels, and words of feedback as up or down.

    A label of one rule says nothing of the others: who broke it gave a bad answer, and who kept it
    may have broken another, so that label is left out.

    Parameters
    ----------
    records : sequence of Record

    Returns
    -------
    list of Label

    Raises
    ------
    ValueError
        If there is none.
    """
    found = [r for r in records if isinstance(r, Label) and not (r.rule and r.label)]
    found += [
        Label(r.messages, r.completion, int(r.feedback == RIGHT), user=r.user)
        for r in records
        if isinstance(r, Feedback)
    ]
    if not found:
        cause = "texts or dialogues, which say nothing of whether an answer was good"
        refuse("data", "labels or feedback", f"{len(records)} records without any", cause)
    return found


def said_of(model: GPT, template: Template, settings: BlenderBotSettings) -> list[Label]:
    """Let the model answer questions of the world, and its users put thumbs on the answers."""
    people = users(settings.seed, max(1, settings.labels // 10), settings.bad, settings.share)
    whose = itertools.cycle([user for user in people for _ in range(utterances(user))])
    n = settings.labels
    asked: list[Exercise] = [
        p.exercise for p in itertools.islice(probes(settings.seed, held_out=False), n // 2)
    ]
    asked += itertools.islice(benign(settings.seed, held_out=False), n - n // 2)
    said = generate(
        model, [template.prompt(e.messages) for e in asked], max_new_tokens=settings.max_response,
        stop_tokens=(template.end,), seed=settings.seed,
    ).token_lists()  # fmt: skip
    pairs = zip(asked, said, whose, strict=False)
    return [thumb(e, template.text(ids), user) for e, ids, user in pairs]
