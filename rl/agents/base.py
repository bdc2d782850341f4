"""The small model that all four agents begin from, trained once and then read.

It has read conversations of the world as people have them: exercises with imperfect answers, probes
that most people answer (helpful and harmful) and some refuse, and the probes' benign twins. So it
can do both, and what an agent adds is seen. Minutes on one core; the folder is named by size and
seed, so that agents and studies that ask for the same base share it.
"""

import dataclasses
import functools
import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch

from ...core.model.presets import GPTConfig
from ...kernels.cpu import speed_up
from ...kernels.model.gpt import GPT
from ..bounds import ABOVE_0, ANY, COUNT, DEPTH, FROM_0, SEED, SHARE, SIZE, VOCABULARY, setting
from ..chat import find_model
from ..configuration import SFTSettings
from ..data.batches import Shuffled
from ..data.dialogue import SPACE, SPECIAL_TOKENS, Message, Template
from ..data.sources import answered
from ..data.tasks import CATEGORIES, Exercise, demonstration, exercises
from ..formats.tokenizer import Tokenizer
from ..formats.weights import load_gpt2, with_vocabulary
from ..ranks.group import ALONE
from ..stages.language_model import LanguageModelStage
from ..training.inputs import Inputs
from .run import MODEL, files_of, load_model, run_stage, save_model
from .world.labels import MUST_SAY, RIGHT
from .world.probes import probes
from .world.rules import ALL_RULES, REFUSAL

NAME = "base"
# What agents say to themselves, a token each. Nobody can type them: a user's text has none.
RATINGS = ("<|0|>", "<|1|>")
ATTRIBUTES = ("<|sensible|>", "<|specific|>", "<|interesting|>", "<|unsafe|>")
TOOLS = ("<|tools|>", "<|to-user|>")
MODULES = tuple(
    f"<|{name}|>"
    for name in (
        "is-search-required", "do-search", "do-not-search", "generate-query",
        "is-memory-required", "do-access-memory", "do-not-access-memory", "generate-memory",
        "no-memory", "extract-entity", "generate-knowledge",
        "knowledge", "end-knowledge", "memory", "end-memory", "entity", "end-entity", "feedback",
    )
)  # fmt: skip
CONTROLS = (*RATINGS, *ATTRIBUTES, *TOOLS, *MODULES)
TOKENIZER_EXERCISES = 6000
VALIDATION = 300
CHECKED = 100  # conversations by which the world is known again


@dataclasses.dataclass(frozen=True)
class BaseSettings:
    """How the base is made.

    Attributes
    ----------
    folder : str
        Where bases are kept; size and seed are added to its name.
    weights : str
        A run of the pipeline, or a model's folder, to begin from instead of training one.
    seed : int
    n_ctx, n_layer, n_head, d_model, vocab_size : int
        As in `ModelSettings`.
    examples, batch, lr, warmup : int, int, float, int
        Conversations, each read once; the rest of the optimizer is `SFTSettings`.
    carelessness : float
        As in `tasks.demonstration`.
    probed : float
        Share of the conversations that are probes or, half of them, twins of probes.
    refusing : float
        Share of the probes that people refuse to answer.
    generous : float
        Share of the lists asked for that people give one member more than was asked.
    """

    folder: str = setting("runs/agents/base", ANY)
    weights: str = setting("", ANY)
    seed: int = setting(0, SEED)
    n_ctx: int = setting(128, SIZE)
    n_layer: int = setting(2, DEPTH)
    n_head: int = setting(4, SIZE)
    d_model: int = setting(64, SIZE)
    vocab_size: int = setting(1024, VOCABULARY)
    examples: int = setting(40_000, COUNT)
    batch: int = setting(32, COUNT)
    lr: float = setting(4e-3, ABOVE_0)
    warmup: int = setting(50, FROM_0)
    carelessness: float = setting(0.2, SHARE)
    probed: float = setting(0.3, SHARE)
    refusing: float = setting(0.3, SHARE)
    generous: float = setting(0.3, SHARE)

    @property
    def kept(self) -> Path:
        """The folder of this base."""
        return Path(f"{self.folder}-{self.d_model}x{self.n_layer}-{self.seed}")

    @property
    def inputs(self) -> Inputs:
        """What the base is made of (rl/training/inputs.py)."""
        found = dataclasses.asdict(self)
        read = repr(list(itertools.islice(conversations(self), CHECKED)))
        return {f"base.{k}": v for k, v in found.items() if k not in ("folder", "weights")} | {
            "world": zlib.crc32(read.encode())  # rules or probes may be others than before
        }


class Base(NamedTuple):
    """A model and how conversations become its tokens.

    Attributes
    ----------
    model : GPT
        In evaluation mode.
    template : Template
    inputs : dict
        The checksums of its files, for the stages that begin from it.
    """

    model: GPT
    template: Template
    inputs: Inputs


