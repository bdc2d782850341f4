"""What the model has read that the techniques prompt, and how it learns it.

A document is drawn for each example of each step, and every family of puzzles.py and facts.py
has its share. A fifth of the questions is never in a document: the evaluation asks these. Loss is
on what the model has to write itself.
"""

import dataclasses
import functools
import itertools
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch

from ...core.model.presets import GPTConfig
from ...kernels.cpu import speed_up
from ...kernels.model.gpt import GPT
from ..configuration import Configuration, PretrainSettings, RunSettings
from ..data.dialogue import PAD, SPACE, Encoded
from ..data.tasks import WORDS
from ..formats.tokenizer import Tokenizer
from ..formats.tokenizer_files import END_OF_TEXT
from ..formats.weights import save_gpt2
from ..ranks.group import ALONE
from ..stages.language_model import LanguageModelStage
from ..training.run import train
from . import facts, puzzles
from .facts import ASKED_IN_TRAINING
from .interface import Question
from .puzzles import Document
from .speaker import Speaker, load_speaker

HINTS = ("answer", "steps", "filler", "program")
CUES = (*HINTS, "know", "act", "move", "value", "hint")
SAYINGS = (
    "+ - * = , . ( )", "start go from pet ages reverse second colour of home lives in is keeps",
    "likes visits lookup calculate see finish has boxes and finds loses red blue", facts.UNKNOWN,
)  # fmt: skip
LARGEST_NUMBER = 162  # ( 9 + 9 ) * 9
HELD_OUT = 5  # one question in so many
VALIDATION = 128

Drawn = Callable[[Random], Question]
FAMILIES: dict[str, Drawn] = {
    "links": puzzles.draw_links,
    "story": puzzles.draw_story,
    "pet": facts.draw_pet,
    "ages": facts.draw_ages,
    "chain": facts.draw_chain,
    "make": puzzles.draw_search,
}
# How many documents of each there are in a batch of so many: what is hard to learn has more.
SHARES = {"links": 10, "story": 3, "home": 4, "pet": 4, "ages": 4, "chain": 4, "make": 4, "hint": 1}


def is_held_out(question: Question) -> bool:
    """Say whether a question is kept for evaluation: its own text decides."""
    return zlib.crc32(question.text.encode()) % HELD_OUT == 0


def questions(family: str, n: int, seed: int = 0, *, held_out: bool = True) -> list[Question]:
    """Draw questions, by default such that no document holds.

    Parameters
    ----------
    family : str
        A key of `FAMILIES`, or "home".
    n : int
        How many. Of "links" and "home" there are no more than their names allow, each once.
    seed : int
    held_out : bool
        Only those kept for evaluation, or only the others.

    Returns
    -------
    list of Question
    """
    rng = Random(f"questions {family} {seed} {held_out}")
    if family == "home":
        names = [name for name in puzzles.NAMES if (name in ASKED_IN_TRAINING) != held_out]
        return [facts.home_of(name) for name in rng.sample(names, min(n, len(names)))]
    if family == "links":
        pairs = itertools.product(puzzles.NAMES, puzzles.HOPS)
        pool = [q for pair in pairs if is_held_out(q := puzzles.links_of(*pair)) == held_out]
        return rng.sample(pool, min(n, len(pool)))
    return [_drawn(FAMILIES[family], rng, held_out=held_out) for _ in range(n)]


def document(rng: Random) -> Document:
    """Draw a document of any family."""
    (family,) = rng.choices(list(SHARES), list(SHARES.values()))
    if family == "home":
        return rng.choice(facts.documents_of_home(rng.choice(facts.NAMES), rng))
    if family == "hint":  # which hint is a good one, nobody has told the model
        question = _drawn(FAMILIES[rng.choice(("links", "story"))], rng, held_out=False)
        return Document(f"{question.text} hint", rng.choice(HINTS))
    question = _drawn(FAMILIES[family], rng, held_out=False)
    if family == "links":
        return rng.choice(puzzles.documents_of_links(question))
    if family == "story":
        return rng.choice(puzzles.documents_of_story(question))
    if family == "pet":
        return rng.choice(facts.documents_of_pet(question, rng))
    if family == "ages":
        return rng.choice(facts.documents_of_ages(question, rng))
    if family == "chain":
        return rng.choice(facts.documents_of_chain(question, rng))
    return rng.choice(puzzles.documents_of_search(question, rng))


