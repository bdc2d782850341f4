"""Which examples a step draws, and what the padding around them changes: nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptwin.rl.data.batches import IGNORED, Shuffled, Windows, collate, split_by_length
from gptwin.rl.data.dialogue import Encoded


@given(st.integers(1, 30), st.integers(1, 10), st.integers(0, 5))
def test_every_example_comes_once_a_pass(n, batch_size, seed):
    if n < batch_size:
        with pytest.raises(ValueError, match=r"^batch_size: expected at most"):
            Shuffled(range(n), batch_size, seed)
        return
    source = Shuffled(range(n), batch_size, seed)
    for epoch in range(2):
        first = epoch * source.steps_per_epoch
        drawn = [i for s in range(source.steps_per_epoch) for i in source.batch(first + s)]
        assert len(drawn) == len(set(drawn)) == n // batch_size * batch_size


def test_a_step_is_the_same_whenever_it_is_asked_for():
    source = Shuffled(range(100), 7, seed=3)
    steps = [source.batch(i) for i in range(40)]
    assert source.batch(23) == steps[23]
    assert steps[0] != steps[source.steps_per_epoch]
    assert Shuffled(range(100), 7, seed=4).batch(0) != steps[0]


def test_windows_are_the_text():
    windows = Windows(np.arange(50), time=8, batch_size=4, seed=0)
    for window in windows.batch(5):
        assert window.tokens == list(range(window.tokens[0], window.tokens[0] + 9))
    assert [w.tokens[0] for w in windows.all(100)] == [0, 8, 16, 24, 32, 40]
    assert windows.batch(5) == windows.batch(5) != windows.batch(6)
    with pytest.raises(ValueError, match=r"^tokens: expected more than 8"):
        Windows(np.arange(8), time=8, batch_size=4, seed=0)


def test_targets_are_the_next_tokens_that_count():
    short = Encoded([5, 6, 7], [False, False, True])
    long = Encoded([1, 2, 3, 4], [False, True, True, False])
    tokens, targets = collate([short, long], pad=0)
    assert tokens.tolist() == [[5, 6, 0], [1, 2, 3]]
    assert targets.tolist() == [[IGNORED, 7, IGNORED], [2, 3, IGNORED]]
    assert tokens.dtype == targets.dtype == torch.int64


def test_micro_batches_are_alike_in_length_and_hold_everything():
    examples = [Encoded([0] * n, [True] * n) for n in (5, 2, 9, 2, 7)]
    parts = split_by_length(examples, 2)
    assert [[len(e) for e in part] for part in parts] == [[2, 2], [5, 7, 9]]
    assert [len(part) for part in split_by_length(examples[:1], 3)] == [0, 0, 1]
