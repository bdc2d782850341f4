"""Embedding in Triton: both lookups and their sum in one pass, a backward pass without atomics.

Mathematics (core/layers/embedding.py): y = token_table[tokens] + position_table[positions];
backward, each row of a table gets the sum of d_y wherever it was looked up.

Forward. One program takes BLOCK_ROWS tokens × BLOCK_FEATURES: it reads the ids, gathers the two
rows and writes their sum. Without positions, they are counted, not read. The tables' rows are read
once per use and y is written once.

Backward, for each table. PyTorch sorts the ids on the device (stably, so in an order that is always
the same); row r then owns an interval of the sorted order. Two launches follow:

    sorted ids   3 3 5 7 │ 7 7 7 7 │ 7 7 7 7 │ 7 8 8 9       chunks of CHUNK sources
    chunk sums             ────►     ────►                   1: chunks of one id, all at once
    row 7              •   +         +         •             2: head, whole chunks, tail

A program of the second sums the rows of BLOCK_ROWS ids side by side and writes each once, zeros
where an id does not occur: nothing is initialised, and no element is written twice. The steps it
takes are those of its longest row: fewer than 2 · CHUNK sources and one step for each whole chunk.
A table row that N tokens share so costs N / CHUNK steps, not N, and the CHUNK sources of each chunk
were added by programs of their own. That last stretch still grows with N: one id in all of a
million tokens is 31,250 steps of one program per BLOCK_FEATURES.

Default positions need no sort: position t's sources are the batch's tokens at t.

Memory. d_y is read once per table and each gradient written once; the chunk sums are float32,
[batch · time / CHUNK, d_model], and only those of one id are written or read.

Deterministic: sums are float32, in the order of the tokens within heads, tails and chunks, and
rounded once. No atomics.
"""

from typing import Any

import torch

from ...core.layers.embedding import check_embedding, check_ids
from ..common._triton import tl, triton
from ..common.derivative import first_derivative_only
from ..common.indices import signed
from ..common.launch import expect_same_dtype, launch, runs_on_triton
from ..common.registered import registered
from ..common.strided import block_at, strided
from ..common.widened import HALF

# Sources per chunk: a row's program reads fewer than twice as many one by one.
CHUNK = 32

FORWARD_CONFIGS = [
    triton.Config({"BLOCK_ROWS": 8, "BLOCK_FEATURES": 256}, num_warps=4),
    triton.Config({"BLOCK_ROWS": 4, "BLOCK_FEATURES": 1024}, num_warps=8),
]
CHUNK_CONFIGS = [
    triton.Config({"BLOCK_FEATURES": 128}, num_warps=4),
    triton.Config({"BLOCK_FEATURES": 256}, num_warps=8),
]
BACKWARD_CONFIGS = [
    triton.Config({"BLOCK_ROWS": 8, "BLOCK_FEATURES": 256}, num_warps=4),
    triton.Config({"BLOCK_ROWS": 16, "BLOCK_FEATURES": 256}, num_warps=8),
]


@triton.jit
def _load_ids(ids, rows, real, time):
    """Load the ids, [batch, time] in memory, of these rows of [batch · time]; 0 beyond the last."""
    at = ids.ptr + rows // time * ids.strides[0] + rows % time * ids.strides[1]
    return tl.load(at, mask=real, other=0).to(tl.int64)


