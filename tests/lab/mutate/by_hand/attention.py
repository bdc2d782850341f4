"""Attention's kernels, broken on purpose: see ../test_by_hand.py."""

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
    "accumulator not rescaled when the maximum rises": (
        "attention",
        "bfloat16",
        FORWARD,
        "accumulator = accumulator * rescale[:, None]",
        "accumulator = accumulator * 1.0",
    ),
}
