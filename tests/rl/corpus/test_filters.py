"""Which texts are kept: quality, and copies."""

from random import Random

import numpy as np
import pytest

from gptwin.rl.corpus.duplicates import jaccard, near_duplicates, runs
from gptwin.rl.corpus.quality import QualityFilter, keep_probability, kept


@pytest.mark.parametrize(
    ("score", "share"),
    [(0, 0.001953), (0.25, 0.006496), (0.5, 0.026012), (0.75, 0.134218), (0.9, 0.424098), (1, 1)],
)
def test_what_a_score_is_worth(score, share):
    assert keep_probability(score) == pytest.approx(share, abs=1e-6)
    n = 40_000
    drawn = kept(np.full(n, score), seed=0).mean()
    assert drawn == pytest.approx(share, abs=4 * (share * (1 - share) / n) ** 0.5 + 1e-9)


def test_a_score_is_a_share():
    with pytest.raises(ValueError, match="score: expected from 0 to 1"):
        keep_probability(1.5)


GOOD = ["the", "paper", "proves", "a", "theorem", "and", "cites", "its", "sources", "with", "care"]
BAD = ["buy", "cheap", "pills", "now", "click", "here", "free", "winner", "offer", "deal"]


def texts(rng, words, others, n):
    return [" ".join(rng.choices(words, k=15) + rng.choices(others, k=5)) for _ in range(n)]


def test_texts_like_the_good_ones_score_higher():
    rng = Random(0)
    judge = QualityFilter(texts(rng, GOOD, BAD, 60), texts(rng, BAD, GOOD, 600))
    good, bad = (judge.scores(texts(rng, *words, 200)) for words in ((GOOD, BAD), (BAD, GOOD)))
    assert (good > 0.5).mean() > 0.98 and (bad < 0.5).mean() > 0.98
    assert kept(good, 0).mean() > 5 * kept(bad, 0).mean()
    # What has no word is judged by the bias alone, not by an error.
    assert 0 < judge.scores([""])[0] < 1


def test_a_filter_needs_both_kinds():
    with pytest.raises(ValueError, match="good: expected a text at least"):
        QualityFilter([], ["a"])


# --- copies --------------------------------------------------------------------------------------


def changed(text, rng, n):
    words = text.split()
    for place in rng.sample(range(len(words)), n):
        words[place] = "other"
    return " ".join(words)


def test_near_copies_are_found_and_others_are_not():
    rng = Random(0)
    originals = [" ".join(rng.choices("abcdefghijklmnop", k=120)) for _ in range(40)]
    copies = [changed(text, rng, 2) for text in originals]
    found = near_duplicates([*originals, *copies])
    likeness = [jaccard(runs(a, 5), runs(b, 5)) for a, b in zip(originals, copies, strict=True)]
    expected = {40 + i: i for i, share in enumerate(likeness) if share >= 0.8}
    assert found == expected and len(expected) > 30


def test_the_first_of_several_copies_is_kept():
    text = " ".join(map(str, range(50)))
    assert near_duplicates([text, "else " + text, text.upper(), "x"]) == {1: 0, 2: 0}


def test_short_texts_are_compared_whole_and_empty_ones_are_like_nothing():
    assert near_duplicates(["A moon.", "a moon", "a sun", "", "…", ""]) == {1: 0}


def test_a_threshold_is_a_share():
    with pytest.raises(ValueError, match="threshold: expected above 0, at most 1"):
        near_duplicates(["a"], threshold=0)
