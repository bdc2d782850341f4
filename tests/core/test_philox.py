"""Philox-4x32-10: the published answers, and no trace of NumPy's own integer rules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.philox import philox, uniform

# Random123's tests/kat_vectors, "philox4x32 10": counter, key, result.
KNOWN_ANSWERS = [
    (
        (0x00000000, 0x00000000, 0x00000000, 0x00000000),
        (0x00000000, 0x00000000),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
words = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS)
def test_published_answers(counter, key, result):
    drawn = philox(key[1] << 32 | key[0], *counter)
    assert tuple(int(word) for word in drawn) == result
    assert all(word.dtype == np.uint32 for word in drawn)


@given(st.lists(words, min_size=1, max_size=5), words, st.integers(0, 2**64 - 1))
def test_arrays_hold_what_their_elements_give(offsets, c1, seed):
    together = philox(seed, np.array(offsets), c1, 0, 0)
    for i, offset in enumerate(offsets):
        alone = philox(seed, offset, c1, 0, 0)
        assert [int(w[i]) for w in together] == [int(w) for w in alone]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32, np.uint64])
def test_any_integer_is_taken_modulo_a_word(dtype):
    top = np.array([-1]).astype(dtype)
    for drawn, expected in zip(
        philox(-1, top, top, -1, 2**32 - 1), KNOWN_ANSWERS[1][2], strict=True
    ):
        assert drawn.tolist() == [expected]


def test_counters_broadcast():
    drawn = philox(7, np.arange(3)[:, None], np.arange(5), 0, 0)
    assert [word.shape for word in drawn] == [(3, 5)] * 4


def test_uniform_reaches_0_but_not_1():
    bits = np.array([0, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 1], dtype=np.uint32)
    u = uniform(bits)
    assert u.dtype == np.float32
    assert u[:2].tolist() == [0, 0]  # the word and its complement fold together
    assert u[2] == u[3] < 1
    assert u[4] > 0


def test_uniform_is_uniform():
    u = uniform(philox(3, np.arange(100_000), 0, 0, 0)[0])
    counts = np.histogram(u, bins=20, range=(0, 1))[0]
    chi_square = ((counts - 5000) ** 2 / 5000).sum()
    assert chi_square < 43.8  # 19 degrees of freedom: exceeded once in 1,000


def test_floats_are_refused():
    with pytest.raises(ValueError, match="c1: expected integers, got dtype float64"):
        philox(0, 0, 1.5, 0, 0)
    with pytest.raises(ValueError, match="bits: expected dtype uint32"):
        uniform(np.arange(3))
    with pytest.raises(TypeError):
        philox(0.5, 0, 0, 0, 0)
