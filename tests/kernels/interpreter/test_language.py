"""The language during a launch: patched and restored, strict, and able to say what went wrong."""

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter as upstream
from triton.runtime.errors import InterpreterError

from gptwin.kernels.interpreter import install, observe


@triton.jit
def check_positive(x):
    tl.device_assert(x > 0, "not positive")
    return x


@triton.jit
def assert_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, BLOCK))
    tl.store(y_ptr + tl.arange(0, BLOCK), check_positive(x))


@triton.jit
def logical_kernel(x_ptr, y_ptr, FLAG: tl.constexpr, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, BLOCK))
    both = x > 1 and x < 5 and FLAG
    either = (x < 2 or x > 6) or not FLAG
    tl.store(y_ptr + tl.arange(0, BLOCK), tl.where(both, 1, 0) + tl.where(either, 2, 0))
    if FLAG and tl.program_id(0) == 0 and BLOCK:
        tl.store(y_ptr, 9)


@triton.jit
def truth_kernel(x_ptr, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, BLOCK))
    if x > 0:
        tl.store(x_ptr, 1)


@triton.jit
def square(x):
    return x * x


@triton.jit
def square_twice(x):
    return square(square(x))


@triton.jit
def nested_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    tl.store(y_ptr + offsets, square_twice(tl.load(x_ptr + offsets)) + square(2.0))


def language_state() -> dict[str, object]:
    owners = (tl, tl.core, tl.math, tl.tensor, tl.dtype, tl.core.tensor_descriptor_base)
    return {
        f"{owner}.{name}": value
        for owner in owners
        for name, value in vars(owner).items()
        if name != "__annotations__"  # Python makes them when they are first asked for
    }


def test_language_is_patched_during_a_launch_and_restored_after():
    before = language_state()
    x, y = torch.full((8,), 2.0), torch.zeros(8)
    nested_kernel[(1,)](x, y, BLOCK=8)
    assert y.tolist() == [20.0] * 8
    assert language_state() == before
    with pytest.raises(InterpreterError):
        assert_kernel[(1,)](-x, y, BLOCK=8)
    assert language_state() == before
    with pytest.raises(TypeError):
        nested_kernel[(1,)](x, y, WRONG=8)
    assert language_state() == before
    during = []
    with observe(lambda access: during.append(language_state() != before)):
        nested_kernel[(1,)](x, y, BLOCK=8)
    assert during == [True, True]


def test_install_twice_is_harmless():
    before = {**vars(upstream.InterpreterBuilder), **vars(upstream)}
    install()
    assert {**vars(upstream.InterpreterBuilder), **vars(upstream)} == before


def test_missing_internals_are_named(monkeypatch):
    monkeypatch.delattr(upstream.InterpreterBuilder, "create_masked_load")
    with pytest.raises(RuntimeError, match=f"Triton {triton.__version__}.*create_masked_load"):
        install.__wrapped__()


def test_non_contiguous_arguments_are_written_in_place():
    x, storage = torch.arange(8.0), torch.zeros(4, 8)
    nested_kernel[(1,)](x, storage[2], BLOCK=8)
    assert storage.tolist() == [[0.0] * 8, [0.0] * 8, (x**4 + 4).tolist(), [0.0] * 8]


def test_and_or_work_lane_by_lane():
    x, y = torch.arange(8), torch.zeros(8, dtype=torch.int32)
    logical_kernel[(1,)](x, y, FLAG=True, BLOCK=8)
    assert y.tolist() == [9, 2, 1, 1, 1, 0, 0, 2]
    logical_kernel[(1,)](x, y, FLAG=False, BLOCK=8)
    assert y.tolist() == [2] * 8


def test_a_block_has_no_truth_value():
    with pytest.raises(InterpreterError, match="truth value"):
        truth_kernel[(1,)](torch.ones(8), BLOCK=8)
    x = torch.full((1,), 3.0)
    truth_kernel[(1,)](x, BLOCK=1)
    assert x.item() == 1


def test_device_assert_raises_and_says_where():
    x, y = torch.ones(8), torch.zeros(8)
    assert_kernel[(1,)](x, y, BLOCK=8)
    assert y.equal(x)
    x[3] = -1
    with pytest.raises(InterpreterError, match="not positive") as caught:
        assert_kernel[(1,)](x, y, BLOCK=8)
    assert "kernel assert_kernel, program (0, 0, 0), at " + __file__ in str(caught.value)


SCALE = tl.constexpr(0.5)
SEVEN = tl.constexpr(7)


@triton.jit
def sigmoid_of_twice(x):
    return tl.sigmoid(2 * x)


@triton.jit
def constants_kernel(x_ptr, y_ptr, z_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    y = sigmoid_of_twice(SCALE * (x + 1)) + SCALE / (SCALE - x * 4)
    tl.store(y_ptr + at, tl.where(SEVEN < at, y, SEVEN + y))  # noqa: SIM300 (this way round)
    tl.store(z_ptr + at, (SEVEN - at) * (SEVEN % (at + 1)) + (SEVEN & at) + (SEVEN // (at + 1)))


def test_a_constant_of_the_module_computes_with_blocks_from_the_left():
    """lightllm's GELU: the product was a constant again, and `tl.sigmoid` did not take it."""
    x, y, z = torch.linspace(-2, 2, 16), torch.empty(16), torch.empty(16, dtype=torch.int32)
    constants_kernel[(1,)](x, y, z, BLOCK=16)
    at = torch.arange(16, dtype=torch.int32)
    expected = torch.sigmoid(x + 1) + 0.5 / (0.5 - x * 4)
    torch.testing.assert_close(y, torch.where(at > 7, expected, 7 + expected))
    assert z.equal((7 - at) * (7 % (at + 1)) + (7 & at) + 7 // (at + 1))
    assert (SEVEN + 1).value == 8 and SEVEN < 8, "constants alone give constants"


@triton.jit
def python_assert_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    assert BLOCK > 4
    x = tl.load(x_ptr + tl.arange(0, BLOCK))
    assert x >= 0 and x < 9, "no such class"
    tl.store(y_ptr + tl.arange(0, BLOCK), x)


def test_an_assertion_of_python_is_of_every_lane():
    """FlagGems asserts its targets so: compiled, that is tl.device_assert."""
    x, y = torch.arange(8), torch.empty(8, dtype=torch.int64)
    python_assert_kernel[(1,)](x, y, BLOCK=8)
    assert y.equal(x)
    with pytest.raises(InterpreterError, match="no such class"):
        python_assert_kernel[(1,)](x + 2, y, BLOCK=8)
    with pytest.raises(InterpreterError, match="AssertionError"):
        python_assert_kernel[(1,)](x, y, BLOCK=4)


@triton.jit
def least_of(dtype):
    known = dtype.value
    if known.is_floating():
        return float("-inf")
    return 0


@triton.jit
def least_kernel(x_ptr, y_ptr):
    dtype = x_ptr.dtype.element_ty
    tl.store(y_ptr, least_of(dtype))


def test_a_type_that_is_handed_on_has_a_value():
    """FlagGems asks for a type's limits so."""
    y = torch.empty(1)
    least_kernel[(1,)](torch.empty(1), y)
    assert y.item() == -torch.inf
