"""The kernels from the residual stream to the heads, broken on purpose: see ../test_by_hand.py."""

SHORT = "kernels/attention/qkv_attention_short.py"
FORWARD, BACKWARD = (
    "kernels/attention/qkv_projection.py",
    "kernels/attention/qkv_projection_backward.py",
)

# name: (operation, dtype, file, what stands there once, what takes its place)
MUTANTS = {
    "qkv: the walk over d_qkv stays in its first head": (
        "qkv_projection",
        "float32",
        BACKWARD,
        "head, number = columns // D_HEAD, columns % D_HEAD",
        "head, number = columns // D_HEAD * 0, columns % D_HEAD",
    ),
    "qkv: the values of the next head in the single launch": (
        "qkv_attention",
        "float32",
        SHORT,
        "value_columns = key_columns + tl.cast(n_head, tl.int64) * D_HEAD",
        "value_columns = key_columns + tl.cast(n_head - 1, tl.int64) * D_HEAD",
    ),
}
