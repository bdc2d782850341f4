"""Causal attention in three small kernels, each a rung above the last; attention.py is the top.

    output[i] = Σ_{j ≤ i} p[i, j] · value[j]      p[i, :] = softmax(scale · query[i] · key[:i + 1])

    rung 1  all scores       one query a program; every score of its row is held at once
    rung 2  one pass         a tile of queries walks along the keys and rescales as it goes
    rung 3  tiles skipped    tiles that no query sees are not read; tiles that all see need no mask

Each kernel computes the same numbers; what changes is how much is read, held and compared. query,
key and value are float32 [head, time, d_head], contiguous, and d_head is a power of two from 16 on:
so the address of row t is head · time · d_head + t · d_head, and there are no strides to carry.

Reads, in tiles of BLOCK rows with n = time / BLOCK: rung 1 reads the keys once for each query, rung
2 once for each tile of queries (n² tiles in all), rung 3 half of that (n·(n + 1) / 2).

From rung 3 it is four steps to attention.py: other masks than the causal one (they are intervals,
too), heads that share keys, dropout, and a gradient.
"""

import math

import torch

from ...core.checks import refuse
from ..common._triton import tl, triton
from ..common.launch import launch, runs_on_triton

BLOCK = 32


@triton.jit
def all_scores_kernel(query, key, value, output, time, scale, D: tl.constexpr, KEYS: tl.constexpr):
    """Rung 1: one query. KEYS is the time rounded up to a power of two."""
    i, head = tl.program_id(0), tl.program_id(1).to(tl.int64) * time * D
    d, j = tl.arange(0, D), tl.arange(0, KEYS)
    seen = j <= i
    tile = head + j[:, None] * D + d[None, :]  # [key, feature]
    q = tl.load(query + head + i * D + d)  # [feature]
    k = tl.load(key + tile, mask=seen[:, None], other=0.0)
    scores = tl.where(seen, tl.sum(k * q[None, :], axis=1) * scale, -float("inf"))  # [key]
    weights = tl.exp(scores - tl.max(scores))
    v = tl.load(value + tile, mask=seen[:, None], other=0.0)
    mixed = tl.sum(weights[:, None] * v, axis=0)  # [feature]
    tl.store(output + head + i * D + d, mixed / tl.sum(weights))


@triton.jit
def take_in(state, q, key, value, first, queries, time, MASKED: tl.constexpr):
    """Add a tile of keys to what each query has so far: its maximum, sum and weighted values."""
    top, total, mixed = state
    keys = first + tl.arange(0, q.shape[0])
    tile = keys[:, None] * q.shape[1] + tl.arange(0, q.shape[1])[None, :]  # [key, feature]
    k = tl.load(key + tile, mask=keys[:, None] < time, other=0.0)
    scores = tl.dot(q, tl.trans(k), input_precision="ieee")  # [query, key]
    if MASKED:
        scores = tl.where(keys[None, :] <= queries[:, None], scores, -float("inf"))
    new_top = tl.maximum(top, tl.max(scores, axis=1))
    weights = tl.exp(scores - new_top[:, None])
    # What was summed so far was measured from the old maximum.
    rescale = tl.exp(top - new_top)
    v = tl.load(value + tile, mask=keys[:, None] < time, other=0.0)
    mixed = mixed * rescale[:, None] + tl.dot(weights, v, input_precision="ieee")
    return new_top, total * rescale + tl.sum(weights, axis=1), mixed


@triton.jit
def one_pass_kernel(query, key, value, output, time, scale, D: tl.constexpr, BLOCK: tl.constexpr):
    """Rung 2: a tile of queries and all tiles of keys, each behind the mask."""
    head = tl.program_id(1).to(tl.int64) * time * D
    queries = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    rows = head + queries[:, None] * D + tl.arange(0, D)[None, :]  # [query, feature]
    q = tl.load(query + rows, mask=queries[:, None] < time, other=0.0) * scale
    state = (
        tl.full([BLOCK], -float("inf"), tl.float32),
        tl.zeros([BLOCK], tl.float32),
        tl.zeros([BLOCK, D], tl.float32),
    )
    for first in range(0, time, BLOCK):
        state = take_in(state, q, key + head, value + head, first, queries, time, True)
    _, total, mixed = state
    tl.store(output + rows, mixed / total[:, None], mask=queries[:, None] < time)


@triton.jit
def skipping_kernel(query, key, value, output, time, scale, D: tl.constexpr, BLOCK: tl.constexpr):
    """Rung 3: the tiles before the diagonal without a mask, the one on it with, none behind it."""
    head = tl.program_id(1).to(tl.int64) * time * D
    diagonal = tl.program_id(0) * BLOCK
    queries = diagonal + tl.arange(0, BLOCK)
    rows = head + queries[:, None] * D + tl.arange(0, D)[None, :]  # [query, feature]
    q = tl.load(query + rows, mask=queries[:, None] < time, other=0.0) * scale
    state = (
        tl.full([BLOCK], -float("inf"), tl.float32),
        tl.zeros([BLOCK], tl.float32),
        tl.zeros([BLOCK, D], tl.float32),
    )
    for first in range(0, diagonal, BLOCK):
        state = take_in(state, q, key + head, value + head, first, queries, time, False)
    state = take_in(state, q, key + head, value + head, diagonal, queries, time, True)
    _, total, mixed = state
    tl.store(output + rows, mixed / total[:, None], mask=queries[:, None] < time)


KERNELS = (all_scores_kernel, one_pass_kernel, skipping_kernel)


def ladder(rung: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Compute causal attention by one rung of the ladder.

    Parameters
    ----------
    rung : int
        1, 2 or 3.
    query, key, value : torch.Tensor of float32 [head, time, d_head]
        Contiguous; d_head a power of two from 16 on. For the kernels alone: there is no eager form.

    Returns
    -------
    torch.Tensor of float32 [head, time, d_head]

    Raises
    ------
    ValueError
        If the rung, a shape, a dtype or a layout is another.
    RuntimeError
        If Triton cannot run here.
    """
    if rung not in (1, 2, 3):
        refuse("rung", "1, 2 or 3", str(rung))
    for name, x in {"query": query, "key": key, "value": value}.items():
        if x.dtype != torch.float32 or x.ndim != 3 or not x.is_contiguous():
            got = f"{x.dtype} of shape {tuple(x.shape)}"
            refuse(name, "contiguous float32 [head, time, d_head]", got, "attention takes any")
        if x.shape != query.shape:
            refuse(name, f"query's shape {tuple(query.shape)}", f"{tuple(x.shape)}")
    n_head, time, d = query.shape
    if d < 16 or d & (d - 1):
        refuse("query", "a power of two from 16 on as d_head", str(d), "attention takes any")
    runs_on_triton("ladder", query=query, key=key, value=value)
    output = torch.empty_like(query)
    if rung == 1:
        grid, constants = (time, n_head), {"KEYS": triton.next_power_of_2(time)}
    else:
        grid, constants = (triton.cdiv(time, BLOCK), n_head), {"BLOCK": BLOCK}
    scale = 1 / math.sqrt(d)
    launch(KERNELS[rung - 1], grid, query, key, value, output, time, scale, D=d, **constants)
    return output
