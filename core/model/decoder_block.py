"""The decoder block: attention gathers from other positions, an MLP works on each alone.

    pre-LN (GPT-2, GPT-3)                        post-LN (GPT-1, BERT)

    s = x + proj(attend(ln_1(x)))                n = ln_1(x + proj(attend(x)))
    y = s + mlp(ln_2(s))                         y = ln_2(n + mlp(n))

    attend(z) = attention over the heads of z · c_attn       mlp(z) = gelu(z · c_fc) · mlp_proj

The difference is what the stream x → y meets on its way: in pre-LN nothing but two additions, so
that gradients pass unchanged through any number of blocks; in post-LN a norm after each of them.
The two branches, attention and MLP, are in `branches`; `layer_norm` adds them to the stream.

Edge semantics, the same in both twins: what is not finite at a position that sees nothing (padding)
counts as 0. It reaches no other position and no weight's gradient, and gets none itself.

Generation runs the same block on a few new tokens, with another attention: one that reads a cache.
`run_block` therefore takes attention as a function.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..attention.attention import attention_forward
from ..attention.key_intervals import key_intervals
from ..checks import expect_floats, expect_parameter, expect_positive, refuse, whole
from ..layers.layer_norm import layer_norm_backward
from ..operation import at_least_float32, value_of
from .branches import (
    Attend,
    attention_branch,
    attention_branch_backward,
    mlp_branch,
    mlp_branch_backward,
    norm_forward,
)

Saved = tuple[Any, ...]
Parameters = Sequence[Any]  # arrays, or None for a bias that is not there

NORMS = ("pre", "post")
# A model calls the block's parameters by these names; they are in the order of its arguments.
PARAMETERS = {
    "ln_1.weight": "ln_1_weight",
    "ln_1.bias": "ln_1_bias",
    "attn.c_attn.weight": "c_attn_weight",
    "attn.c_attn.bias": "c_attn_bias",
    "attn.c_proj.weight": "attn_proj_weight",
    "attn.c_proj.bias": "attn_proj_bias",
    "ln_2.weight": "ln_2_weight",
    "ln_2.bias": "ln_2_bias",
    "mlp.c_fc.weight": "c_fc_weight",
    "mlp.c_fc.bias": "c_fc_bias",
    "mlp.c_proj.weight": "mlp_proj_weight",
    "mlp.c_proj.bias": "mlp_proj_bias",
}
ARGUMENTS = tuple(PARAMETERS.values())


@at_least_float32
def decoder_block_forward(
    x: np.ndarray,
    ln_1_weight: np.ndarray,
    ln_1_bias: np.ndarray | None,
    c_attn_weight: np.ndarray,
    c_attn_bias: np.ndarray | None,
    attn_proj_weight: np.ndarray,
    attn_proj_bias: np.ndarray | None,
    ln_2_weight: np.ndarray,
    ln_2_bias: np.ndarray | None,
    c_fc_weight: np.ndarray,
    c_fc_bias: np.ndarray | None,
    mlp_proj_weight: np.ndarray,
    mlp_proj_bias: np.ndarray | None,
    *,
    n_head: int,
    norm: str = "pre",
    causal: bool = True,
    window: int | None = None,
    key_start: np.ndarray | None = None,
    cu_seqlens: np.ndarray | None = None,
    eps: float = 1e-5,
) -> tuple[np.ndarray, Saved]:
    """Run one block.

    Parameters
    ----------
    x : numpy.ndarray [batch, time, d_model]
        The residual stream.
    ln_1_weight, ln_1_bias, ln_2_weight, ln_2_bias : numpy.ndarray [d_model]
        The norms. Any bias may be None, which is a bias of 0 that is not learned.
    c_attn_weight : numpy.ndarray [d_model, 3 * n_head * d_head]
        Queries, keys and values in one product.
    c_attn_bias : numpy.ndarray [3 * n_head * d_head] or None
    attn_proj_weight : numpy.ndarray [n_head * d_head, d_model]
    attn_proj_bias : numpy.ndarray [d_model] or None
    c_fc_weight : numpy.ndarray [d_model, d_mlp]
    c_fc_bias : numpy.ndarray [d_mlp] or None
    mlp_proj_weight : numpy.ndarray [d_mlp, d_model]
    mlp_proj_bias : numpy.ndarray [d_model] or None
    n_head : int
        Heads; their width follows from `c_attn_weight`.
    norm : str
        "pre" or "post".
    causal, window, key_start, cu_seqlens
        What a position sees, as in `attention`.
    eps : float
        Added to the variance in both norms.

    Returns
    -------
    y : numpy.ndarray [batch, time, d_model]
        The stream after the block.
    saved : tuple
        For `decoder_block_backward`: what the parts saved.

    Raises
    ------
    ValueError
        If a shape or an option is wrong.
    """
    parameters: Parameters = (
        ln_1_weight, ln_1_bias, c_attn_weight, c_attn_bias, attn_proj_weight, attn_proj_bias,
        ln_2_weight, ln_2_bias, c_fc_weight, c_fc_bias, mlp_proj_weight, mlp_proj_bias,
    )  # fmt: skip
    check_decoder_block(x, *parameters, n_head=n_head, norm=norm, eps=eps)
    masks: dict[str, Any] = {
        "causal": causal, "window": window, "key_start": key_start, "cu_seqlens": cu_seqlens
    }  # fmt: skip
    attend = functools.partial(attention_forward, **masks)
    batch, time, _ = x.shape
    low, high = key_intervals(batch, time, time, **masks)
    unused = (low >= high)[..., None] & ~np.isfinite(x)  # [batch, time, d_model]
    y, saved = run_block(np.where(unused, 0, x), parameters, attend, n_head, norm, eps)
    return y, (*saved, unused)


decoder_block = value_of(decoder_block_forward)


def run_block(
    x: np.ndarray,
    parameters: Parameters,
    attend: Attend,
    n_head: int,
    norm: str,
    eps: float,
) -> tuple[np.ndarray, Saved]:
    """Compute a block whose attention is `attend`; checks no options.

    `parameters` are the twelve in the order of `decoder_block`. `attend` takes query, key and
    value, each [batch, head, time, d_head], to ((output, lse), saved), as `attention_forward` does.
    """
    ln_1, attention_parameters = parameters[:2], parameters[2:6]
    ln_2, mlp_parameters = parameters[6:8], parameters[8:]
    if norm == "pre":
        z, ln_1_saved = norm_forward(x, *ln_1, eps=eps)
        branch, attention_saved = attention_branch(
            z, *attention_parameters, attend=attend, n_head=n_head
        )
        (z, stream), ln_2_saved = norm_forward(branch, *ln_2, residual=x, eps=eps)
        y, mlp_saved = mlp_branch(z, *mlp_parameters, residual=stream)
    else:
        branch, attention_saved = attention_branch(
            x, *attention_parameters, attend=attend, n_head=n_head
        )
        (stream, _), ln_1_saved = norm_forward(branch, *ln_1, residual=x, eps=eps)
        branch, mlp_saved = mlp_branch(stream, *mlp_parameters)
        (y, _), ln_2_saved = norm_forward(branch, *ln_2, residual=stream, eps=eps)
    has_bias = (ln_1[1] is not None, ln_2[1] is not None)
    return y, (norm, n_head, has_bias, ln_1_saved, attention_saved, ln_2_saved, mlp_saved)


@at_least_float32
def decoder_block_backward(saved: Saved, d_y: np.ndarray) -> tuple[Any, ...]:
    """Carry the gradient back through the block.

    Parameters
    ----------
    saved : tuple
        From `decoder_block_forward`.
    d_y : numpy.ndarray [batch, time, d_model]
        Gradient of the loss with respect to y.

    Returns
    -------
    d_x : numpy.ndarray [batch, time, d_model]
    *d_parameters : numpy.ndarray or None
        Twelve, in the order of `decoder_block`; None for a bias that is None.

    Raises
    ------
    ValueError
        If `d_y` is not shaped like y.
    """
    norm, n_head, has_bias, ln_1_saved, attention_saved, ln_2_saved, mlp_saved, unused = saved
    if norm == "pre":
        d_z, *d_mlp = mlp_branch_backward(mlp_saved, d_y)
        # The stream's gradient so far, d_y, arrives through the addition that ln_2 was given.
        d_stream, *d_ln_2 = layer_norm_backward(ln_2_saved, d_z, d_y)[:3]
        d_z, *d_attention = attention_branch_backward(attention_saved, d_stream, n_head)
        d_branch, *d_ln_1 = layer_norm_backward(ln_1_saved, d_z)[:3]
        d_x = d_stream + d_branch
    else:
        d_stream, *d_ln_2 = layer_norm_backward(ln_2_saved, d_y)[:3]
        d_branch, *d_mlp = mlp_branch_backward(mlp_saved, d_stream)
        d_stream, *d_ln_1 = layer_norm_backward(ln_1_saved, d_stream + d_branch)[:3]
        d_branch, *d_attention = attention_branch_backward(attention_saved, d_stream, n_head)
        d_x = d_stream + d_branch
    d_norms = [
        (d_weight, d_bias if learned else None)
        for (d_weight, d_bias), learned in zip((d_ln_1, d_ln_2), has_bias, strict=True)
    ]
    return np.where(unused, 0, d_x), *d_norms[0], *d_attention, *d_norms[1], *d_mlp


def check_decoder_block(x: Any, *parameters: Any, n_head: int, norm: str, eps: float) -> None:
    """Refuse arguments that do not fit together."""
    if len(x.shape) != 3:
        refuse("x", "3 dimensions [batch, time, d_model]", f"shape {tuple(x.shape)}")
    expect_positive("n_head", whole("n_head", n_head))
    expect_positive("eps", eps)
    if norm not in NORMS:
        refuse("norm", "'pre' or 'post'", repr(norm))
    named = dict(zip(ARGUMENTS, parameters, strict=True))
    expect_floats(x=x, **named)
    d_model = x.shape[2]
    qkv_width, d_mlp = (width(named[name], d_model) for name in ("c_attn_weight", "c_fc_weight"))
    if qkv_width % (3 * n_head):
        refuse(
            "c_attn_weight",
            f"columns for queries, keys and values of {n_head} heads",
            f"{qkv_width}, which {3 * n_head} does not divide",
            "another n_head",
        )
    shapes = {
        "c_attn_weight": (d_model, qkv_width),
        "c_attn_bias": (qkv_width,),
        "attn_proj_weight": (qkv_width // 3, d_model),
        "c_fc_weight": (d_model, d_mlp),
        "c_fc_bias": (d_mlp,),
        "mlp_proj_weight": (d_mlp, d_model),
    }
    for name, array in named.items():
        if array is not None or name.endswith("weight"):
            expect_parameter(name, array, shapes.get(name, (d_model,)))


def width(weight: Any, d_in: int) -> int:
    """Return the columns of a weight that should be [d_in, d_out], or is its transpose."""
    if len(weight.shape) != 2:
        return 0
    rows, columns = weight.shape
    return rows if columns == d_in != rows else columns
