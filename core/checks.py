"""Errors that help: which argument, what was expected, what came, and the likely cause.

The kernels use the same helpers, so that both twins refuse the same input with the same words.
They look at `.shape` and `.dtype` alone, which NumPy arrays and PyTorch tensors both have;
`expect_finite` looks at the values too, which on a GPU means to wait for them.
"""

import contextlib
import math
import operator
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NoReturn

import numpy as np


def refuse(name: str, expected: str, got: str, cause: str = "") -> NoReturn:
    """Raise the ValueError that every bad argument gets.

    It names the argument as the caller wrote it, what it should have been, what it was, and the
    likely cause, a short clause, which is left out if empty.
    """
    why = f" (likely cause: {cause})" if cause else ""
    raise ValueError(f"{name}: expected {expected}, got {got}{why}")


def expect_shape(name: str, array: Any, expected: tuple[int, ...], cause: str = "") -> None:
    """Refuse `array` unless its shape is exactly `expected`."""
    if tuple(array.shape) != tuple(expected):
        refuse(name, f"shape {tuple(expected)}", f"shape {tuple(array.shape)}", cause)


def expect_parameter(name: str, array: Any, expected: tuple[int, ...]) -> None:
    """Refuse a model's parameter unless it is there, with exactly the shape `expected`.

    A projection is [in, out]; a transposed one is recognised.
    """
    if array is None:
        refuse(name, f"shape {tuple(expected)}", "None", "a checkpoint that lacks it")
    transposed = len(expected) == 2 and tuple(array.shape) == tuple(expected[::-1])
    cause = "a torch.nn.Linear weight, [out, in], where GPT-2's Conv1D has [in, out]: transpose it"
    expect_shape(name, array, expected, cause if transposed else "")


def expect_ndim(name: str, array: Any, at_least: int, meaning: str) -> None:
    """Refuse `array` if it has fewer than `at_least` dimensions, `meaning` such as "[..., key]"."""
    if len(array.shape) < at_least:
        refuse(name, f"at least {at_least} dimensions {meaning}", f"shape {tuple(array.shape)}")


def expect_floats(**arrays: Any) -> None:
    """Refuse an array that holds no floats; None passes, as an argument that is not given."""
    for name, array in arrays.items():
        if array is None:
            continue
        # PyTorch's dtypes say it themselves, NumPy's have a kind.
        if not getattr(array.dtype, "is_floating_point", getattr(array.dtype, "kind", "") == "f"):
            refuse(name, "floats", f"dtype {array.dtype}", "counts or ids where scores are meant")


def expect_integers(**arrays: Any) -> None:
    """Refuse an array that holds no integers; None passes. All widths and signs do."""
    for name, array in arrays.items():
        if array is not None and "int" not in getattr(array.dtype, "name", str(array.dtype)):
            refuse(name, "integers", f"dtype {array.dtype}", "ids stored as floats, or a mask")


def signed(ids: np.ndarray) -> np.ndarray:
    """Return integers as int64: where they are subtracted, others would wrap around."""
    return ids.astype(np.int64, copy=False)


def whole(name: str, value: Any) -> int:
    """Return a whole number as Python's own, whosever it is; refuse what is none by name."""
    try:
        return operator.index(value)
    except TypeError:
        refuse(name, "a whole number", repr(value))


def expect_positive(name: str, value: float) -> None:
    """Refuse `value` unless it is a finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        refuse(name, "a finite number above 0", repr(value))


def all_below(ids: Any, n: int) -> bool:
    """Say whether every id is one of 0 to `n` − 1, from the least and the greatest alone.

    It is the quick question, for a training step, whose ids are good; who asked and got a no looks
    for the one at fault. It reads the values: on a GPU, that waits.
    """
    if 0 in ids.shape:
        return True
    # PyTorch finds both in one pass.
    least, greatest = ids.aminmax() if hasattr(ids, "aminmax") else (ids.min(), ids.max())
    return int(least) >= 0 and int(greatest) < n


def all_finite(array: Any) -> bool:
    """Say whether every number is finite, from the least and the greatest alone, as `all_below`.

    It reads the values: on a GPU, that waits.
    """
    if 0 in array.shape:
        return True
    least, greatest = array.aminmax() if hasattr(array, "aminmax") else (array.min(), array.max())
    return math.isfinite(least) and math.isfinite(greatest)  # They are NaN if one number is.


_taking_anything: ContextVar[bool] = ContextVar("taking_anything", default=False)


@contextlib.contextmanager
def taking_anything() -> Iterator[None]:
    """Let `expect_finite` pass everything while the context lasts.

    The operations then compute with NaN and infinity, as the kernels do on a GPU, where nobody
    looks. It is for instruments, which ask whether both come to the same.
    """
    token = _taking_anything.set(True)
    try:
        yield
    finally:
        _taking_anything.reset(token)


def takes_anything() -> bool:
    """Say whether a context of `taking_anything` lasts."""
    return _taking_anything.get()


def expect_finite(name: str, array: Any, mask: Any = None) -> None:
    """Refuse `array` if an element that counts is infinite or NaN, and show the first one.

    The mask is True at the elements that count; the others may hold anything. It has the shape of
    `array`, or that of its first axes alone. Without it every element counts.
    """
    if takes_anything():
        return
    with np.errstate(over="ignore", invalid="ignore"):
        if math.isfinite(array.sum().item()):
            return  # A sum is finite only if all its terms are.
    in_numpy = isinstance(array, np.ndarray | np.generic)
    wrong = ~(np.isfinite(array) if in_numpy else array.isfinite())
    if mask is not None:
        wrong = wrong & mask.reshape(
            tuple(mask.shape) + (1,) * (len(array.shape) - len(mask.shape))
        )
    if wrong.any():
        first = int((wrong.reshape(-1) * 1).argmax())
        at = tuple(int(i) for i in np.unravel_index(first, tuple(array.shape)))
        refuse(
            name,
            "finite numbers" if mask is None else "finite numbers where the mask is True",
            f"{int(wrong.sum())} that are not, the first {array[at].item()} at {at}",
            "what computed them overflowed or divided by 0, or the mask covers too little",
        )


def expect_matching_lists(**lists: Any) -> None:
    """Refuse lists of tensors unless each has the first one's length and shapes, and holds floats.

    The error names the list, or the tensor as ``name[i]``.
    """
    for name, tensors in lists.items():
        if not isinstance(tensors, list | tuple):
            refuse(
                name,
                "a list of tensors",
                type(tensors).__name__,
                "a generator such as model.parameters(): write list(...)",
            )
    first_name, first = next(iter(lists.items()))
    shapes = [tensor.shape for tensor in first]
    for name, tensors in lists.items():
        if len(tensors) != len(first):
            refuse(
                name,
                f"{len(first)} tensors, like {first_name}",
                f"{len(tensors)}",
                "a model with tied or frozen weights listed differently",
            )
        # The whole list is asked first, because an optimizer comes here in every step.
        floating = all("float" in str(dtype) for dtype in {tensor.dtype for tensor in tensors})
        if floating and [tensor.shape for tensor in tensors] == shapes:
            continue
        for i, (tensor, shape) in enumerate(zip(tensors, shapes, strict=True)):
            expect_shape(f"{name}[{i}]", tensor, tuple(shape), f"like {first_name}[{i}]")
            if "float" not in str(tensor.dtype):
                refuse(
                    f"{name}[{i}]",
                    "a floating dtype",
                    f"dtype {tensor.dtype}",
                    "a buffer, not a weight",
                )
