"""Embedding: a row of the token table plus a row of the position table, for every token.

    y[b, t] = token_table[tokens[b, t]] + position_table[positions[b, t]],   positions[b, t] = t

unless positions are given, as left-padded or packed sequences need them.

Backward, a row of a table gets the sum of the gradients wherever it was looked up: a scatter-add.
The order of that sum is the whole difficulty: threads that add into one row need atomics, and then
the result changes from run to run.

The file climbs: `scatter_add` is the definition; `scatter_add_sorted` is the kernel's way. A stable
sort brings equal ids together, so that the sources of one row are an interval of the sorted order,
and one program can add them up in that order and write the row once, also where the sum is empty.
A row that half the text looks up would keep its program busy while all others have finished: so
the sorted order is first cut into chunks of equal length, every chunk that holds one id alone is
summed by itself (a hot row's chunks all at once), and the row then adds whole chunks:

    sorted ids   3 3 5 7 │ 7 7 7 7 │ 7 7 7 7 │ 7 8 8 9       chunks of 4
    row 7              •   •──────   •──────   •             = head + 2 chunks + tail

Edge semantics, the same in both twins: ids are integers and must lie in their table. NumPy arrays
and tensors on the CPU are checked, and refused by name. On a GPU a check would make the host wait
for the device at every step: there an id out of range makes its row NaN, is never used as an
address and adds to no gradient. A row that is never looked up has gradient 0.
"""

from typing import Any

import numpy as np

from ..checks import (
    all_below,
    expect_floats,
    expect_integers,
    expect_positive,
    expect_shape,
    refuse,
)
from ..operation import at_least_float32, value_of

Saved = tuple[Any, ...]


@at_least_float32
def embedding_forward(
    tokens: np.ndarray,
    token_table: np.ndarray,
    position_table: np.ndarray,
    *,
    positions: np.ndarray | None = None,
) -> tuple[np.ndarray, Saved]:
    """Look up each token and its position, and add the two: the definition.

    Parameters
    ----------
    tokens : numpy.ndarray of integers [batch, time]
        Ids below vocab.
    token_table : numpy.ndarray [vocab, d_model]
        One row for each token.
    position_table : numpy.ndarray [n_ctx, d_model]
        One row for each position.
    positions : numpy.ndarray of integers [batch, time], optional
        Positions below n_ctx; 0, 1, 2, ... in each row if not given, and then time is at most
        n_ctx.

    Returns
    -------
    y : numpy.ndarray [batch, time, d_model]
        The sums.
    saved : tuple
        For `embedding_backward`: the ids and the tables' lengths, not the tables.

    Raises
    ------
    ValueError
        If a shape or dtype is wrong, or an id lies outside its table.
    """
    check_embedding(tokens, token_table, position_table, positions)
    if positions is None:
        positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    check_ids(tokens, positions, len(token_table), len(position_table))
    y = token_table[tokens] + position_table[positions]  # [batch, time, d_model]
    return y, (tokens, positions, len(token_table), len(position_table))


embedding = value_of(embedding_forward)


