"""What the studies share: a small world of text, and models trained on it in seconds.

A document is an exercise of tasks.py with its answer, as running text:

    Q: What is the first word of: key moon
    A: key

so that a language model learns the answers, a wrong one can be made to every question, and none of
the questions that are kept for evaluation was ever read.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from random import Random

import numpy as np
import torch

from ....core.model.presets import GPTConfig
from ....kernels.cpu import speed_up
from ....kernels.model.gpt import GPT
from ...configuration import PretrainSettings
from ...data.batches import Windows
from ...data.tasks import (
    CATEGORIES,
    LISTED,
    NUMBERS,
    OPPOSITES,
    WORDS,
    Exercise,
    exercises,
    gold,
)
from ...evaluation.asking import Plain
from ...evaluation.items import ChoiceItem
from ...finetuning.masked import MASK, Masked, masked_loss
from ...formats.tokenizer import Tokenizer
from ...formats.tokenizer_files import END_OF_TEXT
from ...ranks.group import ALONE
from ...stages.language_model import LanguageModelStage, Source
from ...training.schedule import cosine
from ...training.update import Update

SEEDS = (0, 1, 2)
SETTINGS = PretrainSettings(steps=400, batch=16, time=48, lr=4e-3, warmup=50)
TEMPLATE, SEPARATOR, END = "Q: {question}\nA:", "\n\n", "\n"
N_CTX, D_MODEL = 128, 64
Wrong = Callable[[Exercise, Random, int], list[str]]


def asked(*, held_out: bool, seed: int) -> Iterator[Exercise]:
    """Draw exercises of one question without end, each family as often."""
    return (e for e in exercises(seed, held_out=held_out) if len(e.messages) == 1)


def question(exercise: Exercise) -> str:
    """Return what is asked."""
    return exercise.messages[0].content


def document(exercise: Exercise) -> str:
    """Return an exercise as running text."""
    return TEMPLATE.replace("{question}", question(exercise)) + f" {exercise.answer}{SEPARATOR}"


@functools.cache
def tokenizer() -> Tokenizer:
    """Return the world's tokenizer: its words are tokens."""
    texts = map(document, itertools.islice(asked(held_out=False, seed=0), 3000))
    return Tokenizer.train(texts, 420, [END_OF_TEXT, MASK])


@functools.cache
def text(seed: int, n: int = 6_000) -> np.ndarray:
    """Return documents one after another as tokens [token]."""
    documents = map(document, itertools.islice(asked(held_out=False, seed=seed), n))
    ids = tokenizer().encode("".join(documents))
    return np.array(ids, np.int32)


def model(seed: int, *, causal: bool = True, vocab_size: int = 0) -> GPT:
    """Return a small model with fresh parameters, of the world's vocabulary unless told."""
    vocab_size = vocab_size or tokenizer().vocab_size
    config = GPTConfig(vocab_size, N_CTX, 2, 4, D_MODEL, causal=causal)
    generator = torch.Generator().manual_seed(seed)
    return speed_up(GPT(config, generator, init="fan_in"))


def asking() -> Plain:
    """Return how the studies ask: as the documents do, each answer scored with its end."""
    return Plain(tokenizer(), TEMPLATE, SEPARATOR, end=END)


def trained(fresh: GPT, source: Source, settings: PretrainSettings = SETTINGS) -> GPT:
    """Train a decoder on a source's windows, and return it in evaluation mode."""
    stage = LanguageModelStage("pretrain", fresh, source, [], settings, settings.steps, 0, ALONE)
    for step in range(settings.steps):
        stage.step(step)
    return fresh.eval()


@functools.cache
def decoder(seed: int) -> GPT:
    """Return a decoder that has read the world."""
    windows = Windows(text(seed), SETTINGS.time, SETTINGS.batch, seed)
    return trained(model(seed), windows)


@functools.cache
def encoder(seed: int) -> GPT:
    """Return an encoder of the same size that has read as much of it with tokens hidden."""
    fresh = model(seed, causal=False).train()
    special = tokenizer().special_tokens
    windows = Windows(text(seed), SETTINGS.time, SETTINGS.batch, seed)
    source = Masked(windows, special[MASK], min(special.values()))
    update = Update(fresh, SETTINGS, ALONE)
    for step in range(SETTINGS.steps):
        masked_loss(fresh, *source.batch(step)).backward()
        s = SETTINGS
        update.apply(cosine(step, s.steps, s.lr, s.warmup, s.final_lr))
    return fresh.eval()


# --- wrong answers -------------------------------------------------------------------------------


def wrong_answers(exercise: Exercise, rng: Random, n: int) -> list[str]:
    """Return different answers that are of the question's kind, and wrong."""
    found: list[str] = []
    while len(found) < n:
        answer = WRONG[exercise.family](exercise, rng)
        if answer not in found and gold(exercise, answer) < 1:
            found.append(answer)
    return found


def other_answers(exercise: Exercise, rng: Random, n: int) -> list[str]:
    """Return different answers to other questions, which are wrong here."""
    found: list[str] = []
    while len(found) < n:
        answer = rng.choice(_answers())
        if answer not in found and gold(exercise, answer) < 1:
            found.append(answer)
    return found


@functools.cache
def _answers() -> list[str]:
    return [e.answer for e in itertools.islice(asked(held_out=False, seed=99), 700)]


def _words(exercise: Exercise, rng: Random) -> str:
    """Change the order, or one word."""
    words = exercise.answer.split()
    if rng.random() < 0.5:
        rng.shuffle(words)
    else:
        words[rng.randrange(len(words))] = rng.choice(WORDS)
    return " ".join(words)


def _of_the_question(exercise: Exercise, rng: Random) -> str:
    last = [w.strip("?,") for w in question(exercise).split()]
    return rng.choice([w for w in last if w in WORDS] + [rng.choice(WORDS)])


def _other_category(exercise: Exercise, rng: Random) -> str:
    return ", ".join(rng.sample(CATEGORIES[rng.choice(sorted(CATEGORIES))], LISTED))


WRONG: dict[str, Callable[[Exercise, Random], str]] = {
    "repeat": _words,
    "reverse": _words,
    "pick": _of_the_question,
    "opposite": lambda _, rng: rng.choice(rng.choice(OPPOSITES).split("/")),
    "compare": lambda _, rng: str(rng.randrange(20)),
    "count": lambda _, rng: rng.choice(NUMBERS[1:]),
    "list": _other_category,
}


def choice_items(
    n: int, seed: int, *, held_out: bool, wrong: Wrong = wrong_answers
) -> list[ChoiceItem]:
    """Return questions with one right answer among four, in random places."""
    rng = Random(f"choices {seed} {held_out}")
    items = []
    for exercise in itertools.islice(asked(held_out=held_out, seed=seed), n):
        answers = [exercise.answer, *wrong(exercise, rng, 3)]
        rng.shuffle(answers)
        place = answers.index(exercise.answer)
        items.append(ChoiceItem(question(exercise), tuple(answers), place))
    return items


def mean(values: Sequence[float]) -> float:
    """Return the mean over seeds."""
    return sum(values) / len(values)
