"""The reference decoder block: its gradients, what it may see, and what it refuses."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from gptwin.core.model.branches import merge_heads, split_heads
from gptwin.core.model.decoder_block import (
    ARGUMENTS,
    decoder_block,
    decoder_block_backward,
    decoder_block_forward,
)

N_HEAD, D_MODEL = 2, 6
KINDS = [
    {},
    {"norm": "post"},
    {"causal": False},
    {"window": 2},
    {"key_start": np.array([0, 2])},
    {"cu_seqlens": np.array([0, 3, 5])},
    {"norm": "post", "window": 3, "key_start": np.array([1, 0]), "eps": 1e-2},
]


def arrays(bias=True, d_head=3, d_mlp=8, seed=0, dtype=np.float64):
    """Return x [2, 5, 6] and the twelve parameters of a block."""
    rng = np.random.default_rng(seed)
    c, a = D_MODEL, N_HEAD * d_head
    shapes = [
        (2, 5, c), (c,), (c,), (c, 3 * a), (3 * a,), (a, c), (c,),
        (c,), (c,), (c, d_mlp), (d_mlp,), (d_mlp, c), (c,),
    ]  # fmt: skip
    drawn = [rng.normal(0, 0.7, size=shape).astype(dtype) for shape in shapes]
    absent = range(2, 13, 2) if not bias else ()
    return [None if i in absent else array for i, array in enumerate(drawn)]


def torch_block(x, ln_1_w, ln_1_b, attn_w, attn_b, proj_w, proj_b, ln_2_w, ln_2_b, fc_w, fc_b,
                out_w, out_b, *, norm="pre", causal=True, window=None, key_start=None,
                cu_seqlens=None, eps=1e-5):  # fmt: skip
    """The block in plain PyTorch, with a dense mask."""
    batch, time, c = x.shape

    def linear(z, w, b):
        return functional.linear(z, w.T, b)

    def attend(z):
        q, k, v = linear(z, attn_w, attn_b).chunk(3, dim=-1)
        q, k, v = (part.reshape(batch, time, N_HEAD, -1).transpose(1, 2) for part in (q, k, v))
        i, j = torch.arange(time)[:, None], torch.arange(time)
        seen = torch.ones(batch, time, time, dtype=torch.bool)
        if causal:
            seen &= j <= i
        if window is not None:
            seen &= j > i - window
        if key_start is not None:
            seen &= j >= torch.from_numpy(key_start)[:, None, None]
        if cu_seqlens is not None:
            document = torch.bucketize(torch.arange(time), torch.from_numpy(cu_seqlens), right=True)
            seen &= document[:, None] == document
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        # A row that sees nothing: softmax of equal numbers, then nothing of it.
        p = scores.masked_fill(~seen[:, None], -1e300).softmax(-1) * seen[:, None]
        return linear((p @ v).transpose(1, 2).reshape(batch, time, -1), proj_w, proj_b)

    def mlp(z):
        hidden = functional.gelu(linear(z, fc_w, fc_b), approximate="tanh")
        return linear(hidden, out_w, out_b)

    if norm == "pre":
        s = x + attend(functional.layer_norm(x, (c,), ln_1_w, ln_1_b, eps))
        return s + mlp(functional.layer_norm(s, (c,), ln_2_w, ln_2_b, eps))
    n = functional.layer_norm(x + attend(x), (c,), ln_1_w, ln_1_b, eps)
    return functional.layer_norm(n + mlp(n), (c,), ln_2_w, ln_2_b, eps)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(kind) or "pre")
def test_it_equals_pytorch_to_1e_10(kind, bias):
    inputs = arrays(bias, d_head=4)
    leaves = [None if a is None else torch.from_numpy(a).requires_grad_() for a in inputs]
    expected = torch_block(*leaves, **kind)
    d_y = np.random.default_rng(1).normal(size=expected.shape)
    expected.backward(torch.from_numpy(d_y))
    y, saved = decoder_block_forward(*inputs, n_head=N_HEAD, **kind)
    np.testing.assert_allclose(y, expected.detach(), rtol=1e-10, atol=1e-10)
    for name, gradient, leaf in zip(
        ("x", *ARGUMENTS), decoder_block_backward(saved, d_y), leaves, strict=True
    ):
        assert (gradient is None) == (leaf is None), name
        if leaf is not None:
            np.testing.assert_allclose(gradient, leaf.grad, rtol=1e-10, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_gradients_agree_with_finite_differences(norm):
    inputs, step = arrays(), 1e-5
    rng = np.random.default_rng(2)
    y, saved = decoder_block_forward(*inputs, n_head=N_HEAD, norm=norm)
    d_y = rng.normal(size=y.shape)
    gradients = decoder_block_backward(saved, d_y)
    for i, gradient in enumerate(gradients):
        direction = rng.normal(size=gradient.shape)
        ends = []
        for sign in (1, -1):
            moved = [a + sign * step * direction if j == i else a for j, a in enumerate(inputs)]
            ends.append((decoder_block(*moved, n_head=N_HEAD, norm=norm) * d_y).sum())
        slope = (gradient * direction).sum()
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_float32_stays_float32(norm):
    inputs = arrays(dtype=np.float32)
    y, saved = decoder_block_forward(*inputs, n_head=N_HEAD, norm=norm, eps=np.float64(1e-5))
    gradients = decoder_block_backward(saved, y)
    assert {array.dtype for array in (y, *gradients)} == {np.dtype(np.float32)}


def test_a_decoder_never_looks_ahead_and_an_encoder_does():
    inputs, moved = arrays(), arrays()
    moved[0][:, 3] += 1
    for causal in (True, False):
        before, after = (
            decoder_block(*each, n_head=N_HEAD, causal=causal) for each in (inputs, moved)
        )
        assert (before[:, :3] == after[:, :3]).all() == causal  # bit for bit
        assert (before[:, 3:] != after[:, 3:]).any()


def test_without_branches_a_pre_norm_block_is_the_identity():
    inputs = arrays()
    for i in (5, 6, 11, 12):  # both projections back to the stream, and their biases
        inputs[i] = np.zeros_like(inputs[i])
    np.testing.assert_array_equal(decoder_block(*inputs, n_head=N_HEAD), inputs[0])


def test_columns_are_queries_then_keys_then_values():
    """Head h of part p is columns (p · n_head + h) · d_head onward: GPT-2's order."""
    qkv = np.broadcast_to(np.arange(18.0), (2, 5, 18))
    query, key, value = split_heads(qkv, N_HEAD)
    np.testing.assert_array_equal(query[0, :, 0], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(key[0, :, 0], [[6, 7, 8], [9, 10, 11]])
    np.testing.assert_array_equal(merge_heads(value), qkv[..., 12:])


def test_an_empty_batch_gives_an_empty_result():
    inputs = arrays()
    inputs[0] = inputs[0][:0]
    y, saved = decoder_block_forward(*inputs, n_head=N_HEAD)
    d_x, *gradients = decoder_block_backward(saved, y)
    assert y.shape == d_x.shape == (0, 5, D_MODEL)
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize(
    ("name", "replacement", "message"),
    [
        ("x", np.zeros((5, 6)), r"x: expected 3 dimensions \[batch, time, d_model\]"),
        ("ln_1_weight", None, r"ln_1_weight: expected shape \(6,\), got None"),
        ("ln_2_bias", np.zeros(5), r"ln_2_bias: expected shape \(6,\), got shape \(5,\)"),
        ("c_attn_weight", np.zeros((18, 6)), r"c_attn_weight: .*\(6, 18\).*Conv1D.*transpose it"),
        ("c_attn_weight", np.zeros((6, 15)), "c_attn_weight: .*2 heads.*15, which 6 does not"),
        ("c_attn_bias", np.zeros(6), r"c_attn_bias: expected shape \(18,\)"),
        ("c_fc_weight", np.zeros((8, 6)), r"c_fc_weight: expected shape \(6, 8\).*transpose it"),
        ("c_fc_weight", np.zeros((5, 8)), r"c_fc_weight: expected shape \(6, 8\), got .*\(5, 8\)$"),
        ("mlp_proj_weight", np.zeros((6, 8)), r"mlp_proj_weight: .*\(8, 6\).*transpose it"),
    ],
)
def test_bad_arrays_are_named(name, replacement, message):
    inputs = arrays()
    inputs[("x", *ARGUMENTS).index(name)] = replacement
    with pytest.raises(ValueError, match=message):
        decoder_block(*inputs, n_head=N_HEAD)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"norm": "rms"}, "norm: expected 'pre' or 'post', got 'rms'"),
        ({"n_head": 0}, "n_head: expected a finite number above 0"),
        ({"eps": 0.0}, "eps: expected a finite number above 0"),
        ({"causal": False, "window": 2}, "window: "),
    ],
)
def test_bad_options_are_named(option, message):
    with pytest.raises(ValueError, match=message):
        decoder_block(*arrays(), **({"n_head": N_HEAD} | option))
