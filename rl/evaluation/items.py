"""Your own questions, as JSON lines: with choices, or with the answer that is wanted.

    {"question": …, "choices": [" …"], "answer": 1}      ChoiceItem; the answer's place or its text
    {"question": …, "answer": true}                      ChoiceItem between "True" and "False"
    {"prompt": …, "completion": …}                       FreeItem; or a list of right completions

A file holds one kind. A line that is neither, or whose answer is not among its choices, is an
error with its number; so are two equal choices, an empty one, and one alone.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ...core.checks import refuse
from ..data.records import numbered_lines, parse_object
from .asking import Shot

TRUTH = ("True", "False")  # GPT-3 scores words with a meaning, not "yes" as 1


@dataclasses.dataclass(frozen=True)
class ChoiceItem:
    """A question with its choices; `answer` is the right one's place, `line` that in its file."""

    question: str
    choices: tuple[str, ...]
    answer: int
    line: int = dataclasses.field(default=0, compare=False)

    @property
    def shot(self) -> Shot:
        """The item as an example."""
        return Shot(self.question, self.choices[self.answer])


@dataclasses.dataclass(frozen=True)
class FreeItem:
    """A prompt and the completions that are right, the first of which is shown as an example."""

    prompt: str
    completions: tuple[str, ...]
    line: int = dataclasses.field(default=0, compare=False)

    @property
    def shot(self) -> Shot:
        """The item as an example."""
        return Shot(self.prompt, self.completions[0])


Item: TypeAlias = ChoiceItem | FreeItem


def read_items(path: str | Path) -> list[Item]:
    """Read a file of questions.

    Parameters
    ----------
    path : str or pathlib.Path
        JSON lines, plain or gzip.

    Returns
    -------
    list of ChoiceItem, or list of FreeItem

    Raises
    ------
    ValueError
        At the first bad line; or if the file holds both kinds, or nothing.
    """
    path = Path(path)
    items: list[Item] = []
    for number, line in numbered_lines(path):
        try:
            item = dataclasses.replace(parse_item(parse_object(line)), line=number)
            if items and type(item) is not type(items[0]):
                refuse("line", f"a {KINDS[type(items[0])]}, as the lines before it",
                       f"a {KINDS[type(item)]}", "two files in one")  # fmt: skip
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from None
        items.append(item)
    if not items:
        refuse(str(path), "a question at least", "none", "an empty file")
    return items


KINDS = {ChoiceItem: "question with choices", FreeItem: "prompt with its completion"}


def parse_item(found: dict[str, Any]) -> Item:
    """Read one line's object.

    Parameters
    ----------
    found : dict

    Returns
    -------
    ChoiceItem or FreeItem

    Raises
    ------
    ValueError
        If it is neither.
    """
    if {"prompt", "completion"} <= found.keys():
        said = found["completion"]
        completions = tuple(said) if isinstance(said, list) and said else (said,)
        return FreeItem(
            _text(found["prompt"], "prompt"), tuple(_text(c, "completion") for c in completions)
        )
    if not {"question", "answer"} <= found.keys():
        got = f"the entries {', '.join(found) or 'of nothing'}"
        wanted = "question, choices and answer; or prompt and completion"
        refuse("line", wanted, got, "other names for them")
    choices, answer = found.get("choices"), found["answer"]
    if isinstance(answer, bool):
        if choices is None:
            return ChoiceItem(_text(found["question"], "question"), TRUTH, TRUTH.index(str(answer)))
        refuse("answer", "the place of a choice, or its text", repr(answer),
               'a truth: leave choices out, and they are "True" and "False"')  # fmt: skip
    checked = _choices(choices)
    return ChoiceItem(_text(found["question"], "question"), checked, _place(answer, checked))


def _choices(found: Any) -> tuple[str, ...]:
    if not isinstance(found, list) or len(found) < 2:
        refuse("choices", "a list of two at least", repr(found)[:60])
    choices = tuple(_text(c, f"choices[{i}]").strip() for i, c in enumerate(found))
    for i, choice in enumerate(choices):
        if not choice:
            refuse(f"choices[{i}]", "a text", "an empty one", "there is no token to score")
        if choice in choices[:i]:
            cause = "a fault in the data: the first of equals would always win"
            refuse(f"choices[{i}]", "a choice unlike the others", repr(choice), cause)
    return choices


def _place(answer: Any, choices: Sequence[str]) -> int:
    """Return which choice is meant by its place, from 0, or by its text."""
    if isinstance(answer, str):
        if answer.strip() in choices:
            return choices.index(answer.strip())
        refuse("answer", f"one of the choices {list(choices)}", repr(answer)[:60])
    if not isinstance(answer, int) or not 0 <= answer < len(choices):
        cause = "places count from 0" if answer == len(choices) else ""
        refuse("answer", f"0 to {len(choices) - 1}, or a choice's text", repr(answer)[:60], cause)
    return answer


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        refuse(name, "a string", type(value).__name__)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        refuse(name, "characters that UTF-8 has", "half an emoji", "a text cut by another program")
    return value
