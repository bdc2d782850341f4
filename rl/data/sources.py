"""What each stage learns from: your own files, or the embedded default.

A file is read with `data.py`; without one, pretraining reads Python's documentation, and the later
stages the exercises of `tasks.py`. What is held out for validation is decided by the record (every
tenth of a file) or by the exercise itself, never by the seed of a run.
"""

import dataclasses
import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from random import Random

import numpy as np

from ..configuration import PretrainSettings, RewardSettings, SFTSettings
from ..formats.tokenizer import Tokenizer
from .dialogue import Encoded, Message, Template
from .documentation import documentation
from .rankings import Ranking
from .records import DataFile, Dialogue, Preference, Record, Text
from .tasks import Exercise, demonstration, exercises

HELD_OUT = 10  # one record in so many


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A conversation to continue.

    Attributes
    ----------
    ids : list of int
        Ending where the assistant is to speak.
    messages : tuple of Message
        The same, as text.
    exercise : Exercise, optional
        Where an answer can be graded.
    """

    ids: list[int]
    messages: tuple[Message, ...]
    exercise: Exercise | None = None


def texts(settings: PretrainSettings, skip_bad_lines: bool = False) -> tuple[list[str], list[str]]:
    """Read the texts to pretrain on.

    Parameters
    ----------
    settings : PretrainSettings
        `data` names a file, or nothing.
    skip_bad_lines : bool
        As in `DataFile`.

    Returns
    -------
    training, validation : list of str
    """
    if not settings.data:
        return documentation(HELD_OUT)
    file = DataFile(settings.data, Text, skip_bad_lines=skip_bad_lines)
    return _divided([record.text for record in _reported(file) if isinstance(record, Text)])


def running_tokens(tokenizer: Tokenizer, documents: Iterable[str], end_of_text: int) -> np.ndarray:
    """Turn documents into one row of tokens.

    Parameters
    ----------
    tokenizer : Tokenizer
    documents : iterable of str
    end_of_text : int
        Id that follows each document.

    Returns
    -------
    numpy.ndarray of int32 [token]
    """
    pieces = [np.array([*tokenizer.encode(text), end_of_text], np.int32) for text in documents]
    return np.concatenate(pieces)


def demonstrations(
    settings: SFTSettings, seed: int, skip_bad_lines: bool = False
) -> tuple[list[tuple[Message, ...]], list[tuple[Message, ...]]]:
    """Read, or make, the conversations to imitate.

    Parameters
    ----------
    settings : SFTSettings
        `data` names a file of dialogues, or nothing.
    seed : int
        Of the exercises and their labeller.
    skip_bad_lines : bool
        As in `DataFile`.

    Returns
    -------
    training, validation : list of tuple of Message
        Each ends with the assistant's turn. Those held out of the exercises are without fault.
    """
    if settings.data:
        file = DataFile(settings.data, Dialogue, skip_bad_lines=skip_bad_lines)
        return _divided(
            [r.messages for r in _reported(file) if isinstance(r, Dialogue) and not r.is_prompt]
        )
    rng = Random(f"labeller {seed}")
    training = [
        answered(e, demonstration(e, rng, settings.carelessness))
        for e in drawn(seed, settings.examples, held_out=False)
    ]
    return training, [answered(e, e.answer) for e in drawn(0, 400, held_out=True)]


def encoded(template: Template, conversations: Sequence[tuple[Message, ...]]) -> list[Encoded]:
    """Encode conversations to be imitated."""
    return [template.conversation(messages) for messages in conversations]


def answered(exercise: Exercise, answer: str) -> tuple[Message, ...]:
    """Return an exercise's conversation with an answer at its end."""
    return (*exercise.messages, Message("assistant", answer))


def drawn(seed: int, n: int, *, held_out: bool) -> list[Exercise]:
    """Return the first `n` exercises of a seed."""
    return list(itertools.islice(exercises(seed, held_out=held_out), n))


def exercise_prompts(template: Template, chosen: Iterable[Exercise]) -> list[Prompt]:
    """Return exercises as prompts that can be graded."""
    return [Prompt(template.prompt(e.messages), e.messages, e) for e in chosen]


def prompts(
    template: Template, data: str, seed: int, n: int, skip_bad_lines: bool = False
) -> list[Prompt]:
    """Read, or make, the prompts that a policy answers.

    Parameters
    ----------
    template : Template
    data : str
        A file of dialogues, or nothing; an assistant's last turn is left out.
    seed, n : int
        Of the exercises, and how many, without a file.
    skip_bad_lines : bool
        As in `DataFile`.

    Returns
    -------
    list of Prompt
    """
    if not data:
        return exercise_prompts(template, drawn(seed, n, held_out=False))
    found = []
    for record in _reported(DataFile(data, Dialogue, skip_bad_lines=skip_bad_lines)):
        assert isinstance(record, Dialogue)
        messages = record.messages if record.is_prompt else record.messages[:-1]
        found.append(Prompt(template.prompt(messages), messages))
    return found


def rankings(
    template: Template, settings: RewardSettings, skip_bad_lines: bool = False
) -> tuple[list[Ranking], list[Ranking]]:
    """Read a file of rankings or pairs.

    Parameters
    ----------
    template : Template
    settings : RewardSettings
        `data` names the file.
    skip_bad_lines : bool
        As in `DataFile`.

    Returns
    -------
    training, validation : list of Ranking
    """
    file = DataFile(settings.data, Preference, skip_bad_lines=skip_bad_lines)
    return _divided(
        [
            Ranking(
                template.prompt(record.prompt),
                [template.response(text) for text in record.completions],
                list(record.ranks),
            )
            for record in _reported(file)
            if isinstance(record, Preference)
        ]
    )


def _reported(file: DataFile) -> Iterator[Record]:
    """Read a file, and say at its end how many of its lines were skipped, if any were."""
    yield from file
    if file.n_bad_lines and os.environ.get("RANK", "0") == "0":
        print(file.report(), file=sys.stderr)


def _divided(records: list) -> tuple[list, list]:
    """Keep every `HELD_OUT`-th record for validation."""
    return [r for i, r in enumerate(records) if i % HELD_OUT], records[::HELD_OUT]
