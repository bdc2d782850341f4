"""The kernels of AdamW: all tensors of a model in one launch, clipped by their global norm.

Mathematics (core/optimizer/adamw.py): g ← c·g; m ← β₁m + (1 − β₁)g; v ← β₂v + (1 − β₂)g²;
θ ← θ − lr·λ·θ − step_size · m / (√v · root_correction + ε), all of it in float32. The bias
corrections, and in TensorFlow's convention ε, are computed in float64 on the host.

Tiling. One launch for all tensors, from a table of their addresses
(kernels/optimizer/tensor_table.py): a program is one block of one tensor. Three kernels:

    gradient_squares_kernel   Σ g² of one block              one program a block
    gradient_norm_kernel      √Σ of the blocks' sums         one program
    adamw_kernel              c from the norm, the update    one program a block

The sum is in two stages so that it has one order: no atomics, the same bits every time. The norm
stays on the GPU, and nobody waits for it: where it is not finite, the third kernel changes nothing.

Precision. The moments are float32 whatever the parameters: in bfloat16 v would stop moving, since
0.001·g² is lost beside 0.999·v. Parameters in float16 or bfloat16 are moved in float32 and rounded
once; steps smaller than half a unit in their last place are lost, so keep float32 parameters and
let autocast make the half-precision copies, unless the learning rate is large.

Memory. The update reads θ, g, m, v and writes θ, m, v once: 28 bytes an element in float32, the
fewest there can be; the norm reads g once before, 4 more.

No autotuning: trials would update again and again. Deterministic.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ...core.optimizer.adamw import CLIP_EPS, coefficients, decay_of_each
from ..common._triton import tl, triton
from ..common.launch import launch
from .tensor_table import (
    Table,
    find_tensor,
    load_block,
    store_block,
    table_float,
    table_pointer,
    tensor_table,
    triton_dtype,
)

# Elements of one program: 8 a thread, of four tensors at a time.
BLOCK, NUM_WARPS = 2048, 8
# Blocks' sums that the second stage adds at a time.
NORM_BLOCK = 4096

# What a row of the table holds.
_PARAMETER = tl.constexpr(0)
_GRADIENT = tl.constexpr(1)
_FIRST = tl.constexpr(2)
_SECOND = tl.constexpr(3)
_NEW_PARAMETER = tl.constexpr(4)
_NEW_FIRST = tl.constexpr(5)
_NEW_SECOND = tl.constexpr(6)
_WEIGHT_DECAY = tl.constexpr(7)
_CLIP_EPS = tl.constexpr(CLIP_EPS)
_INFINITY = tl.constexpr(float("inf"))

Tensors = Sequence[torch.Tensor]


class Step(NamedTuple):
    """The numbers of one step, which all tensors share."""

    lr: float
    beta_1: float
    rest_1: float  # 1 − β₁
    beta_2: float
    rest_2: float
    step_size: float
    root_correction: float
    eps: float
    max_norm: float  # infinity for none


@triton.jit
def _square_sum(pointer, left, BLOCK: tl.constexpr, WHOLE: tl.constexpr):
    x = load_block(pointer, tl.arange(0, BLOCK), left, WHOLE)
    return tl.sum(x * x)


@triton.jit
def gradient_squares_kernel(
    table,  # Table
    partial_ptr,  # float32 [block]
    GRADIENT_DTYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sum the squares of one block of one gradient."""
    block = tl.program_id(0).to(tl.int64)
    row, start, left = find_tensor(table, block, BLOCK)
    pointer = table_pointer(row, _GRADIENT, GRADIENT_DTYPE, table.ALIGNED) + start
    if left >= BLOCK:
        tl.store(partial_ptr + block, _square_sum(pointer, left, BLOCK, True))
    else:
        tl.store(partial_ptr + block, _square_sum(pointer, left, BLOCK, False))


@triton.jit
def gradient_norm_kernel(partial_ptr, norm_ptr, n_partial, BLOCK: tl.constexpr):
    """The root of the sum of all blocks' sums."""
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, n_partial, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.load(partial_ptr + at, mask=at < n_partial, other=0.0)
    tl.store(norm_ptr, tl.sqrt(tl.sum(total)))


