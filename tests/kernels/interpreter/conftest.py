"""What the interpreter's tests share. On a GPU, where kernels are compiled, they are skipped."""

import os

import pytest
import torch
import triton
import triton.language as tl

from gptwin.kernels import interpreter

# About the interpreter itself, or about what it sees and compiled code does not.
NOT_COMPILED = (
    "test_language_is_patched_during_a_launch_and_restored_after", "test_install_twice_is_harmless",
    "test_a_block_has_no_truth_value", "test_device_assert_raises_and_says_where",
    "test_int32_overflow_raises", "test_a_missing_function_is_named_with_its_line", "observe",
    "launches", "test_turns", "test_events", "test_a_product_with_a_loops_variable_overflows",
    "test_missing_internals_are_named", "test_every_symbol", "test_a_real_function",
    "test_functions_of_several_arguments", "test_inverses_undo", "test_edges", "test_directed",
    "test_roundings_of_edges", "test_libdevice.py::test_integers", "test_wide_integers",
    # Compiled loops go downwards by constants alone, on a GPU too.
    "test_a_quotient_of_a_loops_variable_is_cut_off",
    # Compiled, such a step wraps and the loop never ends, on a GPU too.
    "test_the_step_after_the_last_turn_overflows",
    # What Python's assert and a type's value are in compiled code is Triton's.
    "test_an_assertion_of_python", "test_a_type_that_is_handed_on",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where kernels are compiled for the CPU, skip what holds for the interpreter alone."""
    if os.environ.get("GPTWIN_TESTS_ON") != "native":
        return
    for item in items:
        if any(name in item.nodeid for name in NOT_COMPILED):
            item.add_marker(pytest.mark.skip(reason="about the interpreter itself"))


@pytest.fixture(scope="session", autouse=True)
def installed():
    if os.environ.get("GPTWIN_TESTS_ON") == "native":
        return  # what the language means holds for both
    if torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("these tests are about Triton's CPU interpreter")
    interpreter.install()


@triton.jit
def cast_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n, other=0)
    tl.store(y_ptr + offsets, x.to(y_ptr.dtype.element_ty), mask=offsets < n)


@pytest.fixture(scope="session")
def cast():
    """Convert `x` to `dtype` in a kernel."""

    def convert(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        y = torch.full(x.shape, 77, dtype=dtype)
        cast_kernel[(triton.cdiv(x.numel(), 4096),)](x, y, x.numel(), BLOCK=4096)
        return y

    return convert


@triton.jit
def binary_kernel(x_ptr, y_ptr, z_ptr, n, OP: tl.constexpr, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n, other=0.0)
    y = tl.load(y_ptr + offsets, mask=offsets < n, other=0.0)
    if OP == "add":
        z = x + y
    elif OP == "sub":
        z = x - y
    elif OP == "mul":
        z = x * y
    elif OP == "div":
        z = (x / y).to(x.dtype)
    elif OP == "min":
        z = tl.minimum(x, y)
    elif OP == "max":
        z = tl.maximum(x, y)
    elif OP == "min_nan":
        z = tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL)
    elif OP == "max_nan":
        z = tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)
    elif OP == "lt":
        z = x < y
    elif OP == "le":
        z = x <= y
    elif OP == "gt":
        z = x > y
    elif OP == "ge":
        z = x >= y
    elif OP == "eq":
        z = x == y
    elif OP == "ne":
        z = x != y
    elif OP == "where":
        z = tl.where((x < y) & (x == x), x, y)
    elif OP == "fma":
        z = tl.fma(x, y, x)
    elif OP == "neg":
        z = -x
    elif OP == "abs":
        z = tl.abs(x)
    elif OP == "clamp":
        z = tl.clamp(x, -1.5, 2.0)
    elif OP == "constant":
        z = x * 0.1 + tl.full((BLOCK,), 0.3, x.dtype)
    tl.store(z_ptr + offsets, z, mask=offsets < n)


@pytest.fixture(scope="session")
def binary():
    """Compute `x op y` in a kernel."""

    def compute(op: str, x: torch.Tensor, y: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        z = torch.full(x.shape, 77, dtype=dtype)
        binary_kernel[(triton.cdiv(x.numel(), 4096),)](x, y, z, x.numel(), OP=op, BLOCK=4096)
        return z

    return compute


@pytest.fixture(scope="session")
def same():
    """Require equal bits, but let any NaN stand for any other."""

    def require(result: torch.Tensor, expected: torch.Tensor) -> None:
        assert result.dtype == expected.dtype
        if not expected.dtype.is_floating_point:
            assert torch.equal(result, expected)
            return
        bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[expected.itemsize]
        wrong = (result.view(bits) != expected.view(bits)) & ~(result.isnan() & expected.isnan())
        assert not wrong.any(), f"{wrong.sum()} differ: {result[wrong][:5]}, {expected[wrong][:5]}"

    return require
