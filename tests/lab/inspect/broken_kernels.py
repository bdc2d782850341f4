"""Twins that `inspect` must fail, one way each: they show that its gate has teeth.

Not tests. `inspect`'s worker processes import this file by name, as they import the real list.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from gptwin.kernels.common._triton import for_architecture
from gptwin.kernels.common.launch import kernel_name, launch
from gptwin.kernels.common.strided import strided
from gptwin.lab.twins.twin import Inputs


@triton.jit
def spilling_kernel(x_ptr, y_ptr, SIZE: tl.constexpr):
    """Keep SIZE x SIZE floats in the registers of a few warps, over a sum that needs them all."""
    at = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    x = tl.load(x_ptr + at).to(tl.float32)
    x = x - tl.sum(x, axis=1)[:, None]
    x = x / tl.sum(x, axis=0)[None, :]
    tl.store(y_ptr + at, x)


@triton.autotune(
    [
        triton.Config({"BLOCK": 32}, num_warps=4, num_stages=2),
        triton.Config({"BLOCK": 128}, num_warps=4, num_stages=9),
    ],
    key=["n"],
)
@triton.jit
def greedy_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    """Multiply a matrix by itself, with many blocks of it in flight; the last asks too much."""
    rows = tl.arange(0, BLOCK)
    sums = tl.zeros([BLOCK, BLOCK], tl.float32)
    for start in range(0, n, BLOCK):
        inner = start + tl.arange(0, BLOCK)
        a = tl.load(x_ptr + rows[:, None] * n + inner[None, :])
        b = tl.load(x_ptr + inner[:, None] * n + rows[None, :])
        sums = tl.dot(a, b, sums)
    tl.store(y_ptr + rows[:, None] * n + rows[None, :], sums.to(y_ptr.dtype.element_ty))


@triton.jit
def wrong_kernel(x_ptr, y_ptr):
    """Do not compile."""
    tl.static_assert(False, "this kernel is wrong")


@triton.jit
def forgotten_kernel(x_ptr, y_ptr):
    """Compile; nobody launches it."""
    tl.store(y_ptr, tl.load(x_ptr))


class Masks(NamedTuple):
    """A flag, and a tensor that may be absent."""

    causal: Any
    start: torch.Tensor | None


@triton.jit
def masked_kernel(x, masks, y, BLOCK: tl.constexpr):
    """Copy a row, without what a mask hides; nothing is wrong with it."""
    at = tl.arange(0, BLOCK)
    row = tl.load(x.ptr + at * x.strides[1])
    if masks.start is not None:
        row = tl.where(at >= tl.load(masks.start), row, 0.0)
    if masks.causal:
        row = tl.where(at < 1, row, 0.0)
    tl.store(y.ptr + at * y.strides[1], row)


@triton.autotune(
    for_architecture([triton.Config({"SIZE": 16}), triton.Config({"SIZE": 32})],
                     sm_90=[triton.Config({"SIZE": 16})]),
    key=[],
)  # fmt: skip
@triton.jit
def shorter_kernel(x_ptr, y_ptr, SIZE: tl.constexpr):
    """Copy a few numbers, in a list that is shorter for sm_90; nothing is wrong with it."""
    at = tl.arange(0, SIZE)
    tl.store(y_ptr + at, tl.load(x_ptr + at))


def _mask(x: torch.Tensor, y: torch.Tensor) -> None:
    start = torch.empty(1, dtype=torch.int32, device=x.device)
    for masks in (Masks(tl.constexpr(True), None), Masks(tl.constexpr(False), start)):
        launch(masked_kernel, (1,), strided(x), masks, strided(y), BLOCK=32)


@dataclasses.dataclass(frozen=True)
class BrokenTwin:
    """As much of a `Twin` as `inspect` looks at."""

    name: str
    owned: tuple[Any, ...]
    start: Callable[[torch.Tensor, torch.Tensor], None]
    dtypes: tuple[str, ...] = ("bfloat16",)
    shapes: dict[str, Any] = dataclasses.field(default_factory=lambda: {"square": {"n": 4096}})

    def kernels(self) -> dict[str, Any]:
        return {kernel_name(kernel): kernel for kernel in self.owned}

    def inputs(self, case: dict[str, Any], draw: Any) -> Inputs:
        return Inputs({"x": draw.normal(case["n"], case["n"])})

    def kernel(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        self.start(x, y)
        return y


def _spill(x: torch.Tensor, y: torch.Tensor) -> None:
    # AMD gives one wave up to 512 registers a lane, unless four waves are to share them.
    on_amd = triton.runtime.driver.active.get_current_target().backend == "hip"
    options = {"waves_per_eu": 4} if on_amd else {}
    launch(spilling_kernel, (1,), x, y, SIZE=128, num_warps=1, **options)


TWINS = {
    twin.name: twin
    for twin in (
        BrokenTwin("spilling", (spilling_kernel,), _spill),
        BrokenTwin(
            "greedy",
            (greedy_kernel,),
            lambda x, y: launch(greedy_kernel, (1,), x, y, x.shape[0]),
        ),
        BrokenTwin("masked", (masked_kernel,), _mask),
        BrokenTwin("shorter", (shorter_kernel,), lambda x, y: launch(shorter_kernel, (1,), x, y)),
        BrokenTwin("wrong", (wrong_kernel,), lambda x, y: launch(wrong_kernel, (1,), x, y)),
        BrokenTwin(
            "forgetful",
            (forgotten_kernel, spilling_kernel),
            lambda x, y: launch(spilling_kernel, (1,), x, y, SIZE=16),
        ),
    )
}
