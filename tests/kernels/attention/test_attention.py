"""What the attention kernels promise beyond agreeing with the reference."""

import math

import numpy as np
import pytest
import torch

from gptwin.core.attention.attention import dropout_factor
from gptwin.kernels.attention.attention import attention, attention_forward
from gptwin.kernels.attention.attention_backward import attention_backward
from gptwin.kernels.attention.attention_tiles import Masks
from gptwin.kernels.common.launch import configuration, recording


def draw(*shapes, seed=0, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator).to(device) for shape in shapes]


def qkv(n_batch=1, n_head=2, n_kv_head=None, n_query=40, n_key=None, d_head=16, **options):
    n_key = n_query if n_key is None else n_key
    kv = (n_batch, n_kv_head or n_head, n_key, d_head)
    return draw((n_batch, n_head, n_query, d_head), kv, kv, **options)


def with_gradients(tensors, d_output, d_lse=None, **options):
    leaves = [t.detach().requires_grad_() for t in tensors]
    output, lse = attention(*leaves, **options)
    roots, d_roots = ([output], [d_output]) if d_lse is None else ([output, lse], [d_output, d_lse])
    return output.detach(), lse.detach(), *torch.autograd.grad(roots, leaves, d_roots)


def same(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def near(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"causal": True, "window": 9}])
def test_weights_sum_to_one_and_stay_in_the_convex_hull(options, device):
    query, key, value = qkv(device=device)
    ones, _ = attention(query, key, torch.ones_like(value), **options)
    near([ones], [torch.ones_like(ones)])
    mixed, _ = attention(query, key, value, **options)
    assert value.min() - 1e-5 <= mixed.min() and mixed.max() <= value.max() + 1e-5


def test_permuting_keys_changes_nothing(device):
    query, key, value = qkv(device=device)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0)).to(device)
    near(attention(query, key[:, :, order], value[:, :, order]), attention(query, key, value))


def test_later_keys_never_leak(device):
    """Bit for bit; and a whole tile that is later may hold anything, even NaN: it is not read."""
    tensors = qkv(n_query=200, device=device)
    before = attention(*tensors, causal=True)
    changed = [t.clone() for t in tensors]
    changed[1][:, :, 50:] = 1e4
    changed[2][:, :, 50:] = -1e4
    after = attention(*changed, causal=True)
    same([x[:, :, :50] for x in after], [x[:, :, :50] for x in before])
    for t in changed[1:]:
        t[:, :, 128:] = torch.nan
    skipped = attention(*changed, causal=True)
    same([x[:, :, :50] for x in skipped], [x[:, :, :50] for x in before])


def test_tiles_before_a_window_are_never_read(device):
    tensors = qkv(n_query=8, n_key=300, device=device)
    (d_output,) = draw(tensors[0].shape, seed=1, device=device)
    before = with_gradients(tensors, d_output, causal=True, window=20)
    for t in tensors[1:]:
        t[:, :, : 300 - 8 - 19] = torch.nan
    same(with_gradients(tensors, d_output, causal=True, window=20), before)
    assert not any(g[:, :, : 300 - 8 - 19].any() for g in before[3:])


def test_a_window_as_wide_as_the_sequence_is_causal(device):
    tensors = qkv(device=device)
    near(attention(*tensors, causal=True, window=40), attention(*tensors, causal=True))
    near(attention(*tensors, causal=True, window=1)[:1], tensors[2:])


def test_grouped_heads_are_repeated_heads(device):
    query, key, value = qkv(n_batch=2, n_head=4, n_kv_head=2, device=device)
    d_output, d_lse = draw(query.shape, query.shape[:3], seed=1, device=device)
    repeated = [query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1)]
    expected = with_gradients(repeated, d_output, d_lse, causal=True)
    summed = [g.unflatten(1, (2, 2)).sum(2) for g in expected[3:]]
    near(
        with_gradients([query, key, value], d_output, d_lse, causal=True), [*expected[:3], *summed]
    )


def test_documents_are_attended_one_by_one(device):
    tensors = qkv(n_query=60, device=device)
    bounds = [0, 33, 33, 34, 50]  # one is empty; ten positions belong to none
    (d_output,) = draw(tensors[0].shape, seed=1, device=device)
    options = {"causal": True, "cu_seqlens": torch.tensor(bounds, device=device)}
    whole = with_gradients(tensors, d_output, **options)
    for start, end in [(0, 33), (33, 34), (34, 50)]:
        parts = [t[:, :, start:end] for t in (*tensors, d_output)]
        near([x[:, :, start:end] for x in whole], with_gradients(parts[:3], parts[3], causal=True))
    rest = [x[:, :, 50:] for x in whole]
    assert not rest[0].any() and (rest[1] == -math.inf).all()
    assert not any(g.any() for g in rest[2:])


