"""What an observer sees, and what loads, stores and atomics do."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st
from triton.runtime.errors import InterpreterError
from triton.tools.tensor_descriptor import TensorDescriptor

from gptwin.kernels.interpreter import Access, observe

BLOCK = 256


@triton.jit
def add_one(x_ptr, y_ptr, offsets, mask):
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0)  # line of the load
    tl.store(y_ptr + offsets, x + 1, mask=mask)  # line of the store


@triton.jit
def observed_kernel(x_ptr, y_ptr, count_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    add_one(x_ptr, y_ptr, offsets, offsets < n)
    tl.atomic_add(count_ptr, 1)  # line of the atomic


@triton.jit
def descriptor_kernel(x_desc, y_desc, M: tl.constexpr, N: tl.constexpr):
    y_desc.store([0, 0], x_desc.load([M, 0]) * 2)


@triton.jit
def atomic_kernel(x_ptr, total_ptr, old_ptr, slots, n, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n, other=0.0)
    old = tl.atomic_add(total_ptr + offsets % slots, x, mask=offsets < n)
    tl.store(old_ptr + offsets, old, mask=offsets < n)


@triton.jit
def scalar_kernel(x_ptr, y_ptr, n):
    tl.store(y_ptr, tl.load(x_ptr, mask=n > 0, other=0.0))


@triton.jit
def compare_and_swap_kernel(x_ptr, old_ptr, expected, value):
    tl.store(old_ptr, tl.atomic_cas(x_ptr, expected, value))


def line_of(marker: str) -> str:
    with open(__file__) as file:
        (line,) = [i for i, text in enumerate(file, 1) if text.rstrip().endswith(f"# {marker}")]
    return f"{__file__}:{line}"


def run_observed(n: int = 11) -> tuple[list[Access], torch.Tensor, torch.Tensor, torch.Tensor]:
    x, y, count = torch.arange(float(n)), torch.zeros(n), torch.zeros(1, dtype=torch.int32)
    seen: list[Access] = []
    with observe(seen.append):
        observed_kernel[(2,)](x, y, count, n, BLOCK=8)
    assert y.equal(x + 1)
    assert count.item() == 2
    return seen, x, y, count


def test_observer_sees_each_access_once_and_in_order():
    seen, x, y, count = run_observed()
    assert [(a.kind, a.program) for a in seen] == [
        (kind, (program, 0, 0)) for program in (0, 1) for kind in ("load", "store", "atomic")
    ]
    assert {a.kernel for a in seen} == {"observed_kernel"}
    assert [a.where for a in seen[:3]] == [
        line_of(f"line of the {kind}") for kind in ("load", "store", "atomic")
    ]
    for access in seen:
        tensor = {"load": x, "store": y, "atomic": count}[access.kind]
        lanes = np.arange(8, dtype=np.uint64) + np.uint64(8 * access.program[0])
        if access.kind == "atomic":
            lanes = np.zeros(1, dtype=np.uint64)
        expected = np.uint64(tensor.data_ptr()) + 4 * lanes
        assert access.addresses.dtype == np.uint64
        assert access.itemsize == 4
        assert access.addresses.ravel().tolist() == expected.tolist()
        assert access.mask.ravel().tolist() == (lanes < tensor.numel()).tolist()
        assert access.addresses.shape == access.mask.shape
    second_load, second_store = seen[3], seen[4]
    assert second_load.values is None
    assert second_store.values[second_store.mask].tolist() == [9.0, 10.0, 11.0]


def test_observer_is_silent_after_and_nests():
    seen, x, y, count = run_observed()
    outer: list[Access] = []
    with observe(outer.append):
        inner, *_ = run_observed()
    observed_kernel[(1,)](x, y, count, 8, BLOCK=8)
    assert (len(seen), len(inner), len(outer)) == (6, 6, 6)


def test_observer_may_refuse_an_access():
    def refuse(access: Access) -> None:
        if access.kind == "store":
            raise ValueError("refused")

    x, y, count = torch.ones(8), torch.zeros(8), torch.zeros(1, dtype=torch.int32)
    with pytest.raises(InterpreterError, match="refused"), observe(refuse):
        observed_kernel[(1,)](x, y, count, 8, BLOCK=8)
    assert not y.any()


def test_compare_and_swap_is_observed():
    x, old = torch.tensor([3], dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    seen: list[Access] = []
    with observe(seen.append):
        compare_and_swap_kernel[(1,)](x, old, 3, 8)
    assert (x.item(), old.item()) == (8, 3)
    assert [(a.kind, a.addresses.item(), a.values.item()) for a in seen] == [
        ("atomic", x.data_ptr(), 8),
        ("store", old.data_ptr(), 3),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("padding", ["zero", "nan"])
def test_descriptors_are_observed_and_padded(dtype, padding):
    x, y = torch.ones(6, 8, dtype=dtype), torch.zeros(4, 8, dtype=dtype)
    seen: list[Access] = []
    with observe(seen.append):
        descriptor_kernel[(1,)](
            TensorDescriptor(x, list(x.shape), list(x.stride()), [4, 8], padding=padding),
            TensorDescriptor.from_tensor(y, [4, 8]),
            M=4,
            N=8,
        )
    load, store = seen
    assert (load.kind, store.kind) == ("load", "store")
    assert load.mask.sum(1).tolist() == [8, 8, 0, 0]
    assert (load.addresses[0, 0], store.addresses[0, 0]) == (x[4].data_ptr(), y.data_ptr())
    assert (y[:2] == 2).all()
    assert (y[2:].isnan() if padding == "nan" else y[2:] == 0).all()


@given(st.integers(1, BLOCK), st.integers(1, 16), st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_bfloat16_atomic_add_takes_the_lanes_in_order(same, n, slots, seed):
    x = torch.randn(BLOCK, generator=torch.Generator().manual_seed(seed)).bfloat16()
    total, old = torch.ones(slots).bfloat16(), torch.zeros(BLOCK).bfloat16()
    expected_total, expected_old = total.clone(), old.clone()
    for lane in range(n):
        expected_old[lane] = expected_total[lane % slots]
        expected_total[lane % slots] += x[lane]
    atomic_kernel[(1,)](x, total, old, slots, n, BLOCK=BLOCK)
    same(total, expected_total)
    same(old, expected_old)


def test_a_scalar_that_is_masked_off_is_other():
    """Triton asks `if other`, and 0.0 is false."""
    y = torch.ones(1)
    scalar_kernel[(1,)](torch.ones(1), y, 0)
    assert y.item() == 0


has_atomic_loads = pytest.mark.skipif(
    not hasattr(tl, "atomic_load"), reason="this Triton has no tl.atomic_load"
)


@triton.jit
def atomic_loads_kernel(x_ptr, y_ptr, polled_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    x = tl.atomic_load(x_ptr + offsets, mask=offsets < n)
    tl.atomic_store(y_ptr + offsets, x, mask=offsets < n, sem="relaxed")
    tl.store(polled_ptr, tl.atomic_poll(x_ptr, 5, timeout_ns=1000).to(tl.int32))


@has_atomic_loads
def test_atomic_loads_and_stores_are_seen_as_such() -> None:
    x, y = torch.arange(8, dtype=torch.int32), torch.zeros(8, dtype=torch.int32)
    polled, seen = torch.ones(1, dtype=torch.int32), []
    with observe(seen.append):
        atomic_loads_kernel[(1,)](x, y, polled, 6, BLOCK=8)
    assert y.tolist() == [0, 1, 2, 3, 4, 5, 0, 0]
    assert polled.item() == 0, "a wait that has a limit ends"
    facts = [(a.kind, a.atomically, a.synchronises, a.leaves_undefined) for a in seen]
    assert facts[:2] == [("load", True, True, True), ("store", True, False, False)]
    assert set(facts[2:-1]) == {("load", True, True, False)}, "a poll loads until it agrees"
    assert facts[-1] == ("store", False, False, False), "what comes after is plain again"
