"""Whether the operations look for infinities and NaN in what they are given.

A NaN that enters a loss comes out as a NaN in every weight, far from where it arose. So the
operations of the RLHF objective refuse an unmasked element that is not finite, and name its tensor.
The answer is a number that the host waits for. On the CPU that is cheap, and they always ask; on a
GPU each question would hold the queue of launches up, and they do not, unless told to:
`GPTWIN_CHECK_FINITE=1` in the environment, or `with checking_finite(True)` around the calls, which
goes first (0 and False spare the CPU too). A training loop asks `expect_finite("loss", loss)` once
a step, and repeats a step that fails under `checking_finite(True)` to learn which tensor began it.

Under torch.compile nobody asks: the answer would break the graph.
"""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar

import torch

from ...core.checks import expect_finite, refuse

_wish: ContextVar[bool | None] = ContextVar("checking_finite", default=None)


@contextlib.contextmanager
def checking_finite(wanted: bool) -> Iterator[None]:
    """Force the checks on or off while the context lasts, on every device.

    Parameters
    ----------
    wanted : bool
        Whether to check.

    Yields
    ------
    None
    """
    token = _wish.set(wanted)
    try:
        yield
    finally:
        _wish.reset(token)


def may_be_read(tensor: torch.Tensor) -> bool:
    """Say whether a tensor's numbers may decide, at no cost, what is computed of it.

    Parameters
    ----------
    tensor : torch.Tensor

    Returns
    -------
    bool
        True on the CPU, if nobody records: torch.compile and make_fx take down one way alone.
    """
    if torch.compiler.is_compiling() or not tensor.is_cpu:
        return False
    return torch._C._len_torch_dispatch_stack() == 0


def checks_finite(tensor: torch.Tensor) -> bool:
    """Say whether an operation with this argument is to look for infinities and NaN.

    Parameters
    ----------
    tensor : torch.Tensor
        Any of its arguments.

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        If `GPTWIN_CHECK_FINITE` is neither 0 nor 1.
    """
    # A tensor on the meta device holds nothing to look at.
    if torch.compiler.is_compiling() or tensor.is_meta:
        return False
    wish = _wish.get()
    if wish is not None:
        return wish
    of_all = os.environ.get("GPTWIN_CHECK_FINITE") or ("1" if tensor.device.type == "cpu" else "0")
    if of_all not in ("0", "1"):
        refuse("GPTWIN_CHECK_FINITE", "0 or 1", repr(of_all))
    return of_all == "1"


def expect_all_finite(mask: torch.Tensor | None, **tensors: torch.Tensor) -> None:
    """Refuse tensors with an unmasked element that is infinite or NaN, if it is to be checked.

    Parameters
    ----------
    mask : torch.Tensor of bool or None
        True at the elements that count, as in `expect_finite`.
    **tensors : torch.Tensor
        The arguments by name.

    Raises
    ------
    ValueError
        Naming the first such tensor.
    """
    if checks_finite(next(iter(tensors.values()))):
        for name, tensor in tensors.items():
            expect_finite(name, tensor, mask)
