"""The embedding's kernels, broken on purpose: see ../test_by_hand.py."""

# name: (operation, dtype, file, what stands there once, what takes its place)
MUTANTS = {
    "a chunk of several ids taken for one of its first": (
        "embedding",
        "float32",
        "kernels/layers/embedding.py",
        "first_chunk, last_chunk = (start + CHUNK - 1) // CHUNK, end // CHUNK",
        "first_chunk, last_chunk = start // CHUNK, end // CHUNK",
    ),
}
