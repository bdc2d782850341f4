"""Linear in Triton: one tiled matrix product with a fused epilogue, and its gradients.

Mathematics (core/layers/linear.py): y = residual + gelu(x W + b), each part but the product
optional.

Tiling. The result is cut into BLOCK_M × BLOCK_N tiles; a program owns one tile and walks along the
inner axis, multiplying a BLOCK_M × BLOCK_K tile of A by a BLOCK_K × BLOCK_N tile of B into a
float32 accumulator that never leaves its registers:

              BLOCK_N                           order of the programs, GROUP_M = 2:
            ┌────┐                                 0  2  4  6
        B   │    │ ▲                               1  3  5  7
            │    │ │ inner                         8 10 12 14
            └────┘ ▼                               9 11 13 15
    ┌──────┬────┐
 A  │ ───► │tile│ BLOCK_M        Programs that run at the same time share rows of A and columns
    └──────┴────┘                of B: in groups of GROUP_M tile rows more of both is in the L2
                                 cache than in row order.

The epilogue works on the accumulator: bias, GELU and residual cost no further pass over memory.

The same kernel computes all three products, which differ in their strides alone:

    forward   y   = x   W     A = x  [row, d_in]     B = W   [d_in, d_out]
    backward  d_x = d_u Wᵀ    A = d_u [row, d_out]   B = Wᵀ  [d_out, d_in]
              d_W = xᵀ  d_u   A = xᵀ [d_in, row]     B = d_u [row, d_out]

Memory. Each program reads a row panel of A and a column panel of B. With GELU, forward also writes
u = x W + b (one write; recomputing it in backward would be a whole product), and backward turns
d_y into d_u once, in a kernel that sums d_b on the way, because both products read d_u.

Precision. float16 and bfloat16 accumulate in float32. float32 is true float32 ("ieee") unless
"tf32" is asked for, which cuts both operands to 10 bits of mantissa for the tensor cores.

Deterministic: a tile is summed by one program in one order; d_b is summed in float32 per block of
rows, and the blocks' sums by a second kernel. No atomics.
"""

import math
import threading

import torch

from ...core.checks import refuse
from ...core.layers.linear import check_linear
from ..common._triton import for_architecture, tl, triton
from ..common.column_sum import column_sum, rows_per_program
from ..common.derivative import first_derivative_only
from ..common.indices import expect_countable
from ..common.launch import expect_same_dtype, launch, runs_on_triton
from ..common.registered import registered
from ..common.strided import block_at, strided
from .gelu import gate, gelu_slope

PRECISIONS = ("ieee", "tf32")
# Two threads that took turns at it would leave PyTorch's switch on.
_tf32_switch = threading.Lock()


