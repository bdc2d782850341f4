"""Tests in the training text: the sheet's figures, planted leaks, and their worth."""

from random import Random

import pytest

from gptwin.rl.corpus.contamination import (
    Cleaner,
    chosen_n,
    clean_scores,
    kept_spans,
    overlaps,
    planted_found,
)
from gptwin.rl.corpus.words import placed_words, words_of

TEST = "The Cat, sat on the mat today."
TRAINING = "yesterday the cat sat on a mat; THE cat sat on... the mat"


@pytest.mark.parametrize(("n", "matching", "total"), [(3, 4, 5), (4, 3, 4), (5, 2, 3), (6, 1, 2)])
def test_runs_of_words(n, matching, total):
    (found,) = overlaps([TEST], [TRAINING], n)
    assert (found.matching, found.total) == (matching, total)


def test_words_have_neither_case_nor_punctuation():
    assert words_of(TEST) == ["the", "cat", "sat", "on", "the", "mat", "today"]
    assert words_of("— don't, IT'S 3.5 …") == ["dont", "its", "35"]
    text = " «Né», \n no!"
    assert [text[w.start : w.end] for w in placed_words(text)] == ["«Né»,", "no!"]


def test_n_is_a_percentile_within_bounds():
    assert chosen_n([5, 9, 9, 10, 11, 12, 13, 14, 20, 40]) == 8  # 6.8
    assert chosen_n([10] * 9) == 10 and chosen_n([40, 50]) == 13


def test_an_example_shorter_than_a_run_is_compared_whole():
    whole, part, none = overlaps(["Say: the moon", "the sun", "..."], ["I say the moon."], 8)
    assert (whole.matching, whole.total) == (1, 1)
    assert not part.is_dirty and (none.matching, none.total, none.share) == (0, 0, 0.0)


def test_a_run_that_an_example_repeats_counts_once():
    (found,) = overlaps(["a b a b a b"], ["a b"], 2)
    assert (found.matching, found.total) == (1, 2)


# --- cutting out ---------------------------------------------------------------------------------


def test_a_window_goes_with_each_hit():
    hits = [(50, 54), (18, 22), (26, 30)]
    assert kept_spans(60, hits, window=5, shortest=8) == [(0, 13), (35, 45)]
    # Without a shortest length the last character stays: no window skips it.
    assert kept_spans(60, hits, window=5, shortest=1)[-1] == (59, 60)


def test_a_window_at_a_texts_end_ends_with_it():
    assert kept_spans(10, [(8, 10)], window=5, shortest=1) == [(0, 3)]
    assert kept_spans(10, [(0, 2)], window=5, shortest=1) == [(7, 10)]
    assert kept_spans(10, [(4, 5)], window=99, shortest=1) == []
    assert kept_spans(10, [], window=5, shortest=1) == [(0, 10)]


def sentence(rng, n):
    return " ".join("".join(rng.choices("abcdefghij", k=4)) for _ in range(n))


def test_a_test_is_cut_out_of_a_text_and_the_rest_stays():
    rng = Random(0)
    before, leak, after = (sentence(rng, n) for n in (200, 20, 200))
    text = f"{before} {leak.upper()}! {after}"
    cleaner = Cleaner([leak], [text, sentence(rng, 50)])
    first, second = cleaner.pieces(text)
    assert before.startswith(first) and len(before) - len(first) == 199
    assert after.endswith(second) and len(after) - len(second) == 199
    other = sentence(rng, 50)
    assert cleaner.pieces(other) == [other]


def test_a_text_that_is_mostly_tests_is_dropped():
    rng = Random(0)
    leaks = [sentence(rng, 13) for _ in range(12)]
    text = " ".join(f"{sentence(rng, 150)} {leak}" for leak in leaks)
    assert len(Cleaner(leaks[:9], [text]).pieces(text)) == 10
    assert Cleaner(leaks, [text]).pieces(text) == []


def test_a_phrase_of_many_texts_is_no_leak():
    rng = Random(0)
    phrase = sentence(rng, 13)
    texts = [f"{sentence(rng, 60)} {phrase}" for _ in range(11)]
    assert Cleaner([phrase], texts).pieces(texts[0]) == [texts[0]]
    assert Cleaner([phrase], texts[:10]).pieces(texts[0]) != [texts[0]]


# --- measuring -----------------------------------------------------------------------------------


def test_planted_leaks_are_found_and_their_worth_measured():
    """Half leak, of which a tenth in other words; a model that has only learnt them by heart."""
    rng = Random(0)
    tests = [sentence(rng, 12) for _ in range(100)]
    planted = [i < 50 for i in range(100)]
    training = [sentence(rng, 300) for _ in range(30)]
    for i in range(50):
        said = tests[i] if i % 10 else " ".join(sorted(words_of(tests[i])))
        training[i % 30] += f" {said.title()}."
    found = overlaps(tests, training)
    shares = planted_found(found, planted)
    assert (shares.precision, shares.recall, shares.planted) == (1.0, 0.9, 50)
    rights = [p or i % 4 == 0 for i, p in enumerate(planted)]
    scores = clean_scores(rights, found)
    assert scores.dirty.share == 1.0 and scores.dirty.n == 45
    assert scores.clean.n == 55 and scores.clean.share < 0.4 < scores.all.share
    assert scores.inflation == pytest.approx(scores.all.share - scores.clean.share)


def test_scores_where_nothing_is_clean_or_dirty():
    dirty = overlaps(["a b"], ["a b"], 2)
    assert clean_scores([True], dirty).clean is None and clean_scores([True], dirty).inflation == 0
    assert clean_scores([True], overlaps(["a b"], ["b a"], 2)).dirty is None
    with pytest.raises(ValueError, match="an answer to each of 1 examples"):
        clean_scores([True, False], dirty)
