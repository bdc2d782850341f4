"""The embedding of a model whose token table is also its head, on the CPU: one gradient for both.

The head's gradient is as large as the table, [vocab, d_model]; the embedding's has as many rows
that are not 0 as there are tokens. Left to themselves, the two meet as two whole tables: autograd
fills one with zeros, writes the few rows into it, and adds both into a third. At GPT-2's size that
is 0.6 GB through the memory in every step. Here the table goes through one autograd function on its
way to both uses, so its backward pass sees the head's gradient and adds the tokens' rows to it.
A table that the cache holds is left to autograd.
"""

import torch
from torch.autograd.function import once_differentiable

from ..layers.embedding import embedding

# Numbers of a table that the cache holds: 1 MB in float32.
SMALL = 2**18


class _TiedEmbedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tokens, token_table, position_table, positions):
        ctx.save_for_backward(tokens, positions)
        ctx.shapes = (token_table.shape, position_table.shape)
        ctx.set_materialize_grads(False)
        x = embedding(tokens, token_table, position_table, positions=positions)
        return x, token_table.view_as(token_table)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_x, d_head):
        tokens, positions = ctx.saved_tensors
        table_shape, position_shape = ctx.shapes
        if d_x is None:
            return None, d_head, None, None
        d_table, d_position_table = d_head, None
        if ctx.needs_input_grad[1]:
            d_table = d_x.new_zeros(table_shape) if d_head is None else d_head
            d_table.index_add_(0, tokens.reshape(-1).long(), d_x.flatten(0, 1))
        if ctx.needs_input_grad[2]:
            d_position_table = d_x.new_zeros(position_shape)
            if positions is None:
                d_position_table[: tokens.shape[1]] = d_x.sum(0)
            else:
                flat = positions.expand(tokens.shape).reshape(-1).long()
                d_position_table.index_add_(0, flat, d_x.flatten(0, 1))
        return None, d_table, d_position_table, None


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
    head : torch.Tensor [vocab, d_model]
        The table again. Its gradient is written into: for one product that makes a new one, such as
        `mean_cross_entropy`.

    Raises
    ------
    ValueError
        As in `embedding`.
    """
    if token_table.numel() <= SMALL:
        return embedding(tokens, token_table, position_table, positions=positions), token_table
    x, head = _TiedEmbedding.apply(tokens, token_table, position_table, positions)
    return x, head