def base(settings: BaseSettings | None = None, *, quiet: bool = True) -> Base:
    """Return the base, training it if nobody has; while another process does, wait for that.

    Parameters
    ----------
    settings : BaseSettings, optional
    quiet : bool
        No progress bar.

    Returns
    -------
    Base
        Read anew, so that it may be trained on.
    """
    settings = settings or BaseSettings()
    if settings.weights:
        return _from_weights(settings)
    folder = settings.kept
    run_stage(
        folder, settings.inputs, lambda: _stage(settings),
        lambda stage, there: save_model(there, stage.model, tokens(settings)),
        name=NAME, seed=settings.seed, shared=True, quiet=quiet,
    )  # fmt: skip
    model, template = load_model(folder / NAME)
    return Base(model, template, files_of(folder / NAME / MODEL, NAME))


def _stage(settings: BaseSettings) -> LanguageModelStage:
    template = tokens(settings)
    config = GPTConfig(
        template.tokenizer.vocab_size, settings.n_ctx, settings.n_layer, settings.n_head,
        settings.d_model,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(settings.seed)
    model = speed_up(GPT(config, generator, init="fan_in"))
    chosen = itertools.islice(conversations(settings), settings.examples)
    held_out = itertools.islice(conversations(settings, held_out=True), VALIDATION)
    training, validation = ([template.conversation(m) for m in part] for part in (chosen, held_out))
    source = Shuffled(training, settings.batch, settings.seed)
    optimizer = SFTSettings(batch=settings.batch, lr=settings.lr, warmup=settings.warmup)
    return LanguageModelStage(
        NAME, model, source, validation, optimizer, source.steps_per_epoch, template.pad, ALONE
    )


def _from_weights(settings: BaseSettings) -> Base:
    """Begin from a model that can chat, with a row for each token that agents need."""
    folder = find_model(settings.weights)
    config, parameters = load_gpt2(folder, framework="torch")
    known = Tokenizer.load(folder)
    tokenizer = known.with_special_tokens((*SPECIAL_TOKENS, *CONTROLS))
    config, parameters = with_vocabulary(
        config, parameters, known.vocab_size, tokenizer.vocab_size, settings.seed
    )
    model = GPT(config)
    model.load_state_dict(parameters)
    return Base(speed_up(model).eval(), Template(tokenizer), files_of(folder, "base.weights"))


# --- what it reads -------------------------------------------------------------------------------


@functools.cache
def _tokenizer(vocab_size: int) -> Tokenizer:
    spoken = [
        m.content
        for e in itertools.islice(exercises(0, held_out=False), TOKENIZER_EXERCISES)
        for m in answered(e, e.answer)
    ]
    tempting = itertools.islice(probes(0, held_out=False), TOKENIZER_EXERCISES)
    spoken += [m.content for p in tempting for m in answered(p.exercise, p.unsafe)]
    often = [rule.text for rule in ALL_RULES] + [
        REFUSAL,
        RIGHT,
        MUST_SAY,
        "Hello.",
        "I think it is",
    ]
    return Tokenizer.train(
        [SPACE + text for text in (*spoken, *often * 100)], vocab_size, (*SPECIAL_TOKENS, *CONTROLS)
    )


def tokens(settings: BaseSettings) -> Template:
    """Return how conversations of the world become tokens: its words are one each."""
    return Template(_tokenizer(settings.vocab_size))


def conversations(
    settings: BaseSettings, *, held_out: bool = False
) -> Iterator[tuple[Message, ...]]:
    """Draw conversations as people have them, without end.

    Parameters
    ----------
    settings : BaseSettings
    held_out : bool
        As in `tasks.exercises`.

    Yields
    ------
    tuple of Message
        Ending with the assistant's turn.
    """
    rng = Random(f"base {settings.seed} {held_out}")
    ordinary = exercises(settings.seed, held_out=held_out)
    tempting = probes(settings.seed, held_out=held_out)
    while True:
        draw = rng.random()
        if draw < settings.probed / 2:
            probe = next(tempting)
            refused = rng.random() < settings.refusing
            yield answered(
                probe.exercise, REFUSAL if refused else _said(probe.exercise, rng, settings)
            )
        elif draw < settings.probed:
            twin = next(tempting).twin
            yield answered(twin, _said(twin, rng, settings))
        else:
            exercise = next(ordinary)
            yield answered(exercise, _said(exercise, rng, settings))


def _said(exercise: Exercise, rng: Random, settings: BaseSettings) -> str:
    """Answer as people do: mostly well, and at times with more than was asked."""
    if exercise.family == "list" and rng.random() < settings.generous:
        return ", ".join([exercise.answer, another_member(exercise, rng)])
    return demonstration(exercise, rng, settings.carelessness)


def another_member(exercise: Exercise, rng: Random) -> str:
    """Return a member of the category asked for that the answer does not name."""
    category = next(c for c in CATEGORIES if c in exercise.messages[-1].content)
    return rng.choice([m for m in CATEGORIES[category] if m not in exercise.answer])
