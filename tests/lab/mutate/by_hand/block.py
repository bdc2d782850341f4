"""The decoder block, put together wrongly on purpose: see ../test_mutants.py."""

FILE = "kernels/model/decoder_block.py"

# name: (operation, dtype, file, what stands there once, what takes its place)
MUTANTS = {
    "block without its second residual": (
        "decoder_block",
        "float32",
        FILE,
        "return parts.mlp(z, *c_fc, *mlp_proj, stream)",
        "return parts.mlp(z, *c_fc, *mlp_proj)",
    ),
    "pre-LN residual taken after the norm": (
        "decoder_block",
        "float32",
        FILE,
        "return parts.mlp(z, *c_fc, *mlp_proj, stream)",
        "return parts.mlp(z, *c_fc, *mlp_proj, z)",
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
        "branch = drop(parts.linear(attend(x, *c_attn, *ln_1, first=first), *attn_proj))",
        "branch = drop(parts.linear(attend(x, *c_attn, *ln_2, first=first), *attn_proj))",
    ),
    "block without GELU": (
        "decoder_block",
        "float32",
        FILE,
        'hidden = linear(x, fc_weight, fc_bias, activation="gelu")',
        "hidden = linear(x, fc_weight, fc_bias)",
    ),
    "post-LN attention that reads normalised rows": (
        "decoder_block",
        "float32",
        FILE,
        "branch = drop(parts.linear(attend(x, *c_attn, None, None, first=first), *attn_proj))",
        "branch = drop(parts.linear(attend(x, *c_attn, *ln_1, first=first), *attn_proj))",
    ),
}
