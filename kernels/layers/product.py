"""The product of two matrices into a result of another dtype, rounded once.

The kernel of `linear` (kernels/layers/linear.py), whose result `matmul` types like its operands.
Here the result may be wider, as sums that go from one product to the next must be, and lie in
memory that is there already.
"""

from functools import partial
from typing import Any

import torch

from ..common._triton import triton
from ..common.indices import expect_countable
from ..common.launch import launch
from ..common.strided import strided
from .linear import MATMUL_KEY, matmul_kernel, tile

# Triton asks of a length whether it is a multiple of this, and no more.
EVEN = 16
# With a list for each number of bytes that does not spill for odd strides either.
PRODUCT_KERNELS = {
    2: triton.autotune([tile(128, 128, 128, 8, 3), tile(64, 128, 64, 4, 3)], key=MATMUL_KEY)(
        matmul_kernel.fn
    ),
    4: triton.autotune([tile(64, 32, 128, 4, 3), tile(64, 32, 64, 4, 3)], key=MATMUL_KEY)(
        matmul_kernel.fn
    ),
}


def product(
    a: torch.Tensor,
    b: torch.Tensor,
    dtype: torch.dtype,
    *,
    into: torch.Tensor | None = None,
    add: torch.Tensor | None = None,
) -> torch.Tensor:
    """Launch a b + add, rounded once: the kernel of `linear`, whose result may be wider.

    Parameters
    ----------
    a : torch.Tensor [row, inner]
    b : torch.Tensor [inner, column]
    dtype : torch.dtype
        Of the result.
    into : torch.Tensor [row, column], optional
        Contiguous, of this dtype; written.
    add : torch.Tensor [row, column], optional

    Returns
    -------
    torch.Tensor [row, column]
        `into`, or a new one.
    """
    (n_rows, n_inner), n_columns = a.shape, b.shape[1]
    expect_countable("product", rows=n_rows, columns=n_columns, features=n_inner)
    result = torch.empty(n_rows, n_columns, dtype=dtype, device=a.device) if into is None else into
    launch(
        PRODUCT_KERNELS[a.element_size()],
        partial(_tiles, n_rows, n_columns),
        *(strided(a), strided(b), None, strided(add), result, None),
        *(n_rows, n_columns, n_inner, triton.next_power_of_2(n_rows)),
        GELU=False,
        INPUT_PRECISION="ieee",
    )
    return result


def readable(matrix: torch.Tensor) -> torch.Tensor:
    """Return a matrix that lies so that tensor cores can be fed with it.

    They take 2-byte floats from shared memory, where no asynchronous copy of 2 bytes leads. Where
    rows have an odd length, they begin anywhere: such numbers would come through registers, one by
    one. If columns are of a better length, we lay these out one after the other.

    Parameters
    ----------
    matrix : torch.Tensor [row, column]

    Returns
    -------
    torch.Tensor [row, column]
        The matrix itself, or a copy.
    """
    (n_rows, _), (row_stride, stride) = matrix.shape, matrix.stride()
    begins_anywhere = matrix.element_size() == 2 and stride == 1 and row_stride % EVEN != 0
    if not begins_anywhere or n_rows % EVEN != 0:
        return matrix
    return matrix.T.contiguous().T


def _tiles(n_rows: int, n_columns: int, meta: dict[str, Any]) -> tuple[int]:
    """Count the tiles of a matrix."""
    return (triton.cdiv(n_rows, meta["BLOCK_M"]) * triton.cdiv(n_columns, meta["BLOCK_N"]),)
