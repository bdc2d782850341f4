"""Attention's kernels, broken on purpose: see ../test_mutants.py."""

FORWARD, BACKWARD = "kernels/attention/attention.py", "kernels/attention/attention_backward.py"
KEYS, TILES = "kernels/attention/attention_backward_keys.py", "kernels/attention/attention_tiles.py"

# name: (operation, dtype, file, what stands there once, what takes its place)
MUTANTS = {
    "causal mask hides a query's own key": (
        "attention",
        "float32",
        TILES,
        "high = queries + (n_key - n_query) + 1\n",
        "high = queries + (n_key - n_query)\n",
    ),
    "window one key too wide": (
        "attention",
        "float32",
        TILES,
        "low = tl.maximum(low, high - window)",
        "low = tl.maximum(low, high - window - 1)",
    ),
    "accumulator not rescaled when the maximum rises": (
        "attention",
        "bfloat16",
        FORWARD,
        "accumulator = accumulator * rescale[:, None]",
        "accumulator = accumulator * 1.0",
    ),
    "last partial block of keys forgotten": (
        "attention",
        "float16",
        TILES,
        "(tl.minimum(full_start, end), full_end, end)",
        "(tl.minimum(full_start, end), full_end, full_end)",
    ),
    "d_key and d_value swapped": (
        "attention",
        "float32",
        BACKWARD,
        "return d_query, d_key, d_value\n",
        "return d_query, d_value, d_key\n",
    ),
    "delta forgotten": (
        "attention",
        "bfloat16",
        KEYS,
        "p * (d_p - delta[None, :])",
        "p * d_p",
    ),
    "scale applied twice in backward": (
        "attention",
        "float16",
        BACKWARD,
        "d_query * scale",
        "d_query * scale * scale",
    ),
    "key head indexed by the query head": (
        "attention",
        "float32",
        FORWARD,
        "kv_head = head // GROUP",
        "kv_head = head % (n_head // GROUP)",
    ),
    "gradient of lse dropped": (
        "attention",
        "float32",
        BACKWARD,
        "HAS_D_LSE=d_lse is not None",
        "HAS_D_LSE=False",
    ),
}
