"""Exponential moving average of a model's parameters in Triton: all tensors in one launch.

Mathematics (core/ema.py): average ← decay·average + (1 − decay)·parameter. The kernel computes
average + (1 − decay)·(parameter − average) in float32: one product, and an average that has
reached its parameter stays there, whereas decay and 1 − decay rounded to float32 need not sum to 1.
From 1 − decay = ½ on it starts at the other end, parameter − decay·(parameter − average), so that
decay 0 gives the parameter itself.

Tiling. A model has hundreds of tensors, many of them small: a launch for each would be time spent
launching. One launch walks a table, one row a tensor, of addresses and sizes:

    table, int64       result   average  parameter  n_elements  first_block
    tensor 0           0x7f…    0x7f…    0x7f…            768            0       block 0
    tensor 1           0x7f…    0x7f…    0x7f…          38,597          1       blocks 1 to 10
    …

A program is one block of one tensor. It finds its tensor by bisection over first_block (8 steps
for 150 tensors, from the cache), casts the addresses to pointers, and has BLOCK elements to do.
Empty tensors have no row. Parameters of several dtypes take one launch for each dtype.

Memory. Each average is read and written once, each parameter read once: 12 bytes an element in
float32, the fewest there can be. In place, the result's address is the average's: an element is
read before it is written, by the same program. Host: the table is built and copied at every call,
40 bytes a tensor.

No autotuning: trials would update the averages again and again. Deterministic: nothing crosses an
element.
"""

from collections.abc import Sequence

import torch

from ..core.checks import refuse
from ..core.ema import check_ema
from ._triton import tl, triton
from .launch import launch, runs_on_triton

# Elements of one program: 16 a thread.
BLOCK, NUM_WARPS = 4096, 8
# An address divisible by this lets a thread load and store 16 bytes at once.
ALIGNMENT = 16

_TABLE_COLUMNS = tl.constexpr(5)
_RESULT = tl.constexpr(0)
_AVERAGE = tl.constexpr(1)
_PARAMETER = tl.constexpr(2)
_N_ELEMENTS = tl.constexpr(3)
_FIRST_BLOCK = tl.constexpr(4)
_ALIGNMENT = tl.constexpr(ALIGNMENT)


@triton.jit
def _pointer(row, COLUMN: tl.constexpr, dtype: tl.constexpr, ALIGNED: tl.constexpr):
    """Read an address from a row of the table and make it a pointer."""
    pointer = tl.load(row + COLUMN).to(tl.pointer_type(dtype))
    if ALIGNED:
        pointer = tl.multiple_of(pointer, _ALIGNMENT)
    return pointer


@triton.jit
def _average(average, parameter, weight, decay):
    """Return the new average of a block."""
    parameter = parameter.to(tl.float32)
    difference = parameter - average
    from_average = average + difference * weight
    from_parameter = parameter - difference * decay
    return tl.where(weight < 0.5, from_average, from_parameter)


@triton.jit
def ema_kernel(
    table_ptr,  # int64 [tensor, _TABLE_COLUMNS]
    n_tensors,
    n_bisections,  # 2^n_bisections >= n_tensors
    weight,  # 1 − decay
    decay,
    PARAMETER_DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr,  # whether every address is divisible by _ALIGNMENT
    BLOCK: tl.constexpr,
):
    """Average one block of one tensor."""
    block = tl.program_id(0).to(tl.int64)
    # The tensor is in [low, high): first_block[low] <= block, and block < first_block[high].
    low = block * 0
    high = low + n_tensors
    for _ in range(n_bisections):
        middle = (low + high) // 2
        reached = tl.load(table_ptr + middle * _TABLE_COLUMNS + _FIRST_BLOCK) <= block
        low = tl.where(reached, middle, low)
        high = tl.where(reached, high, middle)

    row = table_ptr + low * _TABLE_COLUMNS
    start = (block - tl.load(row + _FIRST_BLOCK)) * BLOCK
    left = tl.load(row + _N_ELEMENTS) - start
    result_ptr = _pointer(row, _RESULT, tl.float32, ALIGNED) + start
    average_ptr = _pointer(row, _AVERAGE, tl.float32, ALIGNED) + start
    parameter_ptr = _pointer(row, _PARAMETER, PARAMETER_DTYPE, ALIGNED) + start
    at = tl.arange(0, BLOCK)
    # A mask whose end is known at run time alone would split the 16-byte accesses.
    if left >= BLOCK:
        average = tl.load(average_ptr + at)
        parameter = tl.load(parameter_ptr + at)
        tl.store(result_ptr + at, _average(average, parameter, weight, decay))
    else:
        inside = at < left
        average = tl.load(average_ptr + at, mask=inside, other=0.0)
        parameter = tl.load(parameter_ptr + at, mask=inside, other=0.0)
        tl.store(result_ptr + at, _average(average, parameter, weight, decay), mask=inside)