def _drawn(draw: Drawn, rng: Random, *, held_out: bool) -> Question:
    question = draw(rng)
    while is_held_out(question) != held_out:
        question = draw(rng)
    return question


@functools.cache
def tokenizer() -> Tokenizer:
    """Return a tokenizer in which every word of the documents is one token."""
    words = {word for saying in (*SAYINGS, *CUES) for word in saying.split()}
    words |= {*puzzles.NAMES, *facts.TOWNS, *facts.COLOURS, *facts.PETS, *WORDS, *puzzles.JUDGED}
    words |= {str(number) for number in range(LARGEST_NUMBER + 1)}
    # Twice, since a pair that occurs once makes no token.
    return Tokenizer.train([SPACE + word for word in sorted(words)] * 2, 4096, (END_OF_TEXT, PAD))


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Documents without end; a `Source` of the stage that trains.

    Attributes
    ----------
    batch_size, seed : int
    """

    batch_size: int
    seed: int

    def batch(self, index: int) -> list[Encoded]:
        """Return the examples of step `index`: a function of the seed and the index alone."""
        rng = Random(f"documents {self.seed} {index}")
        return [encoded(document(rng)) for _ in range(self.batch_size)]


def encoded(written: Document) -> Encoded:
    """Return a document as tokens, of which those of the reply and its end are trained."""
    words = tokenizer()
    prompt = words.encode(SPACE + written.prompt)
    reply = [*words.encode(SPACE + written.reply), words.special_tokens[END_OF_TEXT]]
    return Encoded([*prompt, *reply], [False] * len(prompt) + [True] * len(reply))


# --- the model -----------------------------------------------------------------------------------

SMALL = PretrainSettings(steps=600, batch=64, accumulate=2, lr=5e-3, warmup=50, weight_decay=0.01)
MODEL = "model"


def small_gpt(seed: int) -> GPT:
    """Return an untrained model of the size that the techniques prompt."""
    config = GPTConfig(tokenizer().vocab_size, n_ctx=64, n_layer=3, n_head=4, d_model=64)
    return speed_up(GPT(config, torch.Generator().manual_seed(seed), init="fan_in"))


def teach(
    folder: Path,
    seed: int = 0,
    settings: PretrainSettings = SMALL,
    *,
    quiet: bool = False,
) -> Speaker:
    """Return the model that the techniques prompt; train it, if it is not there yet.

    Parameters
    ----------
    folder : pathlib.Path
        Of the run: a training that was cut short goes on; the model lies below it, in `MODEL`.
    seed : int
        Of the parameters and the documents.
    settings : PretrainSettings
    quiet : bool
        No progress bar.

    Returns
    -------
    Speaker
    """
    if not (folder / MODEL).exists():
        model = small_gpt(seed)
        held_out = Corpus(VALIDATION, -1).batch(0)
        stage = LanguageModelStage(
            "pretrain", model, Corpus(settings.batch, seed), held_out, settings, settings.steps,
            tokenizer().special_tokens[PAD], ALONE,
        )  # fmt: skip
        run = RunSettings(directory=str(folder), seed=seed, checkpoint_every=settings.steps)
        train(stage, Configuration(run=run, pretrain=settings), resume=True, quiet=quiet)
        save_gpt2(folder / MODEL, model.config, model.state_dict(), tokenizer())
    return load_speaker(folder / MODEL, seed)
