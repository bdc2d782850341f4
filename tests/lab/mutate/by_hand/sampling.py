"""The sampling kernel, broken on purpose: see ../test_mutants.py."""

# name: (operation, dtype, file, what stands there once, what takes its place)
MUTANTS = {
    "a threshold whose lowest bits are never looked for": (
        "sampling",
        "float32",
        "kernels/language/sampling.py",
        "for i in range(0, (32 - LOW_BITS) // 2):",
        "for i in range(0, (32 - LOW_BITS) // 2 - 8):",
    ),
    "all tokens tied at the threshold kept": (
        "sampling",
        "float32",
        "kernels/language/sampling.py",
        "kept = (keys > threshold) | ((tied == 1) & (rank <= n_tied))",
        "kept = (keys > threshold) | (tied == 1)",
    ),
    "ties counted anew in each block": (
        "sampling",
        "float32",
        "kernels/language/sampling.py",
        "            tied_before += tl.sum(tied, axis=0)\n",
        "",
    ),
    "a weight's polynomial one term short": (
        "sampling",
        "float32",
        "kernels/language/sampling.py",
        "    mantissa = _C3 - tl.umulhi(mantissa, fraction)\n",
        "",
    ),
    "every row the same random bits": (
        "sampling",
        "bfloat16",
        "kernels/language/sampling.py",
        "tl.philox(seed, row.to(tl.uint32), ",
        "tl.philox(seed, (row * 0).to(tl.uint32), ",
    ),
    "negative logits in the wrong order": (
        "sampling",
        "bfloat16",
        "kernels/language/sampling.py",
        "flipped = (bits >> 31).to(tl.uint32, bitcast=True) | _SIGN",
        "flipped = (bits * 0).to(tl.uint32, bitcast=True) | _SIGN",
    ),
    "log-probability under temperature 1": (
        "sampling",
        "float32",
        "kernels/language/sampling.py",
        "(x_token - row_max) * inverse_temperature - log_total",
        "(x_token - row_max) - log_total",
    ),
}
