"""Texts that are nearly copies of others, found by MinHash, and dropped but for the first.

    J(A, B) = |A ∩ B| / |A ∪ B|        of the two texts' sets of n-word runs
    P(min over A of h = min over B of h) = J        for a random hash h

So a text is reduced to the least values of 10 hashes. Two texts are compared if one of the 10
agrees, which happens with the chance 1 − (1 − J)^10: nearly always for J = 0.8, and in one pair of
ten for J = 0.01; then their J is computed exactly, and a text that is at least `threshold` like an
earlier one that was kept goes.

Texts shorter than n words are compared whole. Source: Brown et al. 2020, appendix A (Spark's
MinHashLSH with 10 hashes, which removed a tenth); Broder 1997.
"""

import zlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ...core.checks import refuse
from .words import grams_of, words_of

HASHES = 10
RUN = 5  # words
THRESHOLD = 0.8
PRIME = (1 << 31) - 1


def near_duplicates(
    texts: Sequence[str],
    *,
    threshold: float = THRESHOLD,
    run: int = RUN,
    hashes: int = HASHES,
    seed: int = 0,
) -> dict[int, int]:
    """Find texts that are nearly copies of an earlier one.

    Parameters
    ----------
    texts : sequence of str
    threshold : float
        The least J of a copy, above 0 and at most 1.
    run : int
        Words of a run.
    hashes : int
        More find copies of a lower J.
    seed : int
        Of the hashes.

    Returns
    -------
    dict of int to int
        For each copy, the text before it that is kept in its place.
    """
    if not 0 < threshold <= 1:
        refuse("threshold", "above 0, at most 1", repr(threshold))
    if hashes < 1:
        refuse("hashes", "at least 1", str(hashes))
    rng = np.random.default_rng(seed)
    # h(x) = (a·x + b) mod p: x below 2^31, so that a·x fits into 64 bits.
    a, b = rng.integers(1, PRIME, hashes), rng.integers(0, PRIME, hashes)
    seen: list[dict[int, list[int]]] = [defaultdict(list) for _ in range(hashes)]
    sets: dict[int, frozenset[int]] = {}
    copies: dict[int, int] = {}
    for i, text in enumerate(texts):
        found = runs(text, run)
        if not found:  # no word in it: like nothing
            continue
        x = np.fromiter(found, np.int64)
        least = ((a[:, None] * x + b[:, None]) % PRIME).min(axis=1)  # [hash]
        candidates = sorted({j for h, value in enumerate(least) for j in seen[h].get(value, ())})
        like = next((j for j in candidates if jaccard(found, sets[j]) >= threshold), None)
        if like is not None:
            copies[i] = like
            continue
        sets[i] = found
        for h, value in enumerate(least):
            seen[h][value].append(i)
    return copies


def runs(text: str, run: int) -> frozenset[int]:
    """Return the hashes of a text's runs of words; of a shorter text one, of all its words."""
    words = words_of(text)
    grams = grams_of(words, run) or ([tuple(words)] if words else [])
    return frozenset(zlib.crc32(" ".join(gram).encode()) % PRIME for gram in grams)


def jaccard(a: frozenset[int], b: frozenset[int]) -> float:
    """Return |a ∩ b| / |a ∪ b|; 0 of two empty sets."""
    union = len(a | b)
    return len(a & b) / union if union else 0.0
