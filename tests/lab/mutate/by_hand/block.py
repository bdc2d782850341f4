"""The decoder block, put together wrongly on purpose: see ../test_by_hand.py."""

FILE = "kernels/model/decoder_block.py"

# name: (operation, dtype, file, what stands there once, what takes its place)
MUTANTS = {
    "pre-LN residual taken after the norm": (
        "decoder_block",
        "float32",
        FILE,
        "return parts.mlp(z, *c_fc, *mlp_proj, stream)",
        "return parts.mlp(z, *c_fc, *mlp_proj, z)",
    ),
    "the two norms' parameters exchanged": (
        "decoder_block",
        "bfloat16",
        FILE,
        "branch = drop(parts.linear(attend(x, *c_attn, *ln_1, first=first), *attn_proj))",
        "branch = drop(parts.linear(attend(x, *c_attn, *ln_2, first=first), *attn_proj))",
    ),
}