@at_least_float32
def embedding_backward(saved: Saved, d_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Carry the gradient from the sums back to the rows that were looked up.

    Parameters
    ----------
    saved : tuple
        From `embedding_forward`.
    d_y : numpy.ndarray [batch, time, d_model]
        Gradient of the loss with respect to the result.

    Returns
    -------
    d_token_table : numpy.ndarray [vocab, d_model]
        0 in the rows of unused tokens.
    d_position_table : numpy.ndarray [n_ctx, d_model]
        0 in the rows of unused positions.

    Raises
    ------
    ValueError
        If `d_y` is not [batch, time, d_model].
    """
    tokens, positions, vocab, n_ctx = saved
    expect_shape("d_y", d_y, (*tokens.shape, d_y.shape[-1]), "[batch, time, d_model] of y")
    rows = d_y.reshape(tokens.size, d_y.shape[-1])  # [batch * time, d_model]
    return (
        scatter_add(tokens.reshape(-1), rows, vocab),
        scatter_add(positions.reshape(-1), rows, n_ctx),
    )


@at_least_float32
def scatter_add(ids: np.ndarray, rows: np.ndarray, n_rows: int) -> np.ndarray:
    """Add each row [source, d_model] to the sum of its id [source]: the definition."""
    sums = np.zeros((n_rows, rows.shape[-1]), dtype=rows.dtype)
    np.add.at(sums, ids, rows)  # sums[id] += row, also where an id comes twice
    return sums


@at_least_float32
def scatter_add_sorted(ids: np.ndarray, rows: np.ndarray, n_rows: int, chunk: int) -> np.ndarray:
    """Compute the same by sorting the ids and summing intervals of the sorted order."""
    expect_positive("chunk", chunk)
    order = np.argsort(ids, kind="stable")  # It brings equal ids together.
    bounds = np.searchsorted(ids[order], np.arange(n_rows + 1))  # [row + 1]
    n_chunks = len(ids) // chunk
    # A chunk of several ids is summed here too, but no row takes it.
    in_chunks = rows[order[: n_chunks * chunk]].reshape(n_chunks, chunk, rows.shape[-1])
    chunk_sums = in_chunks.sum(axis=1)  # [chunk, d_model]

    sums = np.zeros((n_rows, rows.shape[-1]), dtype=rows.dtype)
    for row in range(n_rows):
        start, end = bounds[row], bounds[row + 1]
        first_chunk, last_chunk = -(-start // chunk), end // chunk  # They lie inside it.
        head_end = min(end, first_chunk * chunk)
        tail_start = max(head_end, last_chunk * chunk)
        sums[row] = rows[order[start:head_end]].sum(axis=0)
        sums[row] += chunk_sums[first_chunk:last_chunk].sum(axis=0)
        sums[row] += rows[order[tail_start:end]].sum(axis=0)
    return sums


def check_embedding(tokens: Any, token_table: Any, position_table: Any, positions: Any) -> None:
    """Refuse what `embedding` has no meaning for; the ids' values are not looked at."""
    expect_floats(token_table=token_table, position_table=position_table)
    for name, table, meaning in (
        ("token_table", token_table, "[vocab, d_model]"),
        ("position_table", position_table, "[n_ctx, d_model]"),
    ):
        if len(table.shape) != 2:
            refuse(name, f"2 dimensions {meaning}", f"shape {tuple(table.shape)}")
    n_ctx, d_model = position_table.shape
    if token_table.shape[1] != d_model:
        cause = "tables of two models, or a transposed one"
        expect_shape("position_table", position_table, (n_ctx, token_table.shape[1]), cause)
    if len(tokens.shape) != 2:
        cause = "one sequence without its batch axis"
        refuse("tokens", "2 dimensions [batch, time]", f"shape {tuple(tokens.shape)}", cause)
    expect_integers(tokens=tokens, positions=positions)
    if positions is not None:
        expect_shape("positions", positions, tokens.shape, "[batch, time] of tokens")
    elif tokens.shape[1] > n_ctx:
        cause = "a sequence longer than the model's context"
        refuse("tokens", f"time of at most n_ctx = {n_ctx}", f"time {tokens.shape[1]}", cause)


def check_ids(tokens: Any, positions: Any, vocab: int, n_ctx: int) -> None:
    """Refuse ids outside their table. Reads the values: on a GPU, that waits for the device."""
    for name, ids, n_rows, cause in (
        ("tokens", tokens, vocab, "another tokenizer's ids, or a label of -100"),
        ("positions", positions, n_ctx, "a sequence longer than n_ctx, or padding's -1"),
    ):
        if ids is None or all_below(ids, n_rows):
            continue
        ids = np.asarray(ids)  # PyTorch would wrap n_rows to a narrow dtype: 256 is 0 in uint8.
        wrong = np.argwhere((ids < 0) | (ids >= n_rows))
        at = tuple(int(index) for index in wrong[0])
        refuse(name, f"0 to {n_rows - 1}", f"{int(ids[at])} at {at}", cause)
