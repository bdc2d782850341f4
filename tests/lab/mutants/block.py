"""The decoder block, put together wrongly on purpose: see ../test_mutants.py."""

FILE = "kernels/decoder_block.py"

# name: (operation, dtype, file, what stands there once, what takes its place)
MUTANTS = {
    "block without its second residual": (
        "decoder_block",
        "float32",
        FILE,
        "return parts.linear(hidden, *mlp_proj, residual=stream)",
        "return parts.linear(hidden, *mlp_proj)",
    ),
    "pre-LN residual taken after the norm": (
        "decoder_block",
        "float32",
        FILE,
        "return parts.linear(hidden, *mlp_proj, residual=stream)",
        "return parts.linear(hidden, *mlp_proj, residual=z)",
    ),
    "post-LN residual from before the norm": (
        "decoder_block",
        "float32",
        FILE,
        "return parts.layer_norm(branch, *ln_2, residual=stream, eps=eps)[0]",
        "return parts.layer_norm(branch, *ln_2, residual=x, eps=eps)[0]",
    ),
    "the two norms' parameters exchanged": (
        "decoder_block",
        "bfloat16",
        FILE,
        "branch = drop(parts.linear(attend(x, *c_attn, *ln_1), *attn_proj))",
        "branch = drop(parts.linear(attend(x, *c_attn, *ln_2), *attn_proj))",
    ),
    "block without GELU": (
        "decoder_block",
        "float32",
        FILE,
        'hidden = parts.linear(z, *c_fc, activation="gelu")',
        "hidden = parts.linear(z, *c_fc)",
    ),
    "post-LN attention that reads normalised rows": (
        "decoder_block",
        "float32",
        FILE,
        "branch = drop(parts.linear(attend(x, *c_attn, None, None), *attn_proj))",
        "branch = drop(parts.linear(attend(x, *c_attn, *ln_1), *attn_proj))",
    ),
}