@triton.autotune(FORWARD_CONFIGS, key=["d_model"])
@triton.jit
def embedding_forward_kernel(
    tokens,  # Strided [batch, time]
    positions,  # Strided [batch, time], or None: 0, 1, 2, ... in each row
    token_table,  # Strided [vocab, d_model]
    position_table,  # Strided [n_ctx, d_model]
    y_ptr,  # [batch · time, d_model] contiguous
    n_tokens,  # batch · time
    time,
    d_model,
    vocab,
    n_ctx,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
):
    """Gather and add the rows of BLOCK_ROWS tokens."""
    # int64, here and below: id times stride passes 2^31 long before memory runs out.
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    features = tl.program_id(1).to(tl.int64) * BLOCK_FEATURES + tl.arange(0, BLOCK_FEATURES)
    real = rows < n_tokens
    token = _load_ids(tokens, rows, real, time)
    position = rows % time if positions is None else _load_ids(positions, rows, real, time)
    # An id out of range reads nothing: its row is NaN.
    known = (token >= 0) & (token < vocab) & (position >= 0) & (position < n_ctx)
    inside = (features < d_model)[None, :]
    read = (real & known)[:, None] & inside
    y = tl.load(block_at(token_table, token, features), mask=read, other=0.0).to(tl.float32)
    y += tl.load(block_at(position_table, position, features), mask=read, other=0.0).to(tl.float32)
    y = tl.where(known[:, None], y, float("nan"))
    y_at = y_ptr + rows[:, None] * d_model + features[None, :]
    tl.store(y_at, y, mask=real[:, None] & inside)


@triton.jit
def _load_sources(
    d_y,
    order_ptr,
    places,  # [BLOCK_ROWS] int64, in the sorted order
    read,  # [BLOCK_ROWS]
    features,
    d_model,
    time,
):
    """Load the rows of d_y that stand at these places of the sorted order, as float32."""
    sources = tl.load(order_ptr + places, mask=read, other=0)
    batch, step = sources // time, sources % time
    row_at = batch * d_y.strides[0] + step * d_y.strides[1]
    d_at = d_y.ptr + row_at[:, None] + (features * d_y.strides[2])[None, :]
    inside = read[:, None] & (features < d_model)[None, :]
    return tl.load(d_at, mask=inside, other=0.0).to(tl.float32)


@triton.autotune(CHUNK_CONFIGS, key=["d_model"])
@triton.jit
def embedding_chunk_kernel(
    d_y,  # Strided [batch, time, d_model]
    order_ptr,  # int64 [source]: token numbers, sorted by id
    sorted_ids_ptr,  # int64 [source]
    chunk_sums_ptr,  # float32 [chunk, d_model] contiguous
    d_model,
    time,
    CHUNK: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
):
    """Sum a whole chunk, if all of it is of one id."""
    chunk = tl.program_id(0).to(tl.int64)
    first_id = tl.load(sorted_ids_ptr + chunk * CHUNK)
    last_id = tl.load(sorted_ids_ptr + chunk * CHUNK + CHUNK - 1)
    if first_id == last_id:
        features = tl.program_id(1).to(tl.int64) * BLOCK_FEATURES + tl.arange(0, BLOCK_FEATURES)
        places = chunk * CHUNK + tl.arange(0, CHUNK)
        d_rows = _load_sources(d_y, order_ptr, places, places >= 0, features, d_model, time)
        sums_at = chunk_sums_ptr + chunk * d_model + features
        tl.store(sums_at, tl.sum(d_rows, axis=0), mask=features < d_model)


