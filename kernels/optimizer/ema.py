"""Exponential moving average of a model's parameters in Triton: all tensors in one launch.

Mathematics (core/optimizer/ema.py): average ← decay·average + (1 − decay)·parameter. The kernel
computes average + (1 − decay)·(parameter − average) in float32: one product, and an average that
has reached its parameter stays there, whereas decay and 1 − decay rounded to float32 need not sum
to 1. From 1 − decay = ½ on it starts at the other end, parameter − decay·(parameter − average), so
that decay 0 gives the parameter itself.

Tiling. One launch for all tensors, from a table of their addresses
(kernels/optimizer/tensor_table.py): a program is one block of one tensor. Parameters of several
dtypes take one launch for each dtype.

Memory. Each average is read and written once, each parameter read once: 12 bytes an element in
float32, the fewest there can be. In place, the result's address is the average's: an element is
read before it is written, by the same program.

No autotuning: trials would update the averages again and again. Deterministic: nothing crosses an
element.
"""

from collections.abc import Sequence

import torch

from ...core.checks import refuse
from ...core.optimizer.ema import check_ema
from ..common._triton import tl, triton
from ..common.launch import launch, runs_on_triton
from .sharded import own_parts
from .tensor_table import (
    expect_own_memory,
    find_tensor,
    load_block,
    store_block,
    table_pointer,
    tensor_table,
    triton_dtype,
    write_back,
)

# Elements of one program: 16 a thread.
BLOCK, NUM_WARPS = 4096, 8
# What a row of the table holds.
_RESULT = tl.constexpr(0)
_AVERAGE = tl.constexpr(1)
_PARAMETER = tl.constexpr(2)


@triton.jit
def _average(average, parameter, weight, decay):
    """Return the new average of a block."""
    difference = parameter - average
    from_average = average + difference * weight
    from_parameter = parameter - difference * decay
    return tl.where(weight < 0.5, from_average, from_parameter)


@triton.jit
def _average_block(
    result_ptr, average_ptr, parameter_ptr, left, weight, decay,
    BLOCK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    at = tl.arange(0, BLOCK)
    average = load_block(average_ptr, at, left, WHOLE)
    parameter = load_block(parameter_ptr, at, left, WHOLE)
    store_block(result_ptr, at, _average(average, parameter, weight, decay), left, WHOLE)


@triton.jit
def ema_kernel(table, weight, decay, PARAMETER_DTYPE: tl.constexpr, BLOCK: tl.constexpr):
    """Average one block of one tensor; weight is 1 − decay."""
    block = tl.program_id(0).to(tl.int64)
    row, start, left = find_tensor(table, block, BLOCK)
    result_ptr = table_pointer(row, _RESULT, tl.float32, table.ALIGNED) + start
    average_ptr = table_pointer(row, _AVERAGE, tl.float32, table.ALIGNED) + start
    parameter_ptr = table_pointer(row, _PARAMETER, PARAMETER_DTYPE, table.ALIGNED) + start
    if left >= BLOCK:
        _average_block(result_ptr, average_ptr, parameter_ptr, left, weight, decay, BLOCK, True)
    else:
        _average_block(result_ptr, average_ptr, parameter_ptr, left, weight, decay, BLOCK, False)


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
        table, n_blocks = tensor_table([row for row in triples if row[2].dtype == dtype], BLOCK)
        if table is not None:
            launch(
                ema_kernel,
                (n_blocks,),
                *(table, 1 - decay, decay),
                PARAMETER_DTYPE=triton_dtype(dtype),
                BLOCK=BLOCK,
                num_warps=NUM_WARPS,
            )


def ema(
    averages: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor], decay: float
) -> list[torch.Tensor]:
    """Compute the averages after one more step; the twin of `gptwin.core.optimizer.ema.ema`.

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
        takes a copy there and back. Each rank moves its part of what is sharded.

    Raises
    ------
    ValueError
        As in `ema`, or if two averages start at the same memory: two programs would write it.
    """
    averages, parameters = own_parts(averages), own_parts(parameters)
    on_triton = _runs_on_triton("ema_", averages, parameters, decay)
    expect_own_memory("averages", averages)
    with torch.no_grad():
        if not on_triton:
            for average, parameter in zip(averages, parameters, strict=True):
                average.lerp_(parameter.to(average.dtype), 1 - float(decay))
            return
        contiguous = [average.detach().contiguous() for average in averages]
        ema_forward(
            contiguous, contiguous, [p.detach().contiguous() for p in parameters], float(decay)
        )
        write_back(averages, contiguous)


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
    """Compute the same in plain PyTorch, for the CPU and as a yardstick."""
    with torch.no_grad():
        return [
            torch.lerp(average, parameter.to(average.dtype), 1 - float(decay))
            for average, parameter in zip(averages, parameters, strict=True)
        ]
