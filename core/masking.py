"""Positions that count and positions that do not: what operations with a mask share."""

from typing import Any

import numpy as np

from .checks import expect_shape, refuse


def scatter(mask: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Put the unmasked tokens back in their places, and 0 elsewhere.

    Parameters
    ----------
    mask : numpy.ndarray of bool [batch, time]
    tokens : numpy.ndarray [token]
        One for each True, in row order.

    Returns
    -------
    numpy.ndarray [batch, time]
    """
    result = np.zeros(mask.shape, tokens.dtype)
    result[mask] = tokens
    return result


def scatter_rows(mask: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Put the rows of the unmasked tokens back in their places, and 0 elsewhere.

    Parameters
    ----------
    mask : numpy.ndarray of bool [token]
    rows : numpy.ndarray [counted, d_model]

    Returns
    -------
    numpy.ndarray [token, d_model]
    """
    result = np.zeros((len(mask), rows.shape[1]), rows.dtype)
    result[mask] = rows
    return result


def expect_mask(name: str, mask: Any, shape: tuple[int, ...], of: str) -> None:
    """Refuse a mask that is not of bools or not shaped like what it masks.

    Parameters
    ----------
    name : str
        The mask's name.
    mask : numpy.ndarray or torch.Tensor
        The mask.
    shape : tuple of int
        The shape it must have.
    of : str
        The argument whose shape that is.

    Raises
    ------
    ValueError
        If the dtype or the shape is wrong.
    """
    if not str(mask.dtype).endswith("bool"):
        refuse(
            name,
            "dtype bool, True where it counts",
            f"dtype {mask.dtype}",
            "a mask of 0 and 1: compare it with 0 first",
        )
    expect_shape(name, mask, shape, f"not one entry for each of {of}")


def expect_bool_mask(mask: Any) -> None:
    """Refuse `mask` unless it holds bools.

    Parameters
    ----------
    mask : numpy.ndarray or torch.Tensor
        As in `ppo_loss`.

    Raises
    ------
    ValueError
        If it holds anything else.
    """
    if not str(mask.dtype).endswith("bool"):
        refuse(
            "mask",
            "dtype bool, True where a token counts",
            f"dtype {mask.dtype}",
            "a mask of 0 and 1 as numbers",
        )


def expect_batch_time(name: str, array: Any) -> None:
    """Refuse an array that is not [batch, time].

    Parameters
    ----------
    name : str
        The argument's name.
    array : numpy.ndarray or torch.Tensor
        The argument.

    Raises
    ------
    ValueError
        If it does not have two dimensions.
    """
    if len(array.shape) != 2:
        refuse(name, "2 dimensions [batch, time]", f"shape {tuple(array.shape)}")
