"""The transformer's kernels, broken on purpose: see ../test_mutants.py."""

# name: (operation, dtype, file, what stands there once, what takes its place)
MUTANTS = {
    "online softmax without its rescale": (
        "softmax",
        "float32",
        "kernels/layers/softmax.py",
        "running_sum = running_sum * rescale + block_sum",
        "running_sum = running_sum + block_sum",
    ),
    "a load mask without its other": (
        "softmax",
        "float32",
        "kernels/layers/softmax.py",
        'other=-float("inf"))\n    x = x.to(tl.float32)  # [BLOCK_ROWS, BLOCK_KEYS]',
        ")\n    x = x.to(tl.float32)",
    ),
    "d_weight summed in bfloat16": (
        "layer_norm",
        "float32",
        "kernels/layers/layer_norm.py",
        "d_weight += d_y_tile * normalised",
        "d_weight = (d_weight + d_y_tile * normalised).to(tl.bfloat16).to(tl.float32)",
    ),
    "another variance in backward than the stored one": (
        "layer_norm",
        "bfloat16",
        "kernels/layers/layer_norm.py",
        "        x, weight, statistics = ctx.saved_tensors\n",
        "        x, weight, statistics = ctx.saved_tensors\n"
        "        unbiased = (1 - 1 / x.shape[-1]) ** 0.5\n"
        "        statistics = statistics * statistics.new_tensor([[1.0], [1.0], [unbiased]])\n",
    ),
    "last partial tile of rows forgotten": (
        "layer_norm",
        "float32",
        "kernels/layers/layer_norm.py",
        "n_tiles = tl.cdiv(n_rows, BLOCK_ROWS)",
        "n_tiles = n_rows // BLOCK_ROWS",
    ),
    "last partial block of the inner axis forgotten": (
        "linear",
        "bfloat16",
        "kernels/layers/linear.py",
        "for start in range(0, n_inner, BLOCK_K):",
        "for start in range(0, n_inner // BLOCK_K * BLOCK_K, BLOCK_K):",
    ),
    "epilogue's derivative without its second term": (
        "gelu",
        "float16",
        "kernels/layers/gelu.py",
        "return g + tl.clamp(x, -_SATURATED, _SATURATED) * slope",
        "return g",
    ),
    "d_b of all but the first block of rows": (
        "linear",
        "float32",
        "kernels/layers/linear.py",
        "partial_at = d_bias_partial_ptr + row_block * n_columns + columns",
        "partial_at = d_bias_partial_ptr + columns",
    ),
}