@triton.autotune(BACKWARD_CONFIGS, key=["d_model"])
@triton.jit
def embedding_backward_kernel(
    d_y,
    order_ptr,
    bounds_ptr,  # int64 [row + 1]: row r owns bounds[r] to bounds[r + 1] of the sorted order
    chunk_sums_ptr,
    d_table_ptr,  # [row, d_model] contiguous
    n_rows,
    d_model,
    time,
    CHUNK: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
):
    """Sum what belongs to BLOCK_ROWS rows of the table, side by side."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    features = tl.program_id(1).to(tl.int64) * BLOCK_FEATURES + tl.arange(0, BLOCK_FEATURES)
    real = rows < n_rows
    start = tl.load(bounds_ptr + rows, mask=real, other=0)
    end = tl.load(bounds_ptr + rows + 1, mask=real, other=0)
    first_chunk, last_chunk = (start + CHUNK - 1) // CHUNK, end // CHUNK
    head_end = tl.minimum(end, first_chunk * CHUNK)
    tail_start = tl.maximum(head_end, last_chunk * CHUNK)

    sums = tl.zeros([BLOCK_ROWS, BLOCK_FEATURES], tl.float32)
    for i in range(0, tl.max(head_end - start, axis=0)):
        places = start + i
        sums += _load_sources(d_y, order_ptr, places, places < head_end, features, d_model, time)
    for i in range(0, tl.max(last_chunk - first_chunk, axis=0)):
        chunks = first_chunk + i
        inside = (chunks < last_chunk)[:, None] & (features < d_model)[None, :]
        sums_at = chunk_sums_ptr + chunks[:, None] * d_model + features[None, :]
        sums += tl.load(sums_at, mask=inside, other=0.0)
    for i in range(0, tl.max(end - tail_start, axis=0)):
        places = tail_start + i
        sums += _load_sources(d_y, order_ptr, places, places < end, features, d_model, time)
    d_at = d_table_ptr + rows[:, None] * d_model + features[None, :]
    tl.store(d_at, sums, mask=real[:, None] & (features < d_model)[None, :])


@registered
def embedding_forward(
    tokens: torch.Tensor,
    token_table: torch.Tensor,
    position_table: torch.Tensor,
    positions: torch.Tensor | None,
) -> torch.Tensor:
    """Launch the forward kernel for checked arguments; an id out of range makes its row NaN.

    Parameters
    ----------
    tokens, token_table, position_table, positions
        As in `embedding`.

    Returns
    -------
    torch.Tensor [batch, time, d_model]
        Contiguous.
    """
    (batch, time), (vocab, d_model) = tokens.shape, token_table.shape
    y = torch.empty(batch, time, d_model, dtype=token_table.dtype, device=tokens.device)
    n_tokens = tokens.numel()
    launch(
        embedding_forward_kernel,
        lambda meta: (
            triton.cdiv(n_tokens, meta["BLOCK_ROWS"]),
            triton.cdiv(d_model, meta["BLOCK_FEATURES"]),
        ),
        *(strided(tokens), strided(positions), strided(token_table), strided(position_table), y),
        *(n_tokens, time, d_model, vocab, position_table.shape[0]),
    )
    return y


@registered
def scatter_add(
    d_y: torch.Tensor,
    order: torch.Tensor,
    sorted_ids: torch.Tensor,
    n_rows: int,
) -> torch.Tensor:
    """Sum the rows of `d_y` by id, each sum in the order given; launch the two backward kernels.

    Parameters
    ----------
    d_y : torch.Tensor [batch, time, d_model]
        Any strides.
    order : torch.Tensor of int64 [batch · time]
        Token numbers (batch · time + t), sorted by id.
    sorted_ids : torch.Tensor of int64 [batch · time]
        Their ids; those outside 0 to `n_rows` − 1 are left out.
    n_rows : int
        How many sums there are.

    Returns
    -------
    torch.Tensor [n_rows, d_model]
        Contiguous; 0 for an id that does not occur.
    """
    _, time, d_model = d_y.shape
    n_chunks = order.numel() // CHUNK
    every_row = torch.arange(n_rows + 1, device=d_y.device)
    bounds = torch.searchsorted(sorted_ids, every_row)  # [row + 1]
    chunk_sums = torch.empty(n_chunks, d_model, dtype=torch.float32, device=d_y.device)
    launch(
        embedding_chunk_kernel,
        lambda meta: (n_chunks, triton.cdiv(d_model, meta["BLOCK_FEATURES"])),
        *(strided(d_y), order, sorted_ids, chunk_sums, d_model, time),
        CHUNK=CHUNK,
    )
    d_table = torch.empty(n_rows, d_model, dtype=d_y.dtype, device=d_y.device)
    launch(
        embedding_backward_kernel,
        lambda meta: (
            triton.cdiv(n_rows, meta["BLOCK_ROWS"]),
            triton.cdiv(d_model, meta["BLOCK_FEATURES"]),
        ),
        *(strided(d_y), order, bounds, chunk_sums, d_table, n_rows, d_model, max(time, 1)),
        CHUNK=CHUNK,
    )
    return d_table


def sort_ids(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sort ids on their device, equal ones in the order of the tokens.

    Parameters
    ----------
    ids : torch.Tensor of integers [batch, time]
    """
    sorted_ids, order = torch.sort(ids.reshape(-1).long(), stable=True)
    return order, sorted_ids


