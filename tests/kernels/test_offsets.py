"""Offsets beyond 2³¹ elements, checked in the compiler's own code: no memory is allocated.

Each twin's named shapes are scaled until a tensor has more than 2³¹ elements, and compiled on the
meta device. In the Triton IR (TTIR) of every kernel and configuration, whatever feeds a pointer
offset is followed back to where it comes from. Which 32-bit multiplications may stand there?

1. An argument (a stride, a size) times anything: none. A stride is as long as the tensor makes it,
   so `row * stride` must be 64-bit, and so must `BLOCK * stride`, however small BLOCK is.
2. Two values known only at run time, such as a program's index times a count: none, likewise.
3. A run-time value times a compile-time constant, `program_id * BLOCK`: this is the trap. It is
   right where it counts rows, of which there are fewer than 2³¹, and wrong where it counts
   elements, of which there are more: both look the same. So its largest value is computed, from
   the grid and the arguments of this very launch, and must be below 2³¹. It is not enough that
   the product is extended to 64 bits afterwards: `(pid * BLOCK).to(int64)` has overflowed by then.
4. Constants alone (`arange(0, 64) * 64`): these are bounded the same way.

Cutting a 64-bit value down to 32 bits is held to rule 3 as well. Triton IR has no memory of what
the source said, so this also catches what a reader would miss: a product that was 64-bit in one
file and is passed to a helper that is not.
"""

import dataclasses
import functools
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

LIMIT = 2**31
# What a case calls its outermost size.
OUTERMOST = ("shape", "rows", "batch", "prompts", "tokens", "shapes")
# Kernels that no tensor of more than 2^31 elements ever reaches in an operation, and why.
NEVER_HUGE = {
    ("layer_norm", "column_sum_kernel"): "adds up one row of partial sums for each program",
    ("whiten", "column_sum_kernel"): "adds up one row of partial sums for each program",
    ("whiten", "whiten_statistics_kernel"): "turns a handful of sums into a mean and a variance",
    ("ppo_loss", "ppo_loss_statistics_kernel"): "adds up a column of partial sums for each block",
    ("linear_ppo_loss", "ppo_loss_statistics_kernel"): "as in ppo_loss",
    ("reward_loss", "reward_loss_totals_kernel"): "adds up one row of partial sums a program",
    ("linear_ppo_loss", "token_scores_merge_kernel"): "is given four numbers a token and span",
    ("cross_entropy", "token_scores_merge_kernel"): "is given four numbers a token and span",
    ("linear_ppo_loss", "ppo_loss_kernel"): "its tensors hold one number a token",
    ("linear_ppo_loss", "ppo_loss_scale_kernel"): "its tensors hold one number a token",
    ("decode_attention", "decode_attention_combine_kernel"): "so many caches are not split",
    ("qkv_projection", "column_sum_kernel"): "adds up one row of partial sums for each program",
    ("qkv_attention", "column_sum_kernel"): "as in qkv_projection",
    ("ema", "ema_kernel"): "is given a table of addresses, not the tensors",
    ("adamw", "adamw_kernel"): "is given a table of addresses, not the tensors",
    ("adamw", "gradient_squares_kernel"): "is given a table of addresses, not the tensors",
    ("adamw", "gradient_norm_kernel"): "adds up one number a block",
}


# --- reading the Triton IR -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Value:
    """What is known of one value in the IR.

    `bound` is the largest magnitude of its elements; `argument` says that it is a kernel argument
    (perhaps extended or broadcast), `constant` that the compiler knew it; `faults` are the
    forbidden multiplications among its ancestors.
    """

    bound: float = math.inf
    argument: bool = False
    constant: bool = False
    faults: frozenset[str] = frozenset()


ASSIGNMENT = re.compile(r"^\s*(?:(%[\w.]+)(?::\d+)?(?:, %[\w.]+)* = )?\"?([\w.]+)\"?(.*)$")
ARGUMENT = re.compile(r"%([\w.]+): (!?[\w.<>]+)(?: \{[^}]*\})?(?: loc\(\"([\w.]+)\")?")
SAME_VALUE = (
    "arith.extsi", "arith.extui", "arith.index_cast", "tt.splat", "tt.broadcast",
    "tt.expand_dims", "tt.reshape", "tt.trans", "tt.unsplat", "ttg.convert_layout",
)  # fmt: skip


