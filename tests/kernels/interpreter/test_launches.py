"""What a follower of launches is told, and what it decides."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from gptwin.kernels.interpreter import Access, Launch, follow, observe, undefined_as


class Follower:
    """Keep what was told, and run the programs backwards."""

    def __init__(self) -> None:
        self.launches: list[Launch] = []
        self.accesses: list[Access] = []
        self.finished = 0

    def launch(self, launch: Launch, run: Callable[[], None]) -> None:
        self.launches.append(launch)
        run()
        self.finished += 1

    def order(self, n_programs: int) -> Sequence[int]:
        return range(n_programs)[::-1]


@triton.jit
def wandering_kernel(x_ptr, pair, y_desc, z_ptr, n, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    # which tensor a lane is of is decided lane by lane, far outside both
    either = tl.where(at < 2, x_ptr - 70_000 + at, pair[1] + (1 << 33) + at)
    tl.store(either[None, :] + 70_000 - tl.where(at < 2, 0, (1 << 33) + 70_000)[None, :], 1.0)
    y_desc.store([0], tl.load(pair[0] + at))
    tl.store(z_ptr + n + tl.program_id(1), tl.program_id(0))


def test_a_pointer_knows_its_tensor_wherever_it_has_been() -> None:
    x, a, b, y, z = (torch.zeros(4) for _ in range(5))
    follower = Follower()
    with follow(follower), observe(lambda access: follower.accesses.append(access)):
        wandering_kernel[(1, 2)](x, (a, b), TensorDescriptor.from_tensor(y, [4]), z, 0, SIZE=4)
    (launch,) = follower.launches
    assert [name for name, _ in launch.tensors] == [
        "x_ptr",
        "pair[0]",
        "pair[1]",
        "y_desc",
        "z_ptr",
    ]
    assert [tensor.data_ptr() for _, tensor in launch.tensors] == [
        tensor.data_ptr() for tensor in (x, a, b, y, z)
    ]
    assert follower.finished == 1
    either, load, store, last = follower.accesses[:4]
    assert either.tensors is not None and either.tensors.tolist() == [[1, 1, 3, 3]]
    assert x.tolist() == [1, 1, 0, 0] and b.tolist() == [0, 0, 1, 1]
    assert (load.tensors == 2).all() and (store.tensors == 4).all() and (last.tensors == 5).all()
    assert (last.addresses == z.data_ptr() + 4).all(), "the second program comes first"
    assert [access.program for access in follower.accesses[3::4]] == [(0, 1, 0), (0, 0, 0)]


class Masks(NamedTuple):
    start: Any
    end: Any
    causal: Any


@triton.jit
def masked_kernel(x, masks, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    if masks.causal:
        if masks.start is not None:
            at += 100
        if masks.end is not None:
            tl.store(x[0] + at * x[1][0], tl.load(masks.end + at))


def test_a_tensor_in_a_named_tuple_has_its_field_for_a_name() -> None:
    x, end = torch.zeros(4), torch.arange(4.0)
    follower = Follower()
    masks = Masks(None, end, tl.constexpr(True))
    with follow(follower), observe(lambda access: follower.accesses.append(access)):
        masked_kernel[(1,)]((x, x.stride()), masks, SIZE=4)
    (launch,) = follower.launches
    assert [name for name, _ in launch.tensors] == ["x[0]", "masks.end"]
    load, store = follower.accesses
    assert load.tensors is not None and (load.tensors == 2).all() and (store.tensors == 1).all()
    assert x.tolist() == end.tolist()


def test_a_refused_lane_touches_nothing_and_loads_zero() -> None:
    x = torch.full((4,), 7.0)
    y = torch.full((4,), 9.0)
    with observe(lambda access: np.arange(4) == (1 if access.kind == "load" else 2)):
        copy_kernel[(1,)](x, y, SIZE=4)
    assert y.tolist() == [7, 0, 9, 7]


@triton.jit
def copy_kernel(x_ptr, y_ptr, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(y_ptr + at, tl.load(x_ptr + at))


@triton.jit
def careless_kernel(x_ptr, y_ptr, n, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n) * 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_stored_undefined_float_is_known(dtype: torch.dtype) -> None:
    x, y = torch.full((4,), torch.nan, dtype=dtype), torch.zeros(4, dtype=dtype)
    seen: list[Access] = []
    with observe(lambda access: seen.append(access)):
        careless_kernel[(1,)](x, y, 3, SIZE=4)
    load, store = seen
    assert load.leaves_undefined and not store.leaves_undefined
    assert store.stores_undefined().tolist() == [False] * 3 + [True], "NaN alone is defined"


def test_what_is_undefined_can_be_chosen() -> None:
    x, y = torch.ones(4), torch.zeros(4)
    with undefined_as(lambda dtype, shape: np.full(shape, 5, dtype=np.float32)):
        careless_kernel[(1,)](x, y, 3, SIZE=4)
    assert y.tolist() == [2, 2, 2, 10]
