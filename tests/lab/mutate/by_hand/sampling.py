"""The sampling kernel, broken on purpose: see ../test_by_hand.py."""

# name: (operation, dtype, file, what stands there once, what takes its place)
MUTANTS = {
    "all tokens tied at the threshold kept": (
        "sampling",
        "float32",
        "kernels/language/sampling.py",
        "kept = (keys > threshold) | ((tied == 1) & (rank <= n_tied))",
        "kept = (keys > threshold) | (tied == 1)",
    ),
}
