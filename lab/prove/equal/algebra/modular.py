"""Arithmetic in Z_P and Z_Q, P = 2Q + 1: two primes near 2³¹ and 2³⁰ that a seed chooses.

ω has order Q in Z_P, so ω^b · ω^c = ω^(b + c) with exponents in Z_Q: the exponential function. Q is
−1 modulo 8·3·5·7·11·13, which makes every number of these primes a square in both fields.
"""

import dataclasses
import functools

import numpy as np

# Small roots are exact modulo a prime that is −1 modulo this.
STEP = 8 * 3 * 5 * 7 * 11 * 13
LOW_BITS = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Field:
    """What one seed chooses.

    Attributes
    ----------
    seed, P, Q : int
    low, high : numpy.ndarray
        Powers of ω: of exponents below 2¹⁶, and of multiples of 2¹⁶.
    symbols : dict
        Modulus to the values of log₂e and √(2/π) there: two numbers that nobody writes exactly.
    salts : tuple of int
        Of the functions that are opaque: a hash stands for their values.
    random : numpy.random.Generator
        Draws the inputs.
    """

    seed: int
    P: int
    Q: int
    low: np.ndarray
    high: np.ndarray
    symbols: dict[int, tuple[int, int]]
    salts: tuple[int, ...]
    random: np.random.Generator

    def omega(self, exponent: np.ndarray) -> np.ndarray:
        """Return ω^exponent in Z_P, for exponents in Z_Q."""
        return self.low[exponent & ((1 << LOW_BITS) - 1)] * self.high[exponent >> LOW_BITS] % self.P

    def hashed(self, value: np.ndarray, which: int, modulus: int) -> np.ndarray:
        """Return numbers that look random, the same for the same value and function."""
        z = np.atleast_1d(value).astype(np.uint64) + np.uint64(self.salts[which])
        for factor, shift in (
            (0xBF58476D1CE4E5B9, 30), (0x94D049BB133111EB, 27), (0xD6E8FEB86659FD93, 31),
        ):  # fmt: skip
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        z = (z ^ (z >> np.uint64(32))) % np.uint64(modulus)
        return z.astype(np.int64).reshape(np.shape(value))


@functools.lru_cache(maxsize=4)
def field_of(seed: int) -> Field:
    """Choose primes, ω, symbols and salts."""
    random = np.random.default_rng(seed)
    while True:
        Q = int(random.integers(2**29 // STEP, 2**30 // STEP)) * STEP - 1
        if _is_prime(Q) and _is_prime(2 * Q + 1):
            break
    P = 2 * Q + 1
    omega = pow(int(random.integers(2, P - 1)), 2, P)
    symbols = {m: (int(random.integers(2, m)), int(random.integers(2, m))) for m in (P, Q)}
    return Field(
        seed, P, Q,
        _powers(omega, 1 << LOW_BITS, P), _powers(pow(omega, 1 << LOW_BITS, P), 1 << 15, P),
        symbols, tuple(int(s) for s in random.integers(1, 2**62, 8)), random,
    )  # fmt: skip


def _powers(base: int, n: int, modulus: int) -> np.ndarray:
    powers, power = [], 1
    for _ in range(n):
        powers.append(power)
        power = power * base % modulus
    return np.array(powers)


def _is_prime(n: int) -> bool:
    """Decide by Miller and Rabin; these bases are enough for 41 bits."""
    if n % 2 == 0:
        return False
    d, twos = n - 1, 0
    while d % 2 == 0:
        d, twos = d // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13):
        y = pow(base, d, n)
        if y not in (1, n - 1) and not any((y := y * y % n) == n - 1 for _ in range(twos - 1)):
            return False
    return True


def power(value: np.ndarray, exponent: int, modulus: int) -> np.ndarray:
    """Return value^exponent, by squaring."""
    result = np.ones_like(value)
    while exponent:
        if exponent & 1:
            result = result * value % modulus
        value = value * value % modulus
        exponent >>= 1
    return result


def inverse(value: np.ndarray, modulus: int) -> np.ndarray:
    """Return 1 / value; of 0, 0. Many values take one power: products of pairs, and back."""
    if value.size < 16:
        return power(value, modulus - 2, modulus)
    flat = value.reshape(-1)
    known = np.where(flat == 0, 1, flat)
    levels = [known]
    while len(known) > 8:
        known = np.append(known, 1) if len(known) % 2 else known
        levels[-1] = known
        known = known[0::2] * known[1::2] % modulus
        levels.append(known)
    result = power(levels.pop(), modulus - 2, modulus)
    while levels:
        level = levels.pop()
        result = result[: len(level) // 2]
        wider = np.empty_like(level)
        wider[0::2] = result * level[1::2] % modulus
        wider[1::2] = result * level[0::2] % modulus
        result = wider
    return np.where(flat == 0, 0, result[: flat.size]).reshape(value.shape)


def matmul(left: np.ndarray, right: np.ndarray, modulus: int) -> np.ndarray:
    """Multiply matrices, exactly, by BLAS: 16 bits times 31 times 64 terms fit a float64."""
    shape = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    result = np.zeros((*shape, left.shape[-2], right.shape[-1]), np.int64)
    high, low = (left >> 16).astype(float), (left & 0xFFFF).astype(float)
    floats = right.astype(float)
    for start in range(0, left.shape[-1], 64):
        k = slice(start, start + 64)
        upper = (high[..., k] @ floats[..., k, :]).astype(np.int64) % modulus
        result += (upper << 16) + (low[..., k] @ floats[..., k, :]).astype(np.int64)
        result %= modulus
    return result
