"""Compile every twin at huge sizes, and print what `Reader` finds; test_offsets.py runs this.

It is a program of its own since a process that uses the interpreter cannot compile.
"""

import json
from collections.abc import Iterator
from typing import Any

from reader import LIMIT, Reader

# What a case calls its outermost size.
OUTERMOST = ("shape", "rows", "batch", "prompts", "tokens", "shapes")


def enlarge(case: dict[str, Any], factor: int) -> dict[str, Any]:
    """Scale a case's outermost size."""
    for key in OUTERMOST:
        if key in case:
            return {**case, key: _scaled(case[key], factor)}
    raise KeyError(f"no outermost size in {case}: add its name to OUTERMOST in offsets/program.py")


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
