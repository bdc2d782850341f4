"""Bloom filters: their size, what they claim to hold, and how much of a test they find."""

import numpy as np
import pytest

from gptwin.rl.corpus.bloom import Bloom, bits_for_each, hashes_for, overlap


def test_gpt_2s_filter_takes_38_bits_a_run() -> None:
    assert bits_for_each(1e-8) == pytest.approx(38.34, abs=5e-3)
    assert hashes_for(1e-8) == pytest.approx(26.6, abs=0.05)
    assert Bloom(1000, 1e-8).n_hashes == 27
    assert Bloom(1000, 1e-8).n_bits == pytest.approx(38_340, rel=1e-3)


def test_nothing_is_forgotten_and_few_others_are_claimed() -> None:
    known, others = ([(word, str(i)) for i in range(3000)] for word in ("a", "b"))
    found = Bloom(len(known), 0.05)
    for run in known:
        found.add(run)
    assert all(run in found for run in known)
    claimed = np.mean([run in found for run in others])
    assert 0.035 < claimed < 0.065  # four standard deviations


def test_a_leak_is_counted_by_its_runs() -> None:
    words = [f"w{i}" for i in range(40)]
    test = " ".join(words[:20])
    training = ["nothing of it", f"Before, {' '.join(words[5:30]).upper()}!"]
    assert overlap([test], training) == (20 - 5 - 8 + 1, 20 - 8 + 1)
    assert overlap([test], ["too short"]) == (0, 13)
    assert overlap([test], [" ".join(words[:8])]) == (1, 13)  # a text of one run alone
    assert overlap(["too short"], training) == (0, 0)


@pytest.mark.parametrize(("n", "p", "match"), [(0, 0.1, "n: "), (5, 0.0, "p: "), (5, 1.0, "p: ")])
def test_a_filter_of_no_size_is_refused(n: int, p: float, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Bloom(n, p)
