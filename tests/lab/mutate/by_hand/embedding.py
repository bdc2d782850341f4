"""The embedding's kernels, broken on purpose: see ../test_mutants.py."""

# name: (operation, dtype, file, what stands there once, what takes its place)
MUTANTS = {
    "a row's whole chunks forgotten": (
        "embedding",
        "float32",
        "kernels/layers/embedding.py",
        "        sums += tl.load(sums_at, mask=inside, other=0.0)\n",
        "",
    ),
    "a tail that starts with the last whole chunk": (
        "embedding",
        "float32",
        "kernels/layers/embedding.py",
        "tail_start = tl.maximum(head_end, last_chunk * CHUNK)",
        "tail_start = tl.maximum(head_end, last_chunk * CHUNK - CHUNK)",
    ),
    "a chunk of several ids taken for one of its first": (
        "embedding",
        "float32",
        "kernels/layers/embedding.py",
        "first_chunk, last_chunk = (start + CHUNK - 1) // CHUNK, end // CHUNK",
        "first_chunk, last_chunk = start // CHUNK, end // CHUNK",
    ),
    "given positions ignored": (
        "embedding",
        "bfloat16",
        "kernels/layers/embedding.py",
        "position = rows % time if positions is None else _load_ids(positions, rows, real, time)",
        "position = rows % time",
    ),
}
