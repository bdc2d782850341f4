"""The twin of the embedding: tokens and positions in, the first residual state out."""

from typing import Any

from hypothesis import strategies as st

from ....core.layers import embedding as core_embedding
from ....kernels.layers import embedding as triton_embedding
from ..strategies import any_tensors, sizes
from ..twin import Case, Cost, Draw, Inputs, Rows, Twin, floats


def _inputs(case: Case, draw: Draw) -> Inputs:
    shape, vocab, n_ctx, d_model = case["shape"], case["vocab"], case["n_ctx"], case["d_model"]
    # Token 0 is in most places where `hot` is large, and its sum takes whole chunks.
    rare = draw.mask(*shape, share=1 - case.get("hot", 0.0))
    options: dict[str, Any] = {"tokens": draw.integers(*shape, below=vocab) * rare}
    if case.get("positions"):
        options["positions"] = draw.integers(*shape, below=n_ctx)
    tensors = {
        "token_table": draw.normal(vocab, d_model),
        "position_table": draw.normal(n_ctx, d_model, std=0.5),
    }
    return Inputs(tensors, options)


def _cost(case: Case, itemsize: int) -> tuple[Cost, Cost]:
    (batch, time), d_model = case["shape"], case["d_model"]
    n_tokens = batch * time
    ids = {"tokens": 8 * n_tokens}
    if case.get("positions"):
        ids["positions"] = 8 * n_tokens
    n_positions = case["n_ctx"] if case.get("positions") else time
    y, row = n_tokens * d_model, d_model
    used = floats(
        itemsize,
        token_table=min(case["vocab"], n_tokens) * row,
        position_table=min(n_positions, n_tokens) * row,
    )
    every = floats(
        itemsize, d_token_table=case["vocab"] * row, d_position_table=case["n_ctx"] * row
    )
    return (
        Cost(y, used | ids, floats(itemsize, y=y)),
        Cost(2 * y, floats(itemsize, d_y=y) | ids, every),
    )


_CHUNK = triton_embedding.CHUNK

_CONTRACTS = {
    "embedding_forward_kernel": """
        tokens[n_batch, time]; positions[n_batch, time]; n_tokens == n_batch * time
        token_table[vocab, d_model]; position_table[n_ctx, d_model]; y_ptr[n_tokens, d_model]
        grid[cdiv(n_tokens, BLOCK_ROWS), cdiv(d_model, BLOCK_FEATURES)]
    """,
    "embedding_chunk_kernel": """
        d_y[n_batch, time, d_model]; time >= 1
        order_ptr[n_sources]; 0 <= order_ptr.value < n_batch * time
        sorted_ids_ptr[n_sources]; chunk_sums_ptr[n_sources // CHUNK, d_model]
        partly(chunk_sums_ptr)
        grid[n_sources // CHUNK, cdiv(d_model, BLOCK_FEATURES)]
    """,
    "embedding_backward_kernel": """
        d_y[n_batch, time, d_model]; time >= 1
        order_ptr[n_sources]; 0 <= order_ptr.value < n_batch * time
        bounds_ptr[n_rows + 1]; 0 <= bounds_ptr.value <= n_sources
        chunk_sums_ptr[n_sources // CHUNK, d_model]; d_table_ptr[n_rows, d_model]
        grid[cdiv(n_rows, BLOCK_ROWS), cdiv(d_model, BLOCK_FEATURES)]
    """,
}

embedding = Twin(
    name="embedding",
    forward=core_embedding.embedding_forward,
    backward=core_embedding.embedding_backward,
    kernel=triton_embedding.embedding,
    eager=triton_embedding.embedding_eager,
    arguments=("token_table", "position_table"),
    results=("y",),
    cases=st.fixed_dictionaries(
        {
            "shape": st.tuples(st.integers(0, 2), st.integers(0, 40)).map(list),
            "vocab": st.sampled_from([1, 3, 16]),
            "n_ctx": st.sampled_from([40, 41, 50]),
            "d_model": sizes((1, 40), (257, 300)),
            "hot": st.sampled_from([0.0, 0.5, 1.0]),
            "positions": st.booleans(),
            **any_tensors,
        }
    ),
    corners=(
        {"shape": [3, 60], "vocab": 20, "n_ctx": 62, "d_model": 77, "hot": 0.7, "seed": 1},
        # one id and one position at a time, in exactly whole chunks
        {
            "shape": [2, 2 * _CHUNK], "vocab": 2, "n_ctx": 64, "d_model": 300, "hot": 1.0,
            "positions": True, "seed": 2,
        },
        # There are more batches than a chunk holds, so default positions fill chunks too.
        {"shape": [2 * _CHUNK + 3, 3], "vocab": 5, "n_ctx": 4, "d_model": 16, "seed": 3},
    ),
    inputs=_inputs,
    real=lambda a: Inputs(
        {"token_table": a["token_table"], "position_table": a["position_table"]},
        {"tokens": a["tokens"]},
    ),
    shapes={
        "gpt2": {"shape": [8, 1024], "vocab": 50257, "n_ctx": 1024, "d_model": 768},
        "gpt2-xl, left-padded": {
            "shape": [8, 1000], "vocab": 50257, "n_ctx": 1024, "d_model": 1600, "positions": True,
        },
        "bytes": {"shape": [64, 256], "vocab": 256, "n_ctx": 256, "d_model": 384},
    },
    cost=_cost,
    contracts=_CONTRACTS,
    rows=Rows(dict.fromkeys(("tokens", "positions", "y"), 0)),
    studies=(
        {"shape": [2, 12], "vocab": 5, "n_ctx": 14, "d_model": 40, "seed": 1},
        {"shape": [2, 2 * _CHUNK], "vocab": 2, "n_ctx": 3, "d_model": 20, "hot": 0.9,
         "positions": True, "seed": 2},
        {"shape": [1, 3], "vocab": 1, "n_ctx": 3, "d_model": 5},
    ),
    extremes=({"shape": [2, 3], "vocab": 9, "n_ctx": 4, "d_model": 2},),
    axes=dict.fromkeys(("tokens", "positions"), "batch time")
    | {"token_table": "token d_model", "position_table": "position d_model"}
    | {"y": "batch time d_model"},
)  # fmt: skip
