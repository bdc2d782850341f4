"""What the decode attention kernels promise beyond agreeing with the reference."""

import math

import pytest
import torch

from gptwin.kernels.attention.decode_attention import (
    KEYS_PER_SPLIT,
    MAX_SPLITS,
    WAVES,
    decode_attention,
    number_of_splits,
)
from gptwin.kernels.common.launch import backend, recording


def draw(*shape, seed=0, dtype=torch.float32, device="cpu"):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return x.to(device, dtype)


def cache_of(batch, n_kv_head, capacity, d_head, device):
    """Keys and values of several sequences."""
    shape = (batch, n_kv_head, capacity, d_head)
    return draw(*shape, seed=1, device=device), draw(*shape, seed=2, device=device)


@pytest.mark.parametrize(
    ("programs", "n_keys", "processors", "expected"),
    [
        (96, 1024, 132, 3),  # GPT-2, batch 8: three programs for each cache fill two waves
        (12, 1024, 132, 1024 // KEYS_PER_SPLIT),  # one prompt: as many as are worth a program
        (4096, 8192, 132, 1),  # the batch fills the device
        (1, 10**6, 132, MAX_SPLITS),
        (1, 0, 132, 1),
        (0, 1024, 132, 8),
    ],
)
def test_the_rule_for_the_number_of_splits(programs, n_keys, processors, expected):
    assert number_of_splits(programs, n_keys, processors) == expected
    assert expected <= MAX_SPLITS and (expected - 1) * programs < WAVES * processors


def test_splits_do_not_depend_on_the_lengths(device):
    """The same launches whatever the lengths hold: nothing is read back to decide them."""
    query, cache = draw(1, 4, 1, 16, device=device), cache_of(1, 2, 600, 16, device)
    grids = []
    for length in (0, 1, 600):
        with recording() as log:
            decode_attention(query, *cache, torch.tensor([length], device=device))
        grids.append([(launch.kernel, launch.tensors["lse_ptr"].shape) for launch in log])
    assert grids[0] == grids[1] == grids[2]
    assert [kernel for kernel, _ in grids[0]] == [
        "decode_attention_split_kernel",
        "decode_attention_combine_kernel",
    ]


def test_a_full_batch_is_one_launch_and_writes_the_result_itself(device):
    n_heads = 4 if device == "cpu" else 1024
    query, cache = draw(4, n_heads, 1, 16, device=device), cache_of(4, n_heads, 64, 16, device)
    with recording() as log:
        output, _ = decode_attention(query, *cache, torch.full((4,), 64, device=device))
    (launch,) = log
    assert launch.tensors["output_ptr"].data_ptr() == output.data_ptr()


def test_a_cache_in_any_layout_is_read_where_it_lies(device):
    """[batch, capacity, kv_head, d_head], and keys and values side by side in one buffer."""
    buffer = draw(2, 40, 2, 3, 16, device=device)  # [batch, capacity, key or value, kv_head, d]
    key, value = (buffer[:, :, i].transpose(1, 2) for i in range(2))
    query = draw(2, 6, 1, 16, seed=3, device=device)
    lengths = torch.tensor([17, 40], device=device)
    with recording() as log:
        strided = decode_attention(query, key, value, lengths)
    assert log[0].tensors["key.ptr"].data_ptr() == key.data_ptr()
    assert log[0].tensors["value.ptr"].data_ptr() == value.data_ptr()
    packed = decode_attention(query, key.contiguous(), value.contiguous(), lengths)
    assert all(torch.equal(a, b) for a, b in zip(strided, packed, strict=True))


def test_heads_merge_without_a_copy(device):
    query, cache = draw(2, 4, 3, 16, device=device), cache_of(2, 2, 20, 16, device)
    output, _ = decode_attention(query, *cache, torch.tensor([5, 20], device=device))
    merged = output.transpose(1, 2).flatten(2)  # [batch, query, head * d_head]
    assert merged.data_ptr() == output.data_ptr() and merged.is_contiguous()


def test_nothing_beyond_the_length_leaks(device):
    query, (key, value) = draw(3, 4, 2, 40, device=device), cache_of(3, 2, 300, 40, device)
    lengths = torch.tensor([0, 7, 299], device=device)
    clean = decode_attention(query, key, value, lengths)
    for b, length in enumerate(lengths.tolist()):
        key[b, :, length:] = math.nan
        value[b, :, length:] = math.inf
    for dirty, expected in zip(decode_attention(query, key, value, lengths), clean, strict=True):
        assert torch.equal(dirty, expected)
    assert not clean[0][0].any() and (clean[1][0] == -math.inf).all()


def test_sequences_do_not_mix(device):
    """A sequence gives the same bits whatever stands beside it in the batch."""
    query, cache = draw(2, 2, 1, 16, device=device), cache_of(2, 1, 50, 16, device)
    together, _ = decode_attention(query, *cache, torch.tensor([50, 20], device=device))
    others = decode_attention(query, *cache, torch.tensor([3, 20], device=device))[0]
    assert torch.equal(together[1], others[1])


def test_one_more_token_at_a_time_is_many_at_once(device):
    """Three drafted tokens verified together give what three single steps give."""
    query, cache = draw(1, 4, 3, 16, device=device), cache_of(1, 2, 30, 16, device)
    together, lse = decode_attention(query, *cache, torch.tensor([20], device=device))
    for i in range(3):
        length = torch.tensor([18 + i], device=device)
        alone, alone_lse = decode_attention(query[:, :, i : i + 1], *cache, length)
        torch.testing.assert_close(alone[:, :, 0], together[:, :, i])
        torch.testing.assert_close(alone_lse[:, :, 0], lse[:, :, i])


def test_nothing_carries_a_gradient(device):
    query, cache = draw(1, 2, 1, 16, device=device).requires_grad_(), cache_of(1, 1, 8, 16, device)
    results = decode_attention(query, *cache, torch.tensor([8], device=device))
    assert not any(result.requires_grad for result in results)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key_cache": draw(2, 2, 8, 5, dtype=torch.float16)}, "key_cache: expected dtype"),
        ({"lengths": torch.tensor([3, 9])}, "lengths: expected numbers from 0 to .* 8, got"),
        ({"lengths": torch.tensor([3.0, 8.0])}, "lengths: expected integers"),
        ({"window": -1}, "window: expected at least 1"),
    ],
)
def test_bad_arguments_are_refused_before_any_launch(change, message):
    arguments = {
        "query": draw(2, 4, 1, 5),
        "key_cache": draw(2, 2, 8, 5),
        "value_cache": draw(2, 2, 8, 5),
        "lengths": torch.tensor([3, 8]),
    }
    with recording() as log, pytest.raises(ValueError, match=message):
        decode_attention(**(arguments | change))
    assert not log


def test_a_head_that_does_not_fit_on_the_chip_is_refused():
    query, cache = draw(1, 1, 1, 257), draw(1, 1, 4, 257)
    with pytest.raises(ValueError, match="query: expected d_head of at most 256"):
        decode_attention(query, cache, cache, torch.tensor([4]))


@pytest.mark.parametrize("name", ["triton", "eager"])
def test_scores_of_minus_infinity_alone_give_0(name, device):
    query, cache = torch.full((1, 1, 1, 4), -1e30), torch.full((1, 1, 3, 4), 1e30)
    with backend(name):
        output, lse = decode_attention(
            *(x.to(device) for x in (query, cache, cache, torch.tensor([3])))
        )
    assert not output.any()
    assert lse.item() == -torch.inf
