"""The kernels from the residual stream to the heads, broken on purpose: see ../test_mutants.py."""

SHORT = "kernels/attention/qkv_attention_short.py"
FORWARD, BACKWARD = (
    "kernels/attention/qkv_projection.py",
    "kernels/attention/qkv_projection_backward.py",
)

# name: (operation, dtype, file, what stands there once, what takes its place)
MUTANTS = {
    "qkv: the first two heads swapped in the packed buffer": (
        "qkv_projection",
        "float32",
        FORWARD,
        "at = packed_offsets(rows[:, None], columns[None, :], n_rows, D_HEAD)",
        "swapped = tl.where(columns < 2 * D_HEAD, (columns + D_HEAD) % (2 * D_HEAD), columns)\n"
        "    at = packed_offsets(rows[:, None], swapped[None, :], n_rows, D_HEAD)",
    ),
    "qkv: the walk over d_qkv stays in its first head": (
        "qkv_projection",
        "float32",
        BACKWARD,
        "head, number = columns // D_HEAD, columns % D_HEAD",
        "head, number = columns // D_HEAD * 0, columns % D_HEAD",
    ),
    "qkv: d_b without the last block of rows": (
        "qkv_projection",
        "float32",
        BACKWARD,
        "for _ in range(0, n_rows, BLOCK_K):\n            inside",
        "for _ in range(0, n_rows - BLOCK_K, BLOCK_K):\n            inside",
    ),
    "qkv: the norm's weight forgotten in d_w": (
        "qkv_projection",
        "bfloat16",
        BACKWARD,
        "gain, shift = load_norm(norm_weight_ptr, norm_bias_ptr, features, d_model)",
        "gain, shift = load_norm(norm_bias_ptr, norm_bias_ptr, features, d_model)",
    ),
    "qkv: what lies beyond the last feature counted into the variance": (
        "qkv_projection",
        "float16",
        "kernels/attention/qkv_norm.py",
        "distance = tl.where(inside, tile - mean[:, None], 0.0)",
        "distance = x - mean[:, None]",
    ),
    "qkv: values handed to attention as keys, and keys as values": (
        "qkv_attention",
        "float32",
        "kernels/attention/qkv_attention.py",
        "    query, key, value = packed_views(packed, n_head)\n",
        "    query, value, key = packed_views(packed, n_head)\n",
    ),
    "qkv: the values of the next head in the single launch": (
        "qkv_attention",
        "float32",
        SHORT,
        "value_columns = key_columns + tl.cast(n_head, tl.int64) * D_HEAD",
        "value_columns = key_columns + tl.cast(n_head - 1, tl.int64) * D_HEAD",
    ),
    "qkv: padding seen in the single launch": (
        "qkv_attention",
        "float32",
        SHORT,
        "key_inside = key_inside & (positions >= tl.load(key_start_ptr + batch))",
        "key_inside = key_inside & (positions >= 0)",
    ),
    "qkv: the single launch's lse, which backward needs, in base 2": (
        "qkv_attention",
        "bfloat16",
        SHORT,
        "(origin + tl.log2(total)) * _LN_2",
        "(origin + tl.log2(total))",
    ),
}
