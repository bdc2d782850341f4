"""Test questions that stand in the training text: found, cut out of it, and their worth measured.

Both halves of GPT-3's appendix C compare runs of words (words.py).

**Cut out before training** (`Cleaner`): where a run of 13 words of a test stands in a training
text, it is removed with 200 characters on each side. Pieces shorter than 200 characters go; so does
a text that would be cut into more than 10; and a run that stands in more than 10 texts is a phrase
of the language, not a leak, and is left alone.

**Measured after it** (`overlaps`): a test example is *dirty* if any of its runs of N words stands
in the training text, where N is the 5th percentile of the examples' lengths in words, at least 8
and at most 13. The score of the clean ones alone is what the model can do without having seen the
test (`clean_scores`).

Decisions: an example shorter than the run is compared whole. A run that an example repeats counts
once. A window that would reach beyond its text ends with it. (lm-evaluation-harness's janitor skips
a character behind each match; this does not.)
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from ...core.checks import refuse
from ..judging.intervals import Accuracy, accuracy
from .words import Gram, grams_of, placed_words, words_of

GRAM = 13  # words
WINDOW, SHORTEST = 200, 200  # characters
MOST_PIECES, MOST_TEXTS = 10, 10
LEAST_N, MOST_N = 8, 13


# --- cut out before training ---------------------------------------------------------------------


class Cleaner:
    """Cuts test examples out of training texts.

    Parameters
    ----------
    tests : iterable of str
        The test examples.
    training : sequence of str
        The texts, which are counted once: a run in more than `most_texts` of them is left alone.
    n, window, shortest, most_pieces, most_texts : int
        As above.
    """

    def __init__(
        self,
        tests: Iterable[str],
        training: Sequence[str],
        *,
        n: int = GRAM,
        window: int = WINDOW,
        shortest: int = SHORTEST,
        most_pieces: int = MOST_PIECES,
        most_texts: int = MOST_TEXTS,
    ) -> None:
        self.window, self.shortest, self.most_pieces = window, shortest, most_pieces
        wanted = by_length(runs_of(words_of(test), n) for test in tests)
        texts_with = Counter(
            gram
            for text in training
            for said in [words_of(text)]
            for length, grams in wanted.items()
            for gram in grams.intersection(grams_of(said, length))
        )
        self.grams = {
            length: {gram for gram in grams if texts_with[gram] <= most_texts}
            for length, grams in wanted.items()
        }

    def pieces(self, text: str) -> list[str]:
        """Return what is left of a training text: itself, if no test stands in it.

        Parameters
        ----------
        text : str

        Returns
        -------
        list of str
            Empty if it is dropped.
        """
        words = list(placed_words(text))
        said = [word.word for word in words]
        hits = [
            (words[i].start, words[i + length - 1].end)
            for length, wanted in self.grams.items()
            for i, gram in enumerate(grams_of(said, length))
            if gram in wanted
        ]
        if not hits:
            return [text]
        spans = kept_spans(len(text), hits, window=self.window, shortest=self.shortest)
        return [text[a:b] for a, b in spans] if len(spans) <= self.most_pieces else []


def runs_of(words: list[str], n: int) -> set[Gram]:
    """Return an example's distinct runs of `n` words; of a shorter one the whole of it."""
    return set(grams_of(words, n)) or ({tuple(words)} if words else set())


def by_length(runs: Iterable[set[Gram]]) -> dict[int, set[Gram]]:
    """Sort the runs of all examples by their number of words: short examples have shorter ones."""
    found: dict[int, set[Gram]] = defaultdict(set)
    for grams in runs:
        for gram in grams:
            found[len(gram)].add(gram)
    return dict(found)


def kept_spans(
    length: int,
    hits: Iterable[tuple[int, int]],
    *,
    window: int = WINDOW,
    shortest: int = SHORTEST,
) -> list[tuple[int, int]]:
    """Return what is left of a text around its hits.

    Parameters
    ----------
    length : int
        Characters of the text.
    hits : iterable of (int, int)
        Where each begins and ends, [start, end).
    window : int
        Characters that go with a hit on each side.
    shortest : int
        Of a piece that is kept.

    Returns
    -------
    list of (int, int)
    """
    kept, free = [], 0
    for start, end in [*sorted(hits), (length + window, length + window)]:
        piece = (free, min(start - window, length))
        if piece[1] - piece[0] >= max(shortest, 1):
            kept.append(piece)
        free = max(free, end + window)
    return kept