def test_padding_never_leaks(device):
    """NaN in padded positions of query, key, value and d_output reaches nothing."""
    tensors = qkv(n_batch=3, n_query=70, device=device)
    (d_output,) = draw(tensors[0].shape, seed=1, device=device)
    options = {"causal": True, "key_start": torch.tensor([0, 13, 70], device=device)}
    before = with_gradients(tensors, d_output, **options)
    for t in (*tensors, d_output):
        t[1, :, :13] = t[2] = torch.nan
    after = with_gradients(tensors, d_output, **options)
    same(after, before)
    alone = [t[1:2, :, 13:] for t in (*tensors, d_output)]
    near([x[1:2, :, 13:] for x in after], with_gradients(alone[:3], alone[3], causal=True))
    assert not any(x[2].any() for i, x in enumerate(after) if i != 1)


def test_dropout_is_the_reference_mask_bit_for_bit(device):
    """With value = identity and equal scores, the output is the mask."""
    n, seed = 48, 2**40 + 3
    query, key = torch.zeros(2, 3, n, n, device=device), torch.zeros(2, 3, n, n, device=device)
    value = torch.eye(n, device=device).expand(2, 3, n, n)
    output, lse = attention(query, key, value, dropout=0.25, seed=seed)
    factor = dropout_factor(seed, 0.25, np.arange(6), np.arange(n), np.arange(n))
    np.testing.assert_array_equal(output.cpu().numpy().reshape(factor.shape) > 0, factor > 0)
    near([output.reshape(6, n, n) * n], [torch.tensor(factor).to(output)])
    near([lse], [torch.full_like(lse, math.log(n))])  # before dropout
    (d_output,) = draw(query.shape, device=device)
    gradient = with_gradients([query, key, value.contiguous()], d_output, dropout=0.25, seed=seed)
    weights = torch.tensor(factor).to(d_output).view(2, 3, n, n) / n
    near(gradient[4:], [weights.mT @ d_output])


def test_both_configurations_draw_the_same_dropout(device):
    tensors = qkv(n_query=150, device=device)
    results = []
    for index in range(2):
        with configuration(index):
            results.append(attention(*tensors, causal=True, dropout=0.5, seed=1))
    near(*results)


def test_views_of_one_buffer_and_a_merged_output(device):
    """As a fused projection passes them: nothing is copied, gradients land where they belong."""
    packed, d_merged = draw((2, 30, 3, 4, 16), (2, 30, 4, 16), device=device)
    query, key, value = packed.permute(2, 0, 3, 1, 4)  # views [batch, head, time, d_head]
    d_output = d_merged.transpose(1, 2)
    masks, scale = Masks.of(30, causal=True), 0.25
    merged = torch.full((2, 30, 4, 16), torch.nan, device=device)
    output, lse = attention_forward(
        query, key, value, masks, scale=scale, out=merged.transpose(1, 2)
    )
    assert output.data_ptr() == merged.data_ptr()
    d_packed = torch.full_like(packed, torch.nan)
    d_query, d_key, d_value = d_packed.permute(2, 0, 3, 1, 4)
    attention_backward(
        query, key, value, output, lse, d_output, None, masks, scale=scale,
        d_query=d_query, d_key=d_key, d_value=d_value,
    )  # fmt: skip
    expected = with_gradients([query, key, value], d_output, causal=True, scale=scale)
    same([output, lse, d_query, d_key, d_value], expected)


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_only_the_kernels_that_are_needed_run(wanted, device):
    tensors = qkv(device=device)
    tensors[wanted].requires_grad_()
    with recording() as log:
        attention(*tensors)[0].sum().backward()
    kernel = "query" if wanted == 0 else "key_value"
    assert [entry.kernel for entry in log][1:] == [
        "attention_backward_delta_kernel",
        f"attention_backward_{kernel}_kernel",
    ]


def test_lse_alone_has_a_gradient(device):
    query, key, value = (t.requires_grad_() for t in qkv(device=device))
    _, lse = attention(query, key, value)
    actual = torch.autograd.grad(lse.sum(), (query, key, value))
    expected_lse = torch.logsumexp(query @ key.mT / 4, -1)
    expected = torch.autograd.grad(expected_lse.sum(), (query, key))
    near(actual[:2], expected)
    assert not actual[2].any()


def test_other_dtypes_and_mixtures_are_refused(device):
    query, key, value = qkv(device=device)
    with pytest.raises(ValueError, match=r"key: expected dtype torch\.float32, like query"):
        attention(query, key.half(), value)
    with pytest.raises(ValueError, match="query: expected dtype float32, float16 or bfloat16"):
        attention(query.double(), key.double(), value.double())
