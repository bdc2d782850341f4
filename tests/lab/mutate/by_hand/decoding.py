"""The kernels of generation, broken on purpose: see ../test_mutants.py."""

FILE = "kernels/attention/decode_attention.py"

# name: (operation, dtype, file, what stands there once, what takes its place)
MUTANTS = {
    "decoding: keys beyond the length are read": (
        "decode_attention",
        "float32",
        FILE,
        "last = tl.minimum(length, capacity)",
        "last = tl.cast(capacity, tl.int64)",
    ),
    "decoding: pieces averaged, not weighted by their lse": (
        "decode_attention",
        "float32",
        FILE,
        "weights = tl.exp2((lses - origin) * _LOG2_E)",
        'weights = tl.where(lses > -float("inf"), 1.0, 0.0)',
    ),
    "decoding: the accumulator without its rescale": (
        "decode_attention",
        "float32",
        FILE,
        "accumulator = accumulator * rescale[:, None]",
        "accumulator = accumulator * 1.0",
    ),
    "decoding: every new position sees the newest key": (
        "decode_attention",
        "bfloat16",
        FILE,
        "position = length - n_query + new",
        "position = length - 1 + new * 0",
    ),
    "decoding: query heads dealt out to the key heads in turn": (
        "decode_attention",
        "float16",
        FILE,
        "head = kv_head * group + row // n_query",
        "head = kv_head + row // n_query * n_kv_head",
    ),
    "decoding: the window one key too wide": (
        "decode_attention",
        "float32",
        FILE,
        "low = position - window + 1",
        "low = position - window",
    ),
}