# --- measured after training ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Overlap:
    """How much of a test example stands in the training text: of its distinct runs, how many."""

    matching: int
    total: int

    @property
    def is_dirty(self) -> bool:
        """Whether any does."""
        return self.matching > 0

    @property
    def share(self) -> float:
        """Of the runs; 0 of an example without a word."""
        return self.matching / self.total if self.total else 0.0


def chosen_n(lengths: Sequence[int]) -> int:
    """Return N: the 5th percentile of examples' lengths in words, within 8 and 13.

    Parameters
    ----------
    lengths : sequence of int

    Returns
    -------
    int
    """
    if not len(lengths):
        refuse("lengths", "of an example at least", "none")
    return int(np.clip(np.percentile(lengths, 5), LEAST_N, MOST_N))


def overlaps(tests: Sequence[str], training: Iterable[str], n: int | None = None) -> list[Overlap]:
    """Compare test examples with the training texts.

    Parameters
    ----------
    tests : sequence of str
    training : iterable of str
        Read once.
    n : int, optional
        Words of a run; default: `chosen_n`.

    Returns
    -------
    list of Overlap
        In the tests' order.
    """
    words = [words_of(test) for test in tests]
    n = chosen_n([len(w) for w in words]) if n is None else n
    runs = [runs_of(w, n) for w in words]
    unseen = by_length(runs)
    seen: set[Gram] = set()
    for text in training:
        said = words_of(text)
        for length, wanted in unseen.items():
            found = wanted.intersection(grams_of(said, length))
            seen |= found
            wanted -= found
    return [Overlap(len(found & seen), len(found)) for found in runs]


@dataclasses.dataclass(frozen=True)
class CleanScores:
    """A test's accuracy, and that of its clean and its dirty examples; None where there is none."""

    all: Accuracy
    clean: Accuracy | None
    dirty: Accuracy | None

    @property
    def inflation(self) -> float:
        """All minus clean: what leaks add to the score; 0 if nothing is clean."""
        return self.all.share - self.clean.share if self.clean else 0.0


def clean_scores(rights: Sequence[bool], found: Sequence[Overlap]) -> CleanScores:
    """Divide a test's answers into those of clean and of dirty examples.

    Parameters
    ----------
    rights : sequence of bool
        Whether each example was answered right.
    found : sequence of Overlap
        Of the same examples.

    Returns
    -------
    CleanScores
    """
    if len(rights) != len(found):
        refuse("rights", f"an answer to each of {len(found)} examples", str(len(rights)),
               "answers to another file")  # fmt: skip

    def of(dirty: bool) -> Accuracy | None:
        part = [r for r, o in zip(rights, found, strict=True) if o.is_dirty == dirty]
        return accuracy(part) if part else None

    return CleanScores(accuracy(rights), of(False), of(True))


@dataclasses.dataclass(frozen=True)
class Found:
    """How well planted leaks were found: shares, and of how many.

    Attributes
    ----------
    right, flagged, planted : int
        Leaks found; examples called dirty; leaks that there were.
    """

    right: int
    flagged: int
    planted: int

    @property
    def precision(self) -> float:
        """Of the flagged, how many were planted; 1 if nothing was flagged."""
        return self.right / self.flagged if self.flagged else 1.0

    @property
    def recall(self) -> float:
        """Of the planted, how many were flagged; 1 if nothing was planted."""
        return self.right / self.planted if self.planted else 1.0


def planted_found(found: Sequence[Overlap], planted: Sequence[bool]) -> Found:
    """Compare what was called dirty with what was planted, which is known exactly."""
    flagged = [overlap.is_dirty for overlap in found]
    right = sum(f and p for f, p in zip(flagged, planted, strict=True))
    return Found(right, sum(flagged), sum(planted))
