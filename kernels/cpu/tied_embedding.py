"""The embedding of a model whose token table is also its head, on the CPU: one gradient for both.

The head's gradient is as large as the table, [vocab, d_model]; the embedding's has as many rows
that are not 0 as there are tokens. Left to themselves, the two meet as two whole tables: autograd
fills one with zeros, writes the few rows into it, and adds both into a third. At GPT-2's size that
is 0.6 GB through the memory in every step. Here the table is handed on once, for both uses, and the
embedding's gradient comes back as its rows alone. Autograd adds them to a copy of the head's, which
saves filling a table; the head may be used and looked at in any way. (Rows written into the head's
gradient itself saved the copy as well. But that gradient may belong to others.)

    wte ── handed on ──┬── head          gradient: a table
                       └── embedding     gradient: some rows, added to that table

A table that the cache holds is left to autograd.
"""

import torch
from torch.nn import functional

from ...core.layers.embedding import check_embedding, check_ids
from ..common.indices import signed
from ..common.launch import expect_same_dtype
from ..common.widened import HALF
from ..layers.embedding import embedding

# Numbers of a table that the cache holds: 1 MB in float32.
SMALL = 2**18


class _HandedOn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table):
        return table.view_as(table)

    @staticmethod
    def backward(ctx, d_table):
        # The gradient is sparse, the embedded rows alone, where the head was not used.
        return d_table.to_dense() if d_table.is_sparse else d_table


def tied_embedding(
    tokens: torch.Tensor,
    token_table: torch.Tensor,
    position_table: torch.Tensor,
    *,
    positions: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Look up each token and its position, and hand on the table for the head.

    Parameters
    ----------
    tokens, token_table, position_table, positions
        As in `embedding`.

    Returns
    -------
    x : torch.Tensor [batch, time, d_model]
        As from `embedding`.
    table : torch.Tensor [vocab, d_model]
        The token table, to be the head.

    Raises
    ------
    ValueError
        As in `embedding`.
    """
    # Sparse rows of half precision would be added up in half precision.
    plain = token_table.numel() <= SMALL or token_table.dtype in HALF
    if plain or torch.compiler.is_compiling():
        return embedding(tokens, token_table, position_table, positions=positions), token_table
    check_embedding(tokens, token_table, position_table, positions)
    expect_same_dtype(token_table=token_table, position_table=position_table)
    tokens, positions = signed(tokens), signed(positions)
    check_ids(tokens, positions, len(token_table), len(position_table))
    table = _HandedOn.apply(token_table)
    x = functional.embedding(tokens.long(), table, sparse=True)  # [batch, time, d_model]
    if positions is None:
        return x + position_table[: tokens.shape[1]], table
    return x + functional.embedding(positions.long(), position_table), table
