"""What the decoder block promises beyond agreeing with the reference."""

import functools

import pytest
import torch

from gptwin.kernels.common import launch
from gptwin.kernels.common.launch import recording
from gptwin.kernels.model.decoder_block import EAGER, decoder_block, run_block

C, N_HEAD, TIME = 16, 2, 9


def draw(*shape, seed=0, std=1.0):
    return std * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def arguments(device="cpu"):
    shapes = [(C,), (C,), (C, 3 * C), (3 * C,), (C, C), (C,)]
    shapes += [(C,), (C,), (C, 4 * C), (4 * C,), (4 * C, C), (C,)]
    parameters = [draw(*s, seed=i, std=0.3) for i, s in enumerate(shapes)]
    return [t.to(device) for t in (draw(2, TIME, C, seed=50), *parameters)]


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_eight_kernels_forward(norm, device):
    with recording() as log, torch.no_grad():
        decoder_block(*arguments(device), n_head=N_HEAD, norm=norm)
    names = [entry.kernel for entry in log]
    assert len(names) <= 8
    assert names.count("layer_norm_forward_kernel") <= 2
    # The addition, GELU and biases are in these: nothing else runs.
    assert names.count("matmul_kernel") <= 4


@pytest.mark.parametrize("backend", ["triton", "eager"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_token_changes_nothing_before_it(norm, backend, device):
    x, *parameters = arguments(device)
    moved = x.clone()
    moved[:, 5] += 1
    with launch.backend(backend):
        before, after = (
            decoder_block(t, *parameters, n_head=N_HEAD, norm=norm) for t in (x, moved)
        )
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])
    with launch.backend(backend):
        seeing_all = decoder_block(moved, *parameters, n_head=N_HEAD, norm=norm, causal=False)
        plain = decoder_block(x, *parameters, n_head=N_HEAD, norm=norm, causal=False)
    assert not torch.equal(seeing_all[:, :5], plain[:, :5])


@pytest.mark.parametrize("backend", ["triton", "eager"])
def test_padding_changes_nothing(backend, device):
    x, *parameters = arguments(device)
    padded = torch.cat([draw(2, 4, C, seed=77).to(device), x], dim=1)
    key_start = torch.tensor([4, 4], device=device)
    with launch.backend(backend):
        alone = decoder_block(x, *parameters, n_head=N_HEAD)
        beside = decoder_block(padded, *parameters, n_head=N_HEAD, key_start=key_start)
    torch.testing.assert_close(beside[:, 4:], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ["triton", "eager"])
def test_biases_may_be_missing(backend, device):
    x, *parameters = arguments(device)
    without = [None if i % 2 else p for i, p in enumerate(parameters)]
    zero = [torch.zeros_like(p) if i % 2 else p for i, p in enumerate(parameters)]
    with launch.backend(backend):
        torch.testing.assert_close(
            decoder_block(x, *without, n_head=N_HEAD), decoder_block(x, *zero, n_head=N_HEAD)
        )


@pytest.mark.parametrize(
    ("position", "change", "options", "message"),
    [
        (0, lambda t: t[0], {}, r"x: expected 3 dimensions \[batch, time, d_model\]"),
        (3, lambda t: t.T, {}, "c_attn_weight: expected shape .*transpose"),
        (3, lambda t: t.half(), {}, "c_attn_weight: expected dtype torch.float32, like x"),
        (1, lambda t: None, {}, "ln_1_weight: expected shape"),
        (0, lambda t: t, {"n_head": 5}, "another n_head"),
        (0, lambda t: t, {"norm": "both"}, "norm: expected 'pre' or 'post', got 'both'"),
        (0, lambda t: t, {"window": 3, "causal": False}, "window"),
    ],
)
def test_bad_arguments_are_refused_before_any_launch(position, change, options, message):
    given = arguments()
    given[position] = change(given[position])
    with recording() as log, pytest.raises(ValueError, match=message):
        decoder_block(*given, **{"n_head": N_HEAD} | options)
    assert not log


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_dropout_that_keeps_all_changes_nothing(norm):
    """The twin has no dropout: a mutant that took a branch from the stream survived."""
    x, *parameters = arguments()
    attend = functools.partial(EAGER.qkv_attention, n_head=N_HEAD, eps=1e-5)
    run = functools.partial(run_block, x, parameters, attend, parts=EAGER, norm=norm, eps=1e-5)
    torch.testing.assert_close(run(dropout=1e-30), run(dropout=0.0))
