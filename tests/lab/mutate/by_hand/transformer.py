"""The transformer's kernels, broken on purpose: see ../test_by_hand.py."""

# name: (operation, dtype, file, what stands there once, what takes its place)
MUTANTS = {
    "online softmax without its rescale": (
        "softmax",
        "float32",
        "kernels/layers/softmax.py",
        "running_sum = running_sum * rescale + block_sum",
        "running_sum = running_sum + block_sum",
    ),
    "another variance in backward than the stored one": (
        "layer_norm",
        "bfloat16",
        "kernels/layers/layer_norm.py",
        "        x, weight, statistics = ctx.saved_tensors\n",
        "        x, weight, statistics = ctx.saved_tensors\n"
        "        unbiased = (1 - 1 / x.shape[-1]) ** 0.5\n"
        "        statistics = statistics * statistics.new_tensor([[1.0], [1.0], [unbiased]])\n",
    ),
    "epilogue's derivative without its second term": (
        "gelu",
        "float16",
        "kernels/layers/gelu.py",
        "return g + x * slope",
        "return g",
    ),
}
