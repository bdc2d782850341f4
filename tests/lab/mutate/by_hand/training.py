"""The loss's and the optimizer's kernels, broken on purpose: see ../test_mutants.py."""

# name: (operation, dtype, file, what stands there once, what takes its place)
MUTANTS = {
    "the ignored tokens count in the mean": (
        "cross_entropy",
        "float32",
        "kernels/language/cross_entropy.py",
        "total / counted.sum().clamp(min=1)",
        "total / max(len(counted), 1)",
    ),
    "the target is one column too far right": (
        "cross_entropy",
        "bfloat16",
        "kernels/language/token_scores.py",
        "target_at = (target - first).to(tl.int32)",
        "target_at = (target + 1 - first).to(tl.int32)",
    ),
    "d_x takes another column for the target's": (
        "cross_entropy",
        "float16",
        "kernels/language/token_scores.py",
        "is_target = tl.arange(0, BLOCK_N)[None, :] == target_at[:, None]",
        "is_target = tl.arange(0, BLOCK_N)[None, :] + 1 == target_at[:, None]",
    ),
    "columns beyond the vocabulary count": (
        "cross_entropy",
        "float32",
        "kernels/language/token_scores.py",
        "x = tl.where(column_inside[None, :], x, _LOWEST)\n        tile_maximum",
        "tile_maximum",
    ),
    "spans merged without their rescale": (
        "cross_entropy",
        "float32",
        "kernels/language/token_scores.py",
        "return new, total * factor + tile_total * tile_factor, weighted",
        "return new, total * factor + tile_total, weighted",
    ),
    "the entropy's sum stays relative to the old maximum": (
        "cross_entropy",
        "float32",
        "kernels/language/token_scores.py",
        "weighted = (weighted + fell * total) * factor",
        "weighted = weighted * factor",
    ),
    "the bias correction one step late": (
        "adamw",
        "float32",
        "kernels/optimizer/adamw_update.py",
        "coefficients(step, lr, betas, eps, epsilon)",
        "coefficients(step + 1, lr, betas, eps, epsilon)",
    ),
    "the decay coupled": (
        "adamw",
        "float32",
        "kernels/optimizer/adamw_update.py",
        "    new_first = first * step.beta_1",
        "    gradient += parameter * table_float(row, _WEIGHT_DECAY)\n"
        "    new_first = first * step.beta_1",
    ),
    "the clip forgotten": (
        "adamw",
        "float16",
        "kernels/optimizer/adamw_update.py",
        "gradient = gradient * tl.minimum(step.max_norm / (norm + _CLIP_EPS), 1.0)",
        "gradient = gradient * tl.minimum(step.max_norm / _CLIP_EPS, 1.0)",
    ),
    "a norm of the first tensors alone": (
        "adamw",
        "bfloat16",
        "kernels/optimizer/adamw_update.py",
        "for start in range(0, n_partial, BLOCK):",
        "n_partial = n_partial - 1\n    for start in range(0, n_partial, BLOCK):",
    ),
    "the second moment forgets to square": (
        "adamw",
        "float32",
        "kernels/optimizer/adamw_update.py",
        "new_second = second * step.beta_2 + gradient * gradient * step.rest_2",
        "new_second = second * step.beta_2 + tl.abs(gradient) * step.rest_2",
    ),
    "TensorFlow's epsilon in PyTorch's place": (
        "adamw",
        "float32",
        "kernels/optimizer/adamw_update.py",
        "root = tl.sqrt(new_second) * step.root_correction + step.eps",
        "root = (tl.sqrt(new_second) + step.eps) * step.root_correction",
    ),
    "the last block of a tensor not updated": (
        "adamw",
        "float32",
        "kernels/optimizer/tensor_table.py",
        "        tl.store(pointer + at, block, mask=at < left)",
        "        tl.store(pointer + at, block, mask=at < left - 1)",
    ),
}
