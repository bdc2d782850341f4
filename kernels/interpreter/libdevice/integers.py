"""Bits counted and moved, products and sums that would not fit, and conversions to integers."""

from collections.abc import Callable

import numpy as np


def _unsigned(x: np.ndarray) -> np.ndarray:
    return x.view(f"u{x.itemsize}")


def count_leading_zeros(x: np.ndarray) -> np.ndarray:
    """Count the zeros above the highest bit that is set."""
    bits, n_bits = _unsigned(x), 8 * x.itemsize
    shift = 1
    while shift < n_bits:  # fill everything below the highest bit
        bits = bits | (bits >> bits.dtype.type(shift))
        shift *= 2
    return n_bits - np.bitwise_count(bits).astype(np.int32)


def find_first_set(x: np.ndarray) -> np.ndarray:
    """Number the lowest bit that is set, from 1 on; 0 if there is none."""
    bits = _unsigned(x)
    below = np.bitwise_count((bits & -bits) - bits.dtype.type(1)).astype(np.int32)
    return np.where(bits == 0, 0, below + 1)


def reverse_bits(x: np.ndarray) -> np.ndarray:
    """Put the bits in the opposite order."""
    octets = np.ascontiguousarray(x)[..., None].view(np.uint8)
    bits = np.unpackbits(octets, axis=-1, bitorder="little")[..., ::-1]
    octets = np.packbits(bits, axis=-1, bitorder="little")
    return np.ascontiguousarray(octets).view(x.dtype)[..., 0]


def byte_perm(x: np.ndarray, y: np.ndarray, selector: np.ndarray) -> np.ndarray:
    """Choose four of the eight bytes of x and y: each by the three low bits of a hex digit."""
    both = _unsigned(x).astype(np.uint64) | (_unsigned(y).astype(np.uint64) << np.uint64(32))
    digits = _unsigned(selector).astype(np.uint64)
    result = np.zeros_like(both)
    for i in range(4):
        which = (digits >> np.uint64(4 * i)) & np.uint64(7)
        byte = (both >> (np.uint64(8) * which)) & np.uint64(0xFF)
        result = result | (byte << np.uint64(8 * i))
    return result.astype(np.uint32).view(x.dtype)


def multiply_high(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Give the upper half of the exact product."""
    product = x.astype(object) * y.astype(object)
    return (product >> 8 * x.itemsize).astype(x.dtype)


def multiply_24(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Multiply the lower 24 bits; the product's lower 32."""
    eight = x.dtype.type(8)
    low_x, low_y = ((v << eight) >> eight for v in (x, y))  # extends the sign, if there is one
    return (low_x.astype(np.int64) * low_y.astype(np.int64)).astype(x.dtype)


def add_distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Give |x - y| + z, which wraps."""
    wide = np.abs(x.astype(np.int64) - y.astype(np.int64)) + z.astype(np.int64)
    return wide.astype(z.dtype)


def average(round_up: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Make the mean of two integers without overflow, rounded up or down."""

    def compute(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return ((x.astype(np.int64) + y.astype(np.int64) + round_up) >> 1).astype(x.dtype)

    return compute


# --- conversions ----------------------------------------------------------------------------------

_TO_WHOLE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rn": np.rint,
    "rz": np.trunc,
    "rd": np.floor,
    "ru": np.ceil,
}


def to_integer(mode: str, dtype: type) -> Callable[[np.ndarray], np.ndarray]:
    """Make a conversion that rounds by `mode` and clamps, as `cvt` does (PTX ISA, 9.7.9.21).

    Parameters
    ----------
    mode : str
        "rn", "rz", "rd" or "ru".
    dtype : type
        Of NumPy's integers.

    Returns
    -------
    callable
        NaN becomes 0; but the highest bit alone if the source or the result has 64 bits.
    """
    info = np.iinfo(dtype)

    def convert(x: np.ndarray) -> np.ndarray:
        whole = _TO_WHOLE[mode](x).astype(np.float64)
        inside = (whole >= float(info.min)) & (whole < float(info.max // 2 + 1) * 2)
        result: np.ndarray = np.where(inside, whole, 0.0).astype(dtype)
        result = np.where(whole >= float(info.max // 2 + 1) * 2, dtype(info.max), result)
        result = np.where(whole < float(info.min), dtype(info.min), result)
        narrow = x.dtype != np.float64 and info.bits < 64
        of_nan = 0 if narrow else 1 << (info.bits - 1)
        return np.where(np.isnan(x), np.array(of_nan, f"u{info.bits // 8}").view(dtype), result)

    return convert


def as_type(dtype: type) -> Callable[[np.ndarray], np.ndarray]:
    """Make a reinterpretation of the same bits."""
    return lambda x: np.ascontiguousarray(x).view(dtype)


def join_halves(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Make a float64 of the bits of two integers."""
    bits = _unsigned(high).astype(np.uint64) << np.uint64(32)
    return (bits | _unsigned(low).astype(np.uint64)).view(np.float64)


def half(x: np.ndarray, upper: bool) -> np.ndarray:
    """Give 32 of the bits of a float64."""
    bits = np.ascontiguousarray(x).view(np.uint64)
    return (bits >> np.uint64(32 if upper else 0)).astype(np.uint32).view(np.int32)