def count_positions(batch: int, time: int, device: torch.device) -> tuple[Any, Any]:
    """Return what `sort_ids` would for positions 0, 1, 2, ... in each row.

    Parameters
    ----------
    batch, time : int
        The tokens' shape.
    device : torch.device
        Of the result.
    """
    numbers = torch.arange(batch * time, device=device).view(batch, time)
    return numbers.T.reshape(-1), torch.arange(time, device=device).repeat_interleave(batch)


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tokens, token_table, position_table, positions):
        ctx.save_for_backward(tokens, positions)
        ctx.lengths = (len(token_table), len(position_table))
        return embedding_forward(tokens, token_table, position_table, positions)

    @staticmethod
    @first_derivative_only("embedding")
    def backward(ctx, d_y):
        tokens, positions = ctx.saved_tensors
        vocab, n_ctx = ctx.lengths
        d_token_table = d_position_table = None
        if ctx.needs_input_grad[1]:
            d_token_table = scatter_add(d_y, *sort_ids(tokens), vocab)
        if ctx.needs_input_grad[2]:
            if positions is None:
                by_position = count_positions(*tokens.shape, tokens.device)
            else:
                by_position = sort_ids(positions)
            d_position_table = scatter_add(d_y, *by_position, n_ctx)
        return None, d_token_table, d_position_table, None


def embedding(
    tokens: torch.Tensor,
    token_table: torch.Tensor,
    position_table: torch.Tensor,
    *,
    positions: torch.Tensor | None = None,
) -> torch.Tensor:
    """Look up each token and its position, and add; the twin of core/layers/embedding.py.

    Parameters
    ----------
    tokens : torch.Tensor of integers [batch, time]
        Ids below vocab. Tensors on the CPU are checked; on a GPU, where a check would wait for the
        device, an id out of range makes its row NaN and adds to no gradient.
    token_table : torch.Tensor [vocab, d_model]
        float32, float16 or bfloat16, any strides. The sum is float32, rounded once.
    position_table : torch.Tensor [n_ctx, d_model]
        Of the same dtype.
    positions : torch.Tensor of integers [batch, time], optional
        Positions below n_ctx; 0, 1, 2, ... in each row if not given. Checked like `tokens`.

    Returns
    -------
    torch.Tensor [batch, time, d_model]

    Raises
    ------
    ValueError
        If a shape, dtype or device is wrong, or an id on the CPU lies outside its table.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    check_embedding(tokens, token_table, position_table, positions)
    expect_same_dtype(token_table=token_table, position_table=position_table)
    tokens, positions = signed(tokens), signed(positions)
    if tokens.device.type == "cpu" and not torch.compiler.is_compiling():
        check_ids(tokens, positions, len(token_table), len(position_table))
    tensors = {"token_table": token_table, "position_table": position_table}
    if runs_on_triton("embedding", tokens=tokens, **tensors, positions=positions):
        return _Embedding.apply(tokens, token_table, position_table, positions)
    return embedding_eager(tokens, token_table, position_table, positions=positions)


def embedding_eager(
    tokens: torch.Tensor,
    token_table: torch.Tensor,
    position_table: torch.Tensor,
    *,
    positions: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute the same in plain PyTorch, for the CPU and as a yardstick."""
    y = _rows(token_table, tokens.long())
    if positions is None:
        return y + position_table[: tokens.shape[1]]
    return y + _rows(position_table, positions.long())


def _rows(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Look up rows; their gradients are summed in float32, whatever the table's dtype."""
    if table.dtype in HALF and table.requires_grad:
        return _Rows.apply(table, ids)
    return torch.nn.functional.embedding(ids, table)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table, ids):
        ctx.save_for_backward(ids)
        ctx.n_rows = len(table)
        return torch.nn.functional.embedding(ids, table)

    @staticmethod
    def backward(ctx, d_y):
        (ids,) = ctx.saved_tensors
        wide = d_y.flatten(0, -2).float()  # [id, d_model]
        total = wide.new_zeros(ctx.n_rows, wide.shape[-1]).index_add(0, ids.flatten(), wide)
        return total.to(d_y.dtype), None
