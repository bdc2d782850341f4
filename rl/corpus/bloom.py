"""How much of a test stands in the training text, by GPT-2's method: Bloom filters of 8 words.

A Bloom filter remembers which runs of words it was given in a few bits each, whatever their length,
so that a corpus of billions of runs fits in memory. It never forgets one; of others it claims a
share p to have seen. With m bits for n runs and k hashes, p is least for k = (m / n)·log 2, and

    m = −n·log p / (log 2)²,    k = −log₂ p

so that p = 10⁻⁸ takes 38.3 bits a run and 26.6 hashes (27 here, and as many bits as those need).

Source: Radford et al. 2019, section 4: 8-grams of lower-cased words, p at most 10⁻⁸. Their test
sets overlapped with WebText by 1 to 6%, 3.2% on average.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from ...core.checks import expect_positive, refuse
from .words import Gram, grams_of, words_of

GRAM = 8  # words
FALSE_POSITIVES = 1e-8
LEAST_BITS = 1 << 12  # among fewer, a run's places follow from one another too often


def bits_for_each(p: float) -> float:
    """Return how many bits a run takes, at the least, if a share p of others may be claimed."""
    return -math.log(p) / math.log(2) ** 2


def hashes_for(p: float) -> float:
    """Return how many hashes that takes."""
    return -math.log2(p)


class Bloom:
    """A set of runs of words that may claim to hold others.

    Parameters
    ----------
    n : int
        Runs that it will be given.
    p : float
        Share of others that it may claim, between 0 and 1.

    Raises
    ------
    ValueError
        If `n` is not positive, or `p` is no such share.
    """

    def __init__(self, n: int, p: float = FALSE_POSITIVES) -> None:
        expect_positive("n", n)
        if not 0 < p < 1:
            refuse("p", "a share between 0 and 1", repr(p))
        self.n_hashes = math.ceil(hashes_for(p))
        # With whole hashes, the bits that keep to p: (1 − e^(−k·n / m))^k = p.
        n_bits = -self.n_hashes * n / math.log(1 - p ** (1 / self.n_hashes))
        self.n_bits = max(math.ceil(n_bits), LEAST_BITS)
        self._bytes = np.zeros((self.n_bits + 7) // 8, np.uint8)

    def _places(self, run: Gram) -> np.ndarray:
        """Return which bits stand for a run: h₁ + i·h₂, as good as k independent hashes."""
        digest = hashlib.blake2b(" ".join(run).encode(), digest_size=16).digest()
        first, step = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
        return np.array([(first + i * step) % self.n_bits for i in range(self.n_hashes)])

    def add(self, run: Gram) -> None:
        """Remember a run."""
        places = self._places(run)
        np.bitwise_or.at(self._bytes, places // 8, (1 << (places % 8)).astype(np.uint8))

    def __contains__(self, run: Gram) -> bool:
        """Say whether a run was given, or looks as if it were."""
        places = self._places(run)
        return bool((self._bytes[places // 8] >> (places % 8) & 1).all())


def overlap(
    tests: Sequence[str], training: Sequence[str], *, n: int = GRAM, p: float = FALSE_POSITIVES
) -> tuple[int, int]:
    """Count the test's runs of words that the training text holds, too.

    Parameters
    ----------
    tests, training : sequence of str
        Texts; those to train on are read twice: counted, then remembered.
    n : int
        Words of a run. A text of fewer has none.
    p : float
        Share of the others that may be counted with them.

    Returns
    -------
    seen, all : int
        The test's different runs that stand in the training text, and how many it has.
    """
    asked = {run for text in tests for run in grams_of(words_of(text), n)}
    n_known = sum(max(0, len(words_of(text)) - n + 1) for text in training)
    if not n_known:
        return 0, len(asked)
    known = Bloom(n_known, p)
    for text in training:
        for run in grams_of(words_of(text), n):
            known.add(run)
    return sum(run in known for run in asked), len(asked)
