"""Positions that count and positions that do not: what operations with a mask share."""

from typing import Any

import numpy as np

from .checks import expect_shape, refuse


def scatter(mask: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Put the unmasked tokens [token] back in their places [batch, time], and 0 elsewhere."""
    result = np.zeros(mask.shape, tokens.dtype)
    result[mask] = tokens
    return result


def scatter_rows(mask: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Put the rows [counted, d_model] back in their places [token, d_model], and 0 elsewhere."""
    result = np.zeros((len(mask), rows.shape[1]), rows.dtype)
    result[mask] = rows
    return result


def expect_mask(name: str, mask: Any, shape: tuple[int, ...], of: str) -> None:
    """Refuse a mask that is not of bools or not of the shape that the argument `of` has."""
    if not str(mask.dtype).endswith("bool"):
        refuse(
            name,
            "dtype bool, True where it counts",
            f"dtype {mask.dtype}",
            "a mask of 0 and 1: compare it with 0 first",
        )
    expect_shape(name, mask, shape, f"not one entry for each of {of}")


def expect_bool_mask(mask: Any) -> None:
    """Refuse `mask` unless it holds bools."""
    if not str(mask.dtype).endswith("bool"):
        refuse(
            "mask",
            "dtype bool, True where a token counts",
            f"dtype {mask.dtype}",
            "a mask of 0 and 1 as numbers",
        )


def expect_batch_time(name: str, array: Any) -> None:
    """Refuse an array that is not [batch, time]."""
    if len(array.shape) != 2:
        refuse(name, "2 dimensions [batch, time]", f"shape {tuple(array.shape)}")