@triton.jit
def _update_block(
    row, start, left, norm, step, PARAMETER_DTYPE: tl.constexpr, GRADIENT_DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    at = tl.arange(0, BLOCK)
    parameter_ptr = table_pointer(row, _PARAMETER, PARAMETER_DTYPE, ALIGNED) + start
    gradient_ptr = table_pointer(row, _GRADIENT, GRADIENT_DTYPE, ALIGNED) + start
    first_ptr = table_pointer(row, _FIRST, tl.float32, ALIGNED) + start
    second_ptr = table_pointer(row, _SECOND, tl.float32, ALIGNED) + start
    new_parameter_ptr = table_pointer(row, _NEW_PARAMETER, PARAMETER_DTYPE, ALIGNED) + start
    new_first_ptr = table_pointer(row, _NEW_FIRST, tl.float32, ALIGNED) + start
    new_second_ptr = table_pointer(row, _NEW_SECOND, tl.float32, ALIGNED) + start
    parameter = load_block(parameter_ptr, at, left, WHOLE)
    gradient = load_block(gradient_ptr, at, left, WHOLE)
    first = load_block(first_ptr, at, left, WHOLE)
    second = load_block(second_ptr, at, left, WHOLE)

    finite = norm < _INFINITY  # False for NaN as well
    gradient = gradient * tl.minimum(step.max_norm / (norm + _CLIP_EPS), 1.0)
    new_first = first * step.beta_1 + gradient * step.rest_1
    new_second = second * step.beta_2 + gradient * gradient * step.rest_2
    root = tl.sqrt(new_second) * step.root_correction + step.eps
    update = new_first * step.step_size / root
    new_parameter = parameter - parameter * (table_float(row, _WEIGHT_DECAY) * step.lr) - update
    store_block(new_parameter_ptr, at, tl.where(finite, new_parameter, parameter), left, WHOLE)
    store_block(new_first_ptr, at, tl.where(finite, new_first, first), left, WHOLE)
    store_block(new_second_ptr, at, tl.where(finite, new_second, second), left, WHOLE)


@triton.jit
def adamw_kernel(
    table,  # Table
    norm_ptr,
    step,  # Step
    PARAMETER_DTYPE: tl.constexpr,
    GRADIENT_DTYPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Update one block of one tensor and of its moments."""
    block = tl.program_id(0).to(tl.int64)
    row, start, left = find_tensor(table, block, BLOCK)
    norm = tl.load(norm_ptr)
    if left >= BLOCK:
        _update_block(
            row, start, left, norm, step, PARAMETER_DTYPE, GRADIENT_DTYPE, table.ALIGNED,
            BLOCK, True,
        )  # fmt: skip
    else:
        _update_block(
            row, start, left, norm, step, PARAMETER_DTYPE, GRADIENT_DTYPE, table.ALIGNED,
            BLOCK, False,
        )  # fmt: skip


class Groups:
    """Tables of tensors, one for each pair of dtypes of parameter and gradient.

    Parameters
    ----------
    old : parameters, gradients, first_moments, second_moments
        Contiguous.
    new : parameters, first_moments, second_moments
        To be written; contiguous; may be the old ones.
    weight_decay : float or sequence of float
        As in `adamw`.
    """

    def __init__(
        self,
        old: Sequence[Tensors],
        new: Sequence[Tensors],
        weight_decay: float | Sequence[float] = 0.0,
    ) -> None:
        rows = list(zip(*old, *new, strict=True))
        decays = decay_of_each(weight_decay, len(rows))
        self.tables: list[tuple[Table, int, dict[str, Any]]] = []
        for dtypes in dict.fromkeys((row[0].dtype, row[1].dtype) for row in rows):
            here = [i for i, row in enumerate(rows) if (row[0].dtype, row[1].dtype) == dtypes]
            table, n_blocks = tensor_table(
                [rows[i] for i in here], BLOCK, [[decays[i]] for i in here]
            )
            if table is not None:
                constants = {
                    "PARAMETER_DTYPE": triton_dtype(dtypes[0]),
                    "GRADIENT_DTYPE": triton_dtype(dtypes[1]),
                    "BLOCK": BLOCK,
                    "num_warps": NUM_WARPS,
                }
                self.tables.append((table, n_blocks, constants))


def launch_norm(groups: Groups, norm: torch.Tensor) -> None:
    """Launch the two stages of the gradients' norm.

    Parameters
    ----------
    groups : Groups
    norm : torch.Tensor []
        float32; written, unless there is no element at all.
    """
    n_partials = sum(n_blocks for _, n_blocks, _ in groups.tables)
    if n_partials == 0:
        return
    partials = torch.empty(n_partials, dtype=torch.float32, device=norm.device)
    first = 0
    for table, n_blocks, constants in groups.tables:
        launch(
            gradient_squares_kernel,
            (n_blocks,),
            *(table, partials[first : first + n_blocks]),
            **{name: x for name, x in constants.items() if name != "PARAMETER_DTYPE"},
        )
        first += n_blocks
    launch(gradient_norm_kernel, (1,), partials, norm, n_partials, BLOCK=NORM_BLOCK, num_warps=8)


def launch_update(
    groups: Groups,
    norm: torch.Tensor,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    max_norm: float | None,
    epsilon: str,
) -> None:
    """Launch the update.

    Parameters
    ----------
    groups : Groups
    norm : torch.Tensor []
        The gradients' norm, float32.
    """
    known = coefficients(step, lr, betas, eps, epsilon)
    beta_1, beta_2 = map(float, betas)
    limit = float("inf") if max_norm is None else float(max_norm)
    numbers = Step(float(lr), beta_1, 1 - beta_1, beta_2, 1 - beta_2, *known, limit)
    for table, n_blocks, constants in groups.tables:
        launch(adamw_kernel, (n_blocks,), table, norm, numbers, **constants)
