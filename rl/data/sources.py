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

from ...core.checks import refuse
from ..configuration import PPOSettings, PretrainSettings, RewardSettings, SFTSettings
from ..formats.tokenizer import Tokenizer
from .dialogue import Encoded, Message, Template
from .documentation import documentation
from .lengths import Room
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

    def __len__(self) -> int:
        return len(self.ids)


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
    found = [record.text for record in _reported(file) if isinstance(record, Text)]
    return divided_texts(found, settings.data)


def divided_texts(found: list[str], where: str) -> tuple[list[str], list[str]]:
    """Keep every `HELD_OUT`-th text for validation; of a single one its end.

    Parameters
    ----------
    found : list of str
        One at least.
    where : str
        What they are from.

    Returns
    -------
    training, validation : list of str
    """
    if len(found) > 1:
        return _divided(found, where)
    (text,) = found  # a book, say
    cut = len(text) - len(text) // HELD_OUT
    _say(f"{where}: one text alone: its last tenth is held out for validation")
    return [text[:cut]], [text[cut:]]


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
    template: Template,
    settings: SFTSettings,
    n_ctx: int,
    seed: int,
    skip_bad_lines: bool = False,
) -> tuple[list[Encoded], list[Encoded]]:
    """Read, or make, the conversations to imitate.

    Parameters
    ----------
    template : Template
    settings : SFTSettings
        `data` names a file of dialogues, or nothing.
    n_ctx : int
        Tokens that the model reads at most: the last one of a conversation is not read.
    seed : int
        Of the exercises and their labeller.
    skip_bad_lines : bool
        As in `DataFile`.

    Returns
    -------
    training, validation : list of Encoded
        Each ends with the assistant's turn. Those held out of the exercises are without fault.

    Raises
    ------
    ValueError
        If the file cannot be read, a conversation is too long and may not be, or too few are left.
    """
    room = Room("sft", settings.data or "sft: the exercises", n_ctx + 1, settings.on_long)
    if settings.data:
        file = DataFile(settings.data, Dialogue, skip_bad_lines=skip_bad_lines, answered=True)
        found = [r for r in _reported(file) if isinstance(r, Dialogue)]
        examples = encoded(template, [record.messages for record in found])
        fitted = room.fitted(examples, [record.line for record in found], _beginning)
        return _divided(fitted, settings.data)
    rng = Random(f"labeller {seed}")
    training = [
        answered(e, demonstration(e, rng, settings.carelessness))
        for e in drawn(seed, settings.examples, held_out=False)
    ]
    validation = [answered(e, e.answer) for e in drawn(0, 400, held_out=True)]
    both = (encoded(template, conversations) for conversations in (training, validation))
    fitted, held_out = (room.fitted(part, range(1, len(part) + 1), _beginning) for part in both)
    return fitted, held_out


def _beginning(example: Encoded, tokens: int) -> Encoded | None:
    """Cut a conversation's end off; None where no token of the assistant's is left."""
    trained = example.trained[:tokens]
    return Encoded(example.tokens[:tokens], trained) if any(trained[1:]) else None


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
    template: Template,
    settings: PPOSettings,
    n_ctx: int,
    seed: int,
    n: int,
    skip_bad_lines: bool = False,
) -> list[Prompt]:
    """Read, or make, the prompts that a policy answers.

    Parameters
    ----------
    template : Template
    settings : PPOSettings
        `data` names a file of dialogues, or nothing; an assistant's last turn is left out.
    n_ctx : int
        Tokens of prompt and response at most.
    seed, n : int
        Of the exercises, and how many, without a file.
    skip_bad_lines : bool
        As in `DataFile`.

    Returns
    -------
    list of Prompt

    Raises
    ------
    ValueError
        As in `demonstrations`.
    """
    room = Room(
        "ppo", settings.data or "ppo: the exercises", n_ctx - settings.max_response,
        settings.on_long,
    )  # fmt: skip
    if not settings.data:
        made = exercise_prompts(template, drawn(seed, n, held_out=False))
        return room.fitted(made, range(1, n + 1), _end_of_prompt)
    found, lines = [], []
    for record in _reported(DataFile(settings.data, Dialogue, skip_bad_lines=skip_bad_lines)):
        assert isinstance(record, Dialogue)
        messages = record.messages if record.is_prompt else record.messages[:-1]
        if not messages:
            where = f"{settings.data}:{record.line}"
            refuse(where, "a turn before the assistant's", "none", "an answer without a prompt")
        found.append(Prompt(template.prompt(messages), messages))
        lines.append(record.line)
    return room.fitted(found, lines, _end_of_prompt)


def _end_of_prompt(prompt: Prompt, tokens: int) -> Prompt | None:
    return dataclasses.replace(prompt, ids=prompt.ids[-tokens:]) if tokens > 1 else None


def rankings(
    template: Template, settings: RewardSettings, n_ctx: int, skip_bad_lines: bool = False
) -> tuple[list[Ranking], list[Ranking]]:
    """Read a file of rankings or pairs.

    Parameters
    ----------
    template : Template
    settings : RewardSettings
        `data` names the file.
    n_ctx : int
        Tokens of prompt and completion at most.
    skip_bad_lines : bool
        As in `DataFile`.

    Returns
    -------
    training, validation : list of Ranking

    Raises
    ------
    ValueError
        As in `demonstrations`.
    """
    file = DataFile(settings.data, Preference, skip_bad_lines=skip_bad_lines)
    records = [record for record in _reported(file) if isinstance(record, Preference)]
    found = [
        Ranking(
            template.prompt(record.prompt),
            [template.response(text) for text in record.completions],
            list(record.ranks),
        )
        for record in records
    ]
    room = Room("reward", settings.data, n_ctx, settings.on_long)
    fitted = room.fitted(found, [record.line for record in records], _end_of_ranked_prompt)
    return _divided(fitted, settings.data)


def _end_of_ranked_prompt(ranking: Ranking, tokens: int) -> Ranking | None:
    """Cut the beginning of a prompt off; None where a completion alone is too long."""
    left = tokens - max(map(len, ranking.completions))
    return dataclasses.replace(ranking, prompt=ranking.prompt[-left:]) if left > 1 else None


def _reported(file: DataFile) -> Iterator[Record]:
    """Read a file, and say at its end how many of its lines were skipped, if any were."""
    yield from file
    if file.n_bad_lines:
        _say(file.report())


def _say(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr)


def _divided(records: list, where: str) -> tuple[list, list]:
    """Keep every `HELD_OUT`-th record for validation."""
    if len(records) < 2:
        expected = f"at least 2 records, since every {HELD_OUT}th is held out from the first on"
        refuse(where, expected, str(len(records)), "a file of another purpose, or a sample of it")
    return [r for i, r in enumerate(records) if i % HELD_OUT], records[::HELD_OUT]
