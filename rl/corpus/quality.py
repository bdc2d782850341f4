"""Which texts are good enough: a classifier of good against other text, and a random draw.

    score s = σ(w·x + b)          x: how often each word stands in the text, hashed into columns
    keep iff Pareto(9) > 1 − s    so P(keep) = (2 − s)^−9

The draw keeps a few texts of low score, so that what is unlike the good examples is rare and not
gone: of score 0 one in 512, of 0.5 one in 38, of 0.9 four in ten, of 1 all.

x is the logarithm of 1 + each count, divided by the row's length, so that a long text is judged by
its words and not by its length. The classifier is logistic regression, fitted by gradient descent
on its convex loss, the two classes weighted alike.

Source: Brown et al. 2020 (arXiv 2005.14165), appendix A, whose classifier tells WebText-like
documents from Common Crawl by hashed words.
"""

import math
import zlib
from collections.abc import Sequence

import numpy as np

from ...core.checks import expect_positive, refuse
from .words import words_of

COLUMNS = 4096
ALPHA = 9.0
STEPS, RATE, DECAY = 200, np.float32(4), np.float32(1e-4)
MOST, AT_ONCE = 4000, 1000  # texts of each kind to learn from; texts that are scored at once


def features(texts: Sequence[str], columns: int = COLUMNS) -> np.ndarray:
    """Count hashed words.

    Parameters
    ----------
    texts : sequence of str
    columns : int
        Words that meet in one are one to the classifier.

    Returns
    -------
    numpy.ndarray of float32 [text, column]
        Each row of length 1; 0 for a text without a word.
    """
    x = np.zeros((len(texts), columns), np.float32)
    for row, text in zip(x, texts, strict=True):
        hashed = [zlib.crc32(word.encode()) % columns for word in words_of(text)]
        places, counts = np.unique(np.array(hashed, np.int64), return_counts=True)
        row[places] = np.log1p(counts)
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(lengths > 0, lengths, 1)


class QualityFilter:
    """A classifier of good text.

    Parameters
    ----------
    good, other : sequence of str
        What texts should be like, and what they are mostly like; one of each at least. Of more than
        4,000 as many are learnt from, evenly spaced.
    columns : int
        As in `features`.

    Raises
    ------
    ValueError
        If one of the two is empty.
    """

    def __init__(self, good: Sequence[str], other: Sequence[str], columns: int = COLUMNS) -> None:
        for name, texts in (("good", good), ("other", other)):
            if not texts:
                refuse(name, "a text at least", "none")
        expect_positive("columns", columns)
        self.columns = columns
        good, other = _some(good), _some(other)
        x = np.concatenate([features(good, columns), features(other, columns)])
        used = np.flatnonzero(x.any(axis=0))  # the weight of a column without a word stays 0
        x = x[:, used]
        n = [len(good), len(other)]
        y = np.repeat(np.array([1, 0], np.float32), n)
        share = np.repeat(np.array([0.5 / n[0], 0.5 / n[1]], np.float32), n)
        weight, bias = np.zeros(len(used), np.float32), np.float32(0)
        for _ in range(STEPS):
            pull = share * (y - sigmoid(x @ weight + bias))  # [text]
            weight += RATE * (pull @ x - DECAY * weight)
            bias += RATE * pull.sum()
        self.weight, self.bias = np.zeros(columns, np.float32), bias
        self.weight[used] = weight

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Return how much each text is like the good ones.

        Parameters
        ----------
        texts : sequence of str

        Returns
        -------
        numpy.ndarray of float64 [text]
            Between 0 and 1.
        """
        parts = [texts[first : first + AT_ONCE] for first in range(0, len(texts), AT_ONCE)]
        logits = [features(part, self.columns) @ self.weight + self.bias for part in parts]
        return sigmoid(np.concatenate(logits).astype(np.float64)) if logits else np.zeros(0)


def _some(texts: Sequence[str]) -> Sequence[str]:
    """Return `MOST` texts at most, evenly spaced."""
    places = np.linspace(0, len(texts) - 1, min(len(texts), MOST)).astype(int)
    return [texts[i] for i in places]


def keep_probability(score: float, alpha: float = ALPHA) -> float:
    """Return the chance that a text of a score is kept: (2 − s)^−α.

    Parameters
    ----------
    score : float
        From 0 to 1.
    alpha : float
        Higher keeps fewer.

    Returns
    -------
    float
    """
    if not (math.isfinite(score) and 0 <= score <= 1):
        refuse("score", "from 0 to 1", repr(score))
    return (2 - score) ** -alpha


def kept(scores: np.ndarray, seed: int, alpha: float = ALPHA) -> np.ndarray:
    """Draw which texts are kept.

    Parameters
    ----------
    scores : numpy.ndarray [text]
    seed : int
        Of the draw.
    alpha : float
        As in `keep_probability`.

    Returns
    -------
    numpy.ndarray of bool [text]
    """
    drawn = np.random.default_rng(seed).pareto(alpha, len(scores))  # P(drawn > x) = (1 + x)^−α
    return drawn > 1 - np.asarray(scores)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Compute 1 / (1 + exp(−x)) without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)
