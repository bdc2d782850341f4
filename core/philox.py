"""Philox: random numbers from a counter, the same bits in NumPy and on the GPU.

A counter-based generator has no state to carry: number i of the stream `seed` is a function of
(seed, i) alone, so any element of a dropout mask or any row's draw can be computed by any program
in any order, and again in the backward pass instead of being stored. Philox-4x32 (Salmon, Moraes,
Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3") scrambles four 32-bit counter words
under a 64-bit key in ten rounds. A round multiplies two of the words and mixes the halves of the
64-bit products:

    c0' = high(B·c2) ⊕ c1 ⊕ k0      c1' = low(B·c2)
    c2' = high(A·c0) ⊕ c3 ⊕ k1      c3' = low(A·c0)

and then the key words step by constants (golden ratio, √3 − 1). `tl.philox`, `tl.randint4x` and
`tl.rand` compute exactly this; integer arithmetic rounds nothing, so a kernel's random bits can be
compared with these bit for bit.
"""

import operator
from typing import Any

import numpy as np

from .checks import refuse

N_ROUNDS = 10
ROUND_A, ROUND_B = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
KEY_STEP_A, KEY_STEP_B = 0x9E3779B9, 0xBB67AE85
COUNTERS = ("c0", "c1", "c2", "c3")
WORD = 0xFFFFFFFF
# It is (2²³ − 1) / 2²³ · 2⁻³¹: the largest 31-bit integer, rounded to float32, stays below 1.
UNIFORM_SCALE = np.float32(4.6566127342e-10)

Words = tuple[np.ndarray, ...]


def philox(seed: int, c0: Any, c1: Any, c2: Any, c3: Any) -> Words:
    """Compute four random words for each counter, as `tl.philox` does.

    `tl.randint4x(seed, offset)` is `philox(seed, offset, offset >> 32, 0, 0)`.

    Parameters
    ----------
    seed : int
        64 bits; its low word is the first word of the key. A negative seed is its two's complement.
    c0, c1, c2, c3 : int or numpy.ndarray of integers
        The counter's words, taken modulo 2³²; they broadcast.

    Returns
    -------
    tuple of four numpy.ndarray of uint32
        The random words, in the counters' broadcast shape.

    Raises
    ------
    ValueError
        If a counter word is not an integer.
    TypeError
        If `seed` is not.
    """
    seed = operator.index(seed)
    k0, k1 = seed & WORD, (seed >> 32) & WORD
    words = [_as_word(name, c) for name, c in zip(COUNTERS, (c0, c1, c2, c3), strict=True)]
    c0, c1, c2, c3 = np.broadcast_arrays(*words)  # uint64, each below 2³²
    for _ in range(N_ROUNDS):
        product_a, product_b = ROUND_A * c0, ROUND_B * c2
        c0, c1 = (product_b >> 32) ^ c1 ^ np.uint64(k0), product_b & WORD
        c2, c3 = (product_a >> 32) ^ c3 ^ np.uint64(k1), product_a & WORD
        k0, k1 = (k0 + KEY_STEP_A) & WORD, (k1 + KEY_STEP_B) & WORD
    return tuple(np.asarray(c, dtype=np.uint32) for c in (c0, c1, c2, c3))


def uniform(bits: np.ndarray) -> np.ndarray:
    """Turn random words into floats of [0, 1), exactly as `tl.rand` does.

    The word is read as a signed integer, folded to 31 bits (x < 0 becomes ~x) and multiplied by
    just under 2⁻³¹, in float32. Above 2⁻⁷ the steps are those of float32's 24 digits; 0 can come
    out (once in 2³¹), 1 cannot.

    Parameters
    ----------
    bits : numpy.ndarray of uint32
        From `philox`.

    Returns
    -------
    numpy.ndarray of float32
        In [0, 1), shaped like `bits`.

    Raises
    ------
    ValueError
        If `bits` are not uint32.
    """
    bits = np.asarray(bits)
    if bits.dtype != np.uint32:
        refuse("bits", "dtype uint32, as philox returns", f"dtype {bits.dtype}")
    signed = bits.view(np.int32)
    return np.where(signed < 0, ~signed, signed).astype(np.float32) * UNIFORM_SCALE


def _as_word(name: str, counter: Any) -> np.ndarray:
    counter = np.asarray(counter)
    if counter.dtype.kind not in "iu":
        refuse(name, "integers", f"dtype {counter.dtype}", "a float index")
    return counter.astype(np.uint32).astype(
        np.uint64
    )  # The first cast takes it modulo 2³², the second makes room for products.
