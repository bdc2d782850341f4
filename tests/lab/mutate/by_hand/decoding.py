"""The kernels of generation, broken on purpose: see ../test_by_hand.py."""

FILE = "kernels/attention/decode_attention.py"

# name: (operation, dtype, file, what stands there once, what takes its place)
MUTANTS = {
    "decoding: pieces averaged, not weighted by their lse": (
        "decode_attention",
        "float32",
        FILE,
        "weights = tl.exp2((lses - origin) * _LOG2_E)",
        'weights = tl.where(lses > -float("inf"), 1.0, 0.0)',
    ),
}