def tile(m: int, n: int, k_bytes: int, num_warps: int, num_stages: int) -> triton.Config:
    """Make a configuration of `matmul_kernel`.

    BLOCK_K is given in bytes, so that one list suits 2- and 4-byte floats: a stage of the pipeline
    holds (m + n) · k_bytes bytes of shared memory.
    """
    sizes = {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K_BYTES": k_bytes, "GROUP_M": 8}
    return triton.Config(sizes, num_warps=num_warps, num_stages=num_stages)


# Every entry fits sm_80, sm_90, sm_100 and gfx942 without spills in every dtype (`gptwin inspect
# linear`).
MATMUL_CONFIGS = [tile(128, 128, 128, 8, 3), tile(64, 128, 64, 4, 3), tile(64, 32, 128, 4, 3)]
# A wider tile reads shared memory less often. Sums of 128 × 256 leave registers for a bias alone,
# and of 2-byte floats alone: with GELU, in float32 and on other chips they spill.
PLAIN_CONFIGS = for_architecture(MATMUL_CONFIGS, sm_90=[*MATMUL_CONFIGS, tile(128, 256, 128, 8, 3)])
MATMUL_KEY = ["row_bucket", "n_columns", "n_inner", "INPUT_PRECISION"]
D_U_CONFIGS = [
    triton.Config({"BLOCK_ROWS": 32, "BLOCK_COLUMNS": 64}, num_warps=4),
    triton.Config({"BLOCK_ROWS": 32, "BLOCK_COLUMNS": 128}, num_warps=8),
]


@triton.jit
def grouped_tile(
    program, n_rows, n_columns, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr
):
    """Return which tile (row, column of tiles) a program owns, in groups of GROUP_M tile rows."""
    tile_rows = tl.cdiv(n_rows, BLOCK_M)
    tile_columns = tl.cdiv(n_columns, BLOCK_N)
    per_group = GROUP_M * tile_columns
    first_row = (program // per_group) * GROUP_M
    rows_in_group = tl.minimum(tile_rows - first_row, GROUP_M)
    within = program % per_group
    return first_row + within % rows_in_group, within // rows_in_group


@triton.autotune(PLAIN_CONFIGS, key=MATMUL_KEY)
@triton.jit
def matmul_kernel(
    a,  # Strided [row, inner]
    b,  # Strided [inner, column]
    bias,  # Strided [column], or None
    residual,  # Strided [row, column], or None
    result_ptr,  # [row, column] contiguous, like the next
    pre_activation_ptr,  # written, or None
    n_rows,
    n_columns,
    n_inner,
    row_bucket,  # n_rows rounded up to a power of two: tuned once for each, not for every length
    GELU: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K_BYTES: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """One tile of A B, and everything that follows it."""
    BLOCK_K: tl.constexpr = BLOCK_K_BYTES // (a.ptr.dtype.element_ty.primitive_bitwidth // 8)
    tile_row, tile_column = grouped_tile(
        tl.program_id(0), n_rows, n_columns, BLOCK_M, BLOCK_N, GROUP_M
    )
    # int64: index times stride passes 2^31 long before memory runs out.
    rows = tile_row.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_column.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K).to(tl.int64)
    row_inside, column_inside = rows < n_rows, columns < n_columns

    accumulator = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    step = tl.full([], BLOCK_K, tl.int64)
    a_at, b_at = block_at(a, rows, inner), block_at(b, inner, columns)
    for start in range(0, n_inner, BLOCK_K):
        inner_inside = inner < n_inner - start
        a_tile = tl.load(a_at, mask=row_inside[:, None] & inner_inside[None, :], other=0.0)
        b_tile = tl.load(b_at, mask=inner_inside[:, None] & column_inside[None, :], other=0.0)
        accumulator = tl.dot(a_tile, b_tile, accumulator, input_precision=INPUT_PRECISION)
        a_at += step * a.strides[1]
        b_at += step * b.strides[0]

    inside = row_inside[:, None] & column_inside[None, :]
    at = rows[:, None] * n_columns + columns[None, :]
    if bias is not None:
        bias_at = bias.ptr + columns * bias.strides[0]
        bias_tile = tl.load(bias_at, mask=column_inside, other=0.0)
        accumulator += bias_tile.to(tl.float32)[None, :]
    if GELU:
        if pre_activation_ptr is not None:
            tl.store(pre_activation_ptr + at, accumulator, mask=inside)
        g, _ = gate(accumulator, True)
        accumulator = accumulator * g
    if residual is not None:
        residual_at = block_at(residual, rows, columns)
        accumulator += tl.load(residual_at, mask=inside, other=0.0).to(tl.float32)
    tl.store(result_ptr + at, accumulator, mask=inside)


NARROW_KERNEL = triton.autotune(MATMUL_CONFIGS, key=MATMUL_KEY)(matmul_kernel.fn)


@triton.autotune(D_U_CONFIGS, key=["n_columns"])
@triton.jit
def linear_backward_activation_kernel(
    d_y,  # Strided [row, column]
    pre_activation_ptr,  # [row, column] contiguous, like the next
    d_u_ptr,
    d_bias_partial_ptr,  # float32 [row block, column]
    n_rows,
    n_columns,
    ROWS_PER_PROGRAM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """d_u = d_y · gelu′(u) for a panel of rows and columns, and the panel's share of d_b."""
    row_block = tl.program_id(1).to(tl.int64)
    columns = tl.program_id(0).to(tl.int64) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    column_inside = columns < n_columns
    partial = tl.zeros([BLOCK_ROWS, BLOCK_COLUMNS], tl.float32)
    first = row_block * ROWS_PER_PROGRAM
    for start in range(0, tl.minimum(n_rows - first, ROWS_PER_PROGRAM), BLOCK_ROWS):
        rows = first + start + tl.arange(0, BLOCK_ROWS)
        inside = (rows < n_rows)[:, None] & column_inside[None, :]
        at = rows[:, None] * n_columns + columns[None, :]
        d_y_at = block_at(d_y, rows, columns)
        u = tl.load(pre_activation_ptr + at, mask=inside, other=0.0).to(tl.float32)
        d_u = tl.load(d_y_at, mask=inside, other=0.0).to(tl.float32) * gelu_slope(u, True)
        tl.store(d_u_ptr + at, d_u, mask=inside)
        partial += d_u
    partial_at = d_bias_partial_ptr + row_block * n_columns + columns
    tl.store(partial_at, tl.sum(partial, axis=0), mask=column_inside)


def matmul(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    gelu: bool = False,
    pre_activation: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    precision: str = "ieee",
) -> torch.Tensor:
    """Launch the product of two matrices with any strides, and its epilogue.

    Parameters
    ----------
    a, b : torch.Tensor [row, inner] and [inner, column]
    bias : torch.Tensor [column], optional
    gelu : bool
        Apply GELU after the bias.
    pre_activation, residual : torch.Tensor [row, column], optional
        What GELU is applied to is written into the one, contiguous; the other is added last.
    precision : str
        "ieee" or "tf32"; matters to float32 alone.

    Returns
    -------
    torch.Tensor [row, column]
        Contiguous, of `a`'s dtype.
    """
    (n_rows, n_inner), n_columns = a.shape, b.shape[1]
    expect_countable("linear", rows=n_rows, columns=n_columns, features=n_inner)
    result = torch.empty(n_rows, n_columns, dtype=a.dtype, device=a.device)

    def grid(meta):
        return (triton.cdiv(n_rows, meta["BLOCK_M"]) * triton.cdiv(n_columns, meta["BLOCK_N"]),)

    is_plain = a.element_size() == 2 and not gelu and residual is None
    launch(
        matmul_kernel if is_plain else NARROW_KERNEL,
        grid,
        *(strided(a), strided(b), strided(bias), strided(residual), result, pre_activation),
        *(n_rows, n_columns, n_inner, triton.next_power_of_2(n_rows)),
        GELU=gelu,
        INPUT_PRECISION=precision,
    )
    return result


def backward_activation(
    d_y: torch.Tensor, pre_activation: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the step from d_y to d_u, and sum d_b on the way.

    Parameters
    ----------
    d_y, pre_activation : torch.Tensor [row, column]
        d_y with any strides; the other, from the forward pass, contiguous.

    Returns
    -------
    d_u : torch.Tensor [row, column]
    d_bias : torch.Tensor [column]
    """
    n_rows, n_columns = d_y.shape
    rows = rows_per_program(n_rows)
    row_blocks = triton.cdiv(n_rows, rows)
    d_u = torch.empty_like(pre_activation)
    partial = torch.empty(row_blocks, n_columns, dtype=torch.float32, device=d_y.device)
    launch(
        linear_backward_activation_kernel,
        lambda meta: (triton.cdiv(n_columns, meta["BLOCK_COLUMNS"]), row_blocks),
        *(strided(d_y), pre_activation, d_u, partial, n_rows, n_columns),
        ROWS_PER_PROGRAM=rows,
    )
    return d_u, column_sum(partial, d_y.dtype)


@registered
def linear_forward(
    rows: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    activation: str | None,
    precision: str,
    training: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Launch the forward pass for checked arguments.

    Parameters
    ----------
    rows : torch.Tensor [row, d_in]
    residual : torch.Tensor [row, d_out] or None
    weight, bias, activation, precision
        As in `linear`.
    training : bool
        Whether to return the pre-activation for `linear_backward`, if there is an activation.

    Returns
    -------
    y : torch.Tensor [row, d_out]
    pre_activation : torch.Tensor [row, d_out] or None
    """
    pre_activation = None
    if training and activation is not None:
        shape = rows.shape[0], weight.shape[1]
        pre_activation = torch.empty(shape, dtype=rows.dtype, device=rows.device)
    y = matmul(
        *(rows, weight),
        bias=bias,
        gelu=activation is not None,
        pre_activation=pre_activation,
        residual=residual,
        precision=precision,
    )
    return y, pre_activation


@registered
def linear_backward(
    rows: torch.Tensor,
    weight: torch.Tensor,
    pre_activation: torch.Tensor | None,
    d_y: torch.Tensor,
    precision: str,
    wants_x: bool,
    wants_weight: bool,
    wants_bias: bool,
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Launch the backward pass.

    Parameters
    ----------
    rows, weight, pre_activation, precision
        As in `linear_forward`, and from it.
    d_y : torch.Tensor [row, d_out]
        Any strides.
    wants_x, wants_weight, wants_bias : bool
        Which gradients to return.

    Returns
    -------
    d_x, d_weight, d_bias : torch.Tensor or None
    """
    d_u, d_x, d_weight, d_bias = d_y, None, None, None
    if pre_activation is not None:
        d_u, d_bias = backward_activation(d_y, pre_activation)
    elif wants_bias:
        d_bias = column_sum(d_u, d_u.dtype)
    if wants_x:
        d_x = matmul(d_u, weight.T, precision=precision)
    if wants_weight:
        d_weight = matmul(rows.T, d_u, precision=precision)
    return d_x, d_weight, d_bias if wants_bias else None


def _rows(x: torch.Tensor) -> torch.Tensor:
    """Let all axes but the last be one; a -1 in its place would be ambiguous for no features."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, residual, activation, precision):
        # Detached it is no view to autograd, which reports a later change of x in odd words.
        rows = _rows(x).detach()  # [..., d_in] -> [row, d_in]
        d_out = weight.shape[1]
        added = None if residual is None else _rows(residual)
        training = any(ctx.needs_input_grad)
        y, kept = linear_forward(rows, weight, bias, added, activation, precision, training)
        ctx.save_for_backward(rows, weight, kept)
        ctx.precision = precision
        # Detached it counts as no view: autograd lets nobody write into a view made in here.
        return y.view(*x.shape[:-1], d_out).detach()

    @staticmethod
    @first_derivative_only("linear")
    def backward(ctx, d_y):
        rows, weight, pre_activation = ctx.saved_tensors
        d_u = _rows(d_y)  # [..., d_out] -> [row, d_out]
        d_x, d_weight, d_bias = linear_backward(
            rows, weight, pre_activation, d_u, ctx.precision, *ctx.needs_input_grad[:3]
        )
        if d_x is not None:
            d_x = d_x.view(*d_y.shape[:-1], weight.shape[0])
        return d_x, d_weight, d_bias, d_y if ctx.needs_input_grad[3] else None, None, None


def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    activation: str | None = None,
    residual: torch.Tensor | None = None,
    precision: str = "ieee",
) -> torch.Tensor:
    """Project, activate, add the residual; the twin of `gptwin.core.layers.linear.linear`.

    Parameters
    ----------
    x : torch.Tensor [..., d_in]
        float32, float16 or bfloat16, any strides.
    weight : torch.Tensor [d_in, d_out]
        As GPT-2 stores it: not transposed. Any strides.
    bias : torch.Tensor [d_out], optional
        Added to the product.
    activation : None or "gelu"
        Applied after the bias; GELU in its tanh form.
    residual : torch.Tensor [..., d_out], optional
        Added last.
    precision : str
        For float32: "ieee" multiplies true float32 numbers; "tf32" cuts them to 10 bits of
        mantissa first, for the tensor cores. Products of half-precision numbers are exact.

    Returns
    -------
    torch.Tensor [..., d_out]
        Of `x`'s dtype.

    Raises
    ------
    ValueError
        If shapes, dtypes or devices do not fit, or there is no such activation or precision.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    check_linear(x, weight, bias, activation, residual)
    if precision not in PRECISIONS:
        refuse("precision", "'ieee' or 'tf32'", repr(precision))
    expect_same_dtype(x=x, weight=weight, bias=bias, residual=residual)
    if runs_on_triton("linear", x=x, weight=weight, bias=bias, residual=residual):
        return _Linear.apply(x, weight, bias, residual, activation, precision)
    return linear_eager(
        x, weight, bias, activation=activation, residual=residual, precision=precision
    )


def linear_eager(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    activation: str | None = None,
    residual: torch.Tensor | None = None,
    precision: str = "ieee",
) -> torch.Tensor:
    """Compute the same in plain PyTorch, for the CPU and as a yardstick."""
    rows = _rows(x)  # [..., d_in] -> [row, d_in]
    if precision == "tf32" and x.dtype == torch.float32:
        y = _Tf32Product.apply(rows, weight)
        y = y if bias is None else y + bias
    else:
        y = rows @ weight if bias is None else torch.addmm(bias, rows, weight)
    y = y.view(*x.shape[:-1], weight.shape[1])
    if activation is not None:
        y = torch.nn.functional.gelu(y, approximate="tanh")
    return y if residual is None else y + residual


class _Tf32Product(torch.autograd.Function):
    """`a @ b` in tf32 in both directions; PyTorch has a global switch alone."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return _tf32_product(a, b)

    @staticmethod
    @first_derivative_only("linear")
    def backward(ctx, d_y):
        a, b = ctx.saved_tensors
        return _tf32_product(d_y, b.T), _tf32_product(a.T, d_y)


def _tf32_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    # Autocast would round the operands again; and backward runs without it.
    with torch.autocast(a.device.type, enabled=False):
        return _plain_tf32_product(a, b)


def _plain_tf32_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if not a.is_cuda:
        return _cut_to_tf32(a) @ _cut_to_tf32(b)
    with _tf32_switch:
        before = torch.backends.cuda.matmul.fp32_precision
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        try:
            return a @ b
        finally:
            torch.backends.cuda.matmul.fp32_precision = before


def _cut_to_tf32(x: torch.Tensor) -> torch.Tensor:
    """Drop the 13 low bits: Triton hands tensor cores raw float32, and they read the upper 19."""
    return (x.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)
