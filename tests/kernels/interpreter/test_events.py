"""What listeners are told, and what is undefined."""

from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError

from gptwin.kernels.interpreter import Event, leaving_out_undefined, listen, undefined_as


@triton.jit
def operate_kernel(x_ptr, y_ptr, z_ptr, OP: tl.constexpr):
    at = tl.arange(0, 4)
    x, y = tl.load(x_ptr + at), tl.load(y_ptr + at)
    if OP == "div":
        z = x // y
    elif OP == "rem":
        z = x % y
    elif OP == "left":
        z = x << y
    else:
        z = x >> y
    tl.debug_barrier()
    tl.store(z_ptr + at, z + tl.sum(at) * 0)


@pytest.mark.parametrize(
    ("op", "operands", "lost", "kind", "line"),
    [
        ("div", [1, 2, 0, 3], [2], "division by zero", 20),
        ("rem", [1, 2, 0, 3], [2], "division by zero", 22),
        ("left", [0, 31, 32, -1], [2, 3], "shift", 24),
        ("right", [0, 31, 32, -1], [2, 3], "shift", 26),
    ],
)
@pytest.mark.parametrize("dtype", [torch.int32, torch.uint32])
def test_what_nobody_can_know_is_undefined_and_told(
    op: str, operands: list[int], lost: list[int], kind: str, line: int, dtype: torch.dtype
) -> None:
    x = torch.tensor([7, 7, 7, 7]).to(dtype)
    y = torch.tensor(operands).to(dtype)
    events: list[Event] = []
    found: list[torch.Tensor] = []
    for value in (5, 6):
        z = torch.zeros(4, dtype=torch.int64)
        filler: Any = lambda dtype, shape, value=value: np.full(shape, value, np.int32)  # noqa: E731
        with undefined_as(filler), listen(events.append):
            operate_kernel[(1,)](x, y, z, OP=op)
        found.append(z)
    assert torch.nonzero(found[0] != found[1]).flatten().tolist() == lost
    told = [(event.kind, int(event.where.rpartition(":")[2] or 0)) for event in events[:3]]
    assert told == [(kind, line), ("barrier", 27), ("exchange", 0)]
    assert events[0].program == (0, 0, 0)


@triton.jit
def wrap_kernel(x_ptr, y_ptr):
    x = tl.load(x_ptr)
    tl.store(y_ptr, x * x + x)


def test_unsigned_numbers_wrap_and_signed_ones_raise() -> None:
    number = (1 << 31) + 3
    x, y = torch.tensor([number]).to(torch.uint32), torch.zeros(1, dtype=torch.int64)
    wrap_kernel[(1,)](x, y)
    assert y.item() == (number * number + number) % (1 << 32)
    with pytest.raises(InterpreterError, match="int32 overflow"):
        wrap_kernel[(1,)](torch.tensor([1 << 30], dtype=torch.int32), y)


@triton.jit
def careless_kernel(x_ptr, y_ptr, z_ptr, n, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    x = tl.load(x_ptr + at, mask=at < n)
    tl.store(y_ptr, tl.sum(x))
    tl.store(y_ptr + 1, tl.max(x))
    tl.store(y_ptr + 2, tl.min(x))
    rows = tl.broadcast_to(x[None, :], (SIZE, SIZE))
    ones = tl.full((SIZE, SIZE), 1.0, tl.float32)
    product = tl.dot(rows, ones)
    tl.store(z_ptr + at[:, None] * SIZE + at[None, :], product)


def test_undefined_lanes_can_take_no_part() -> None:
    x, y, z = -torch.ones(16), torch.zeros(3), torch.zeros(16, 16)
    careless_kernel[(1,)](x, y, z, 3, SIZE=16)
    assert y.isnan().all() and z.isnan().all()
    with leaving_out_undefined():
        careless_kernel[(1,)](x, y, z, 3, SIZE=16)
    assert y.tolist() == [-3, -1, -1] and (z == -3).all()
