"""A text's words, as GPT-3's checks compare them: lower case, without punctuation.

    "The Cat, sat on the mat today."   ->   the cat sat on the mat today

A word is what stands between white space, less all that is no letter or digit; what is nothing but
punctuation is no word.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from ...core.checks import refuse

Gram = tuple[str, ...]


class Word(NamedTuple):
    """A word, and where it stands in its text, punctuation included: [start, end)."""

    word: str
    start: int
    end: int


def placed_words(text: str) -> Iterator[Word]:
    """Yield a text's words with their places."""
    for found in re.finditer(r"\S+", text):
        word = "".join(filter(str.isalnum, found.group())).lower()
        if word:
            yield Word(word, *found.span())


def words_of(text: str) -> list[str]:
    """Return a text's words."""
    return [word for word, _, _ in placed_words(text)]


def grams_of(words: list[str], n: int) -> list[Gram]:
    """Return all runs of `n` words, in order; none if there are fewer words."""
    if n < 1:
        refuse("n", "at least 1", str(n))
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