def ema_forward(
    results: Sequence[torch.Tensor],
    averages: Sequence[torch.Tensor],
    parameters: Sequence[torch.Tensor],
    decay: float,
) -> None:
    """Launch the kernel, once for each dtype of the parameters.

    Parameters
    ----------
    results : sequence of torch.Tensor
        Written: float32, contiguous; may be the averages themselves.
    averages : sequence of torch.Tensor
        float32, contiguous.
    parameters : sequence of torch.Tensor
        float32, float16 or bfloat16, contiguous.
    decay : float
        As in `ema`.
    """
    triples = list(zip(results, averages, parameters, strict=True))
    for dtype in dict.fromkeys(parameter.dtype for parameter in parameters):
        table, n_blocks, aligned = [], 0, True
        for tensors in triples:
            n = tensors[0].numel()
            if n and tensors[2].dtype == dtype:
                addresses = [tensor.data_ptr() for tensor in tensors]
                aligned = aligned and not any(a % ALIGNMENT for a in addresses)
                table.append([*addresses, n, n_blocks])
                n_blocks += triton.cdiv(n, BLOCK)
        if table:
            launch(
                ema_kernel,
                (n_blocks,),
                torch.tensor(table, dtype=torch.int64, device=parameters[0].device),
                *(len(table), (len(table) - 1).bit_length(), 1 - decay, decay),
                PARAMETER_DTYPE=_triton_dtype(dtype),
                ALIGNED=aligned,
                BLOCK=BLOCK,
                num_warps=NUM_WARPS,
            )


def _triton_dtype(dtype: torch.dtype):
    return {
        torch.float32: tl.float32,
        torch.float16: tl.float16,
        torch.bfloat16: tl.bfloat16,
    }[dtype]


def ema(
    averages: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor], decay: float
) -> list[torch.Tensor]:
    """Compute the averages after one more step; the twin of `gptwin.core.ema.ema`.

    For training, `ema_` does the same in place.

    Parameters
    ----------
    averages : list of torch.Tensor
        The averages so far: float32, any shapes and strides (a strided tensor is copied).
    parameters : list of torch.Tensor
        The parameters now, in the same order and of the same shapes: float32, float16 or bfloat16,
        any mixture, any strides.
    decay : float
        Share of the old average that stays, 0 to 1.

    Returns
    -------
    list of torch.Tensor
        The new averages: new tensors, contiguous, without a gradient.

    Raises
    ------
    ValueError
        If the lists do not match, or a dtype, a device or `decay` is wrong.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    if not _runs_on_triton("ema", averages, parameters, decay):
        return ema_eager(averages, parameters, decay)
    results = [torch.empty(a.shape, dtype=a.dtype, device=a.device) for a in averages]
    old, new = ([t.detach().contiguous() for t in ts] for ts in (averages, parameters))
    ema_forward(results, old, new, float(decay))
    return results


def ema_(
    averages: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor], decay: float
) -> None:
    """Move the averages one step on, in place.

    Parameters
    ----------
    averages : list of torch.Tensor
        Written. As in `ema`; no tensor twice (list tied weights once). One that is not contiguous
        takes a copy there and back.
    parameters, decay
        As in `ema`.

    Raises
    ------
    ValueError
        As in `ema`, or if two averages start at the same memory: two programs would write it.
    RuntimeError
        As in `ema`.
    """
    on_triton = _runs_on_triton("ema_", averages, parameters, decay)
    first: dict[int, int] = {}
    for i, average in enumerate(averages):
        # On the meta device every address is 0.
        if average.numel() and average.data_ptr():
            same = first.setdefault(average.data_ptr(), i)
            if same != i:
                refuse(
                    f"averages[{i}]",
                    "memory of its own",
                    f"that of averages[{same}]",
                    "tied weights listed twice",
                )
    with torch.no_grad():
        if not on_triton:
            for average, new in zip(averages, ema_eager(averages, parameters, decay), strict=True):
                average.copy_(new)
            return
        contiguous = [average.detach().contiguous() for average in averages]
        ema_forward(
            contiguous, contiguous, [p.detach().contiguous() for p in parameters], float(decay)
        )
        for average, new in zip(averages, contiguous, strict=True):
            if average.is_contiguous():
                # Autograd did not see the kernel write.
                torch.autograd.graph.increment_version(average)
            else:
                average.copy_(new)


def _runs_on_triton(
    operation: str,
    averages: Sequence[torch.Tensor],
    parameters: Sequence[torch.Tensor],
    decay: float,
) -> bool:
    """Check the arguments and choose the backend."""
    check_ema(averages, parameters, decay)
    if not averages:
        return False
    named = {f"averages[{i}]": average for i, average in enumerate(averages)}
    named |= {f"parameters[{i}]": parameter for i, parameter in enumerate(parameters)}
    if not runs_on_triton(operation, **named):
        return False
    for i, average in enumerate(averages):
        if average.dtype != torch.float32:
            refuse(
                f"averages[{i}]",
                "dtype float32",
                f"dtype {average.dtype}",
                "an average copied from a half-precision model: small steps would be lost",
            )
    return True


def ema_eager(
    averages: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor], decay: float
) -> list[torch.Tensor]:
    """Compute the same in plain PyTorch, for the CPU and as a yardstick.

    Parameters
    ----------
    averages, parameters, decay
        As in `ema`.

    Returns
    -------
    list of torch.Tensor
        As in `ema`.
    """
    with torch.no_grad():
        return [
            torch.lerp(average, parameter.to(average.dtype), 1 - float(decay))
            for average, parameter in zip(averages, parameters, strict=True)
        ]
