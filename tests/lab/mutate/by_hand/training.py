"""The loss's and the optimizer's kernels, broken on purpose: see ../test_by_hand.py."""

# name: (operation, dtype, file, what stands there once, what takes its place)
MUTANTS = {
    "spans merged without their rescale": (
        "cross_entropy",
        "float32",
        "kernels/language/spans.py",
        "return new, total * factor + tile_total * tile_factor, weighted",
        "return new, total * factor + tile_total, weighted",
    ),
    "the decay coupled": (
        "adamw",
        "float32",
        "kernels/optimizer/adamw_update.py",
        "    new_first = first * step.beta_1",
        "    gradient += parameter * table_float(row, _WEIGHT_DECAY)\n"
        "    new_first = first * step.beta_1",
    ),
}