class Reader:
    """Follow every value of one kernel's TTIR, in order, and collect what goes wrong.

    Parameters
    ----------
    ttir : str
        The kernel's IR.
    arguments : dict
        Argument name to value; only the integers are looked at. Within a tuple the name is the
        compiler's: "x.strides.0".
    grid : tuple of int
        Of the launch.
    """

    def __init__(self, ttir: str, arguments: dict[str, Any], grid: tuple[int, ...]) -> None:
        self.arguments = arguments
        self.grid = (*grid, 1, 1)
        self.places = dict(re.findall(r"^(#loc\d*) = loc\((.*)\)$", ttir, re.MULTILINE))
        self.faults: set[str] = set()
        self.offsets = 0
        # A loop carries values around: what its end yields is known only the second time.
        self.yielded: dict[int, frozenset[str]] = {}
        for _ in range(2):
            self.scopes: list[dict[str, Value]] = [{}]
            self.headers: list[int] = []
            self.offsets = 0
            for number, line in enumerate(ttir.splitlines()):
                if not line.startswith("#"):
                    self.read_line(number, line)

    def look_up(self, name: str) -> Value:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return Value()

    def read_line(self, number: int, line: str) -> None:
        code = re.sub(r" loc\([^)]*\)+(?= \{$|$)", "", line)
        if code.strip().startswith("}"):
            self.scopes.pop()
            self.headers.pop()
        opens = code.rstrip().endswith("{")
        match = ASSIGNMENT.match(code)
        if match and not code.strip().startswith(("}", "^")):
            result, operation, rest = match.groups()
            if operation == "tt.func":
                self.scopes[0] = self.read_arguments(line)
            elif opens:
                self.open_region(number, result, operation, rest)
                return
            else:
                value = self.evaluate(number, line, operation, rest)
                if result:
                    self.scopes[-1][result] = value
        if opens:
            self.headers.append(number)
            self.scopes.append({})

    def read_arguments(self, line: str) -> dict[str, Value]:
        values = {}
        for name, kind, known_as in ARGUMENT.findall(line):
            given = self.arguments.get(known_as or name)
            bound = abs(given) if isinstance(given, int) else math.inf
            values[f"%{name}"] = Value(bound, argument=not kind.startswith("!tt.ptr"))
        return values

    def open_region(self, number: int, result: str | None, operation: str, rest: str) -> None:
        """Enter a loop or a branch, with what comes in and what its end yields."""
        inputs = [self.look_up(name) for name in re.findall(r"%[\w.]+", rest)]
        carried = self.yielded.get(number, frozenset()).union(*(v.faults for v in inputs))
        if result:
            self.scopes[-1][result] = Value(LIMIT - 1, faults=carried)
        self.headers.append(number)
        self.scopes.append({})
        loop = re.match(r" (?:unsigned )?(%[\w.]+) = (%[\w.]+) to (%[\w.]+) step (%[\w.]+)", rest)
        if operation == "scf.for" and loop:
            index, start, stop, _ = loop.groups()
            ends = [self.look_up(start), self.look_up(stop)]
            faults = ends[0].faults | ends[1].faults
            self.scopes[-1][index] = Value(max(v.bound for v in ends), faults=faults)
            for name, initial in re.findall(r"(%[\w.]+) = (%[\w.]+)[,)]", rest):
                faults = carried | self.look_up(initial).faults
                self.scopes[-1][name] = Value(LIMIT - 1, faults=faults)

    def evaluate(self, number: int, line: str, operation: str, rest: str) -> Value:
        inputs = [self.look_up(name) for name in re.findall(r"%[\w.]+", rest)]
        faults = frozenset[str]().union(*(value.faults for value in inputs))
        if operation in ("tt.addptr", "tt.make_tensor_descriptor") or "descriptor_" in operation:
            self.offsets += 1
            self.faults |= faults
            return Value()  # what is wrong with a pointer has been said here
        if operation == "scf.yield":
            # Through a branch to the loop around it.
            for header in self.headers:
                self.yielded[header] = self.yielded.get(header, frozenset()) | faults
            return Value()

        wide = re.search(r"i64>?\s*$", rest.split(" : ")[-1]) is not None
        value = dataclasses.replace(self.arithmetic(operation, rest, inputs), faults=faults)
        why = "" if wide else self.objection(operation, value, inputs)
        if why:
            place = f"{self.place(line)}: 32-bit {operation.removeprefix('arith.')} {why}"
            value = dataclasses.replace(value, faults=faults | {place})
        return value

    def objection(self, operation: str, value: Value, inputs: list[Value]) -> str:
        """Say which of the rules at the top a 32-bit operation breaks."""
        if operation in ("arith.muli", "arith.shli"):
            if any(operand.argument for operand in inputs):
                return "of an argument"
            if not any(operand.constant for operand in inputs):
                return "of two run-time values"
        elif operation != "arith.trunci":
            return ""
        return f"up to {value.bound:,}" if value.bound >= LIMIT else ""

    def arithmetic(self, operation: str, rest: str, inputs: list[Value]) -> Value:
        """Bound an operation's result by what goes into it."""
        bounds = [value.bound for value in inputs]
        known = bool(inputs) and all(value.constant for value in inputs)
        if operation == "arith.constant":
            number = re.match(r" (?:dense<)?(-?\d+)>? :", rest)
            return Value(abs(int(number[1])) if number else 1, constant=True)
        if operation == "tt.make_range":
            end = re.search(r"end = (\d+)", rest)
            assert end is not None
            return Value(int(end[1]) - 1, constant=True)
        if operation in ("tt.get_program_id", "tt.get_num_programs"):
            programs = self.grid["xyz".index(rest.split()[0])]
            return Value(programs - (operation == "tt.get_program_id"))
        if operation in SAME_VALUE:
            return dataclasses.replace(inputs[0], constant=known)
        if operation == "arith.cmpi":
            return Value(1)
        if operation in ("arith.addi", "arith.subi"):
            return Value(sum(bounds), constant=known)
        if operation == "arith.muli":
            return Value(math.prod(bounds) if 0 not in bounds else 0, constant=known)
        if operation == "arith.shli":
            return Value(bounds[0] * 2.0 ** bounds[1], constant=known)
        if operation in ("arith.divsi", "arith.divui"):
            by = max(bounds[1], 1) if inputs[1].constant else 1
            return Value(bounds[0] // by if bounds[0] < math.inf else math.inf, constant=known)
        if operation in ("arith.remsi", "arith.remui"):
            return Value(min(bounds), constant=known)
        if operation in ("arith.minsi", "arith.maxsi", "arith.minui", "arith.maxui"):
            return Value(max(bounds), constant=known)
        if operation == "arith.select":
            return Value(max(bounds[1:]), constant=known)
        if operation == "arith.trunci":
            return Value(bounds[0], constant=known)
        return Value(LIMIT - 1 if "i32" in rest.split(" : ")[-1] else math.inf)

    def place(self, line: str) -> str:
        """Find the line of source that a line of IR came from."""
        found = re.search(r"loc\((#loc\d*)\)\s*$", line)
        text = found[1] if found else ""
        for _ in range(8):
            if source := re.search(r'([\w.]+)":(\d+):\d+', text):
                return f"{source[1]}:{source[2]}"
            inner = re.search(r"#loc\d*", text)
            if inner is None:
                break
            text = self.places.get(inner[0], "")
        return "(unknown line)"


# --- compiling, in a process of its own ----------------------------------------------------------


def enlarge(case: dict[str, Any], factor: int) -> dict[str, Any]:
    """Scale a case's outermost size."""
    for key in OUTERMOST:
        if key in case:
            return {**case, key: _scaled(case[key], factor)}
    raise KeyError(f"no outermost size in {case}: add its name to OUTERMOST in test_offsets.py")


def _scaled(size: Any, factor: int) -> Any:
    """Scale a size, or the first of a list of sizes, or of a list of shapes."""
    if isinstance(size, list):
        return [_scaled(size[0], factor), *size[1:]]
    return size * factor


def huge_cases(twin: Any) -> Iterator[dict[str, Any]]:
    """Scale each named shape until its largest argument has more than 2³¹ elements."""
    import torch

    from gptwin.lab.twins.draw import ShapesAlone

    for case in twin.shapes.values():

        def largest(case: dict[str, Any]) -> int:
            inputs = twin.inputs(case, ShapesAlone(torch.bfloat16))
            arguments = (*inputs.tensors.values(), *inputs.options.values())
            return max(a.numel() for a in arguments if isinstance(a, torch.Tensor))

        case = enlarge(case, LIMIT // largest(case) + 1)
        while largest(case) <= LIMIT:  # what was largest does not grow with this size
            case = enlarge(case, 2)
        yield case


def leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Name what a kernel is given as the compiler does, within tuples as well."""
    if not isinstance(value, tuple):
        yield name, value
        return
    for part, inner in zip(getattr(value, "_fields", range(len(value))), value, strict=True):
        yield from leaves(f"{name}.{part}", inner)


class Watched:
    """Stand where kernels are compiled, and read the TTIR of each with its arguments and grid."""

    def __init__(self) -> None:
        self.faults: set[str] = set()
        self.huge: set[str] = set()  # kernels that were given a tensor of more than 2^31 elements
        self.read_before: set[tuple[Any, ...]] = set()

    def __enter__(self) -> "Watched":
        from triton.runtime.jit import JITFunction

        self.warmup = JITFunction.warmup

        def warmup(function: Any, *args: Any, grid: Any, **constants: Any) -> Any:
            compiled = self.warmup(function, *args, grid=grid, **constants)
            self.read(function, args, grid(constants) if callable(grid) else grid, compiled)
            return compiled

        JITFunction.warmup = warmup
        return self

    def __exit__(self, *exception: object) -> None:
        from triton.runtime.jit import JITFunction

        JITFunction.warmup = self.warmup

    def read(self, function: Any, args: tuple[Any, ...], grid: Any, compiled: Any) -> None:
        named = zip(function.arg_names, args, strict=False)
        arguments = dict(leaf for name, value in named for leaf in leaves(name, value))
        key = (function.__name__, compiled.metadata.hash, tuple(grid))
        if key in self.read_before:  # a loop over chunks launches the same again and again
            return
        self.read_before.add(key)
        reader = Reader(compiled.asm["ttir"], arguments, tuple(grid))
        assert reader.offsets > 0, f"no pointer offset was found in {function.__name__}"
        self.faults |= {f"{function.__name__}: {fault}" for fault in reader.faults}
        sizes = [value.numel() for value in arguments.values() if hasattr(value, "numel")]
        if max(sizes) > LIMIT:
            self.huge.add(function.__name__)


def stop_at_triton_ir() -> None:
    """Let the compiler stop at the Triton IR, for the rest takes nine tenths of its time.

    What it makes is no kernel, so this process needs a cache of its own.
    """
    from triton.backends.nvidia.compiler import CUDABackend

    add_stages = CUDABackend.add_stages

    def first_stage_alone(backend: Any, stages: dict[str, Any], *options: Any) -> None:
        add_stages(backend, stages, *options)
        for stage in stages.keys() - {"ttir"}:
            stages[stage] = nothing

    def nothing(module: Any, metadata: dict[str, Any]) -> bytes:
        metadata.update(name="", shared=0)
        return b""

    CUDABackend.add_stages = first_stage_alone


def check_twins() -> dict[str, Any]:
    """Check every twin; return its faults, and which of its kernels were given a huge tensor."""
    from gptwin.lab.inspect.inspect import compile_case
    from gptwin.lab.twins.catalogue import TWINS

    findings = {}
    for twin in TWINS.values():
        dtype = "bfloat16" if "bfloat16" in twin.dtypes else twin.dtypes[0]
        with Watched() as watched:
            try:
                for case in huge_cases(twin):
                    compile_case(twin, case, dtype, [])
            except Exception as error:
                watched.faults.add(f"{type(error).__name__}: {error}")
        findings[twin.name] = {"faults": sorted(watched.faults), "huge": sorted(watched.huge)}
    return findings


def check_examples() -> dict[str, Any]:
    """Check kernels that are wrong, and two that are right, to show that this file sees it."""
    import torch
    import triton
    import triton.language as tl

    from gptwin.kernels.common.strided import block_at, strided

    @triton.jit
    def row_times_stride(x_ptr, stride, n, BLOCK: tl.constexpr):
        at = tl.program_id(0) * stride + tl.arange(0, BLOCK)
        tl.store(x_ptr + at, 0.0, mask=tl.arange(0, BLOCK) < n)

    @triton.jit
    def row_times_stride_in_a_tuple(x, stride, n, BLOCK: tl.constexpr):
        at = tl.program_id(0) * x.strides[0] + tl.arange(0, BLOCK)
        tl.store(x.ptr + at, 0.0, mask=tl.arange(0, BLOCK) < n)

    @triton.jit
    def extended_too_late(x_ptr, stride, n, BLOCK: tl.constexpr):
        at = (tl.program_id(0) * BLOCK).to(tl.int64) + tl.arange(0, BLOCK)
        tl.store(x_ptr + at, 0.0, mask=at < n)

    @triton.jit
    def carried_around_a_loop(x_ptr, stride, n, BLOCK: tl.constexpr):
        at = tl.arange(0, BLOCK)
        step = stride * BLOCK
        for _ in range(0, n):
            tl.store(x_ptr + at, 0.0)
            at += step

    @triton.jit
    def cut_down(x_ptr, stride, n, BLOCK: tl.constexpr):
        at = (tl.program_id(0).to(tl.int64) * BLOCK).to(tl.int32) + tl.arange(0, BLOCK)
        tl.store(x_ptr + at, 0.0)

    @triton.jit
    def elements_in_64_bits(x_ptr, stride, n, BLOCK: tl.constexpr):
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        tl.store(x_ptr + at, 0.0, mask=at < n)

    @triton.jit
    def rows_in_32_bits(x_ptr, stride, n, BLOCK: tl.constexpr):
        # A row's number is small: 64 programs to each group of 16 rows.
        rows = tl.program_id(0) // 64 * 16 + tl.arange(0, 16)
        at = rows.to(tl.int64)[:, None] * stride + tl.arange(0, BLOCK)[None, :]
        tl.store(x_ptr + at, 0.0)

    @triton.jit
    def block_of_a_tuple(x, stride, n, BLOCK: tl.constexpr):
        rows = tl.program_id(0) // 64 * 16 + tl.arange(0, 16)
        tl.store(block_at(x, rows, tl.arange(0, BLOCK)), 0.0)

    # 4.3e9 elements: 4 million rows of 1,024.
    x = torch.empty(2**22, 1024, dtype=torch.bfloat16, device="meta")
    findings = {}
    for kernel in (
        row_times_stride, row_times_stride_in_a_tuple, extended_too_late, carried_around_a_loop,
        cut_down, elements_in_64_bits, rows_in_32_bits, block_of_a_tuple,
    ):  # fmt: skip
        with Watched() as watched:
            given = strided(x) if "tuple" in kernel.__name__ else x
            kernel.warmup(given, 1040, x.numel(), BLOCK=1024, grid=(2**22,))
        findings[kernel.__name__] = sorted(watched.faults)
    return findings


if __name__ == "__main__":
    from gptwin.lab.inspect.targets import compile_for

    compile_for("sm_90")
    stop_at_triton_ir()
    print(json.dumps({"twins": check_twins(), "examples": check_examples()}))
    raise SystemExit


# --- the tests -----------------------------------------------------------------------------------

from gptwin.lab.twins.catalogue import TWINS  # noqa: E402  # above, the kernels must not be imported yet

pytestmark = pytest.mark.xdist_group("offsets")


@functools.cache
def findings() -> dict[str, Any]:
    """Run this file as a program: a process that uses the interpreter cannot compile."""
    with tempfile.TemporaryDirectory() as cache:
        compiles = {"TRITON_INTERPRET": "0", "GPTWIN_BACKEND": "", "TRITON_CACHE_DIR": cache}
        done = subprocess.run(
            [sys.executable, __file__],
            env={**os.environ, **compiles},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", TWINS)
def test_no_offset_is_computed_in_32_bits(name: str) -> None:
    found = findings()["twins"][name]
    assert not found["faults"], "\n".join(found["faults"])
    # A kernel that no huge tensor reached has not been checked.
    never = {kernel for operation, kernel in NEVER_HUGE if operation == name}
    assert set(found["huge"]) == set(TWINS[name].kernels()) - never


@pytest.mark.parametrize(
    ("kernel", "fault"),
    [
        ("row_times_stride", "muli of an argument"),
        ("row_times_stride_in_a_tuple", "muli of an argument"),
        ("extended_too_late", "muli up to 4,294,966,272"),
        ("carried_around_a_loop", "muli of an argument"),
        ("cut_down", "trunci up to 4,294,966,272"),
    ],
)
def test_a_wrong_kernel_is_caught(kernel: str, fault: str) -> None:
    (found,) = findings()["examples"][kernel]
    # Not this file's name: Triton's cache may hold the kernel from a copy of it.
    assert re.search(r"\w\.py:\d+: 32-bit ", found) and fault in found


@pytest.mark.parametrize("kernel", ["elements_in_64_bits", "rows_in_32_bits", "block_of_a_tuple"])
def test_a_right_kernel_passes(kernel: str) -> None:
    assert findings()["examples"][kernel] == []
