"""What the sampling kernel promises beyond its twin's check: the same tokens on any input."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from gptwin.core.language import sampling as core
from gptwin.kernels.common import launch
from gptwin.kernels.language import sampling_eager as eager_sampling
from gptwin.kernels.language.sampling import _draw_target, sampling
from gptwin.kernels.language.sampling_eager import draw_of, sampling_eager

FILTERS = [{}, {"temperature": 0.0}, {"top_k": 3}, {"top_p": 0.6}, {"top_k": 6, "top_p": 0.9}]


@pytest.mark.parametrize("options", FILTERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tokens_are_the_reference_s_bit_for_bit(options, dtype, device):
    torch.manual_seed(0)
    x = (torch.randn(4, 33) * 4).to(dtype)
    x[0, ::2] = -torch.inf
    x[1] = x[1].round()  # ties
    options = options | {"seed": 2**63 + 17, "step": 2**32 - 1}
    expected, log_prob = core.sampling(x.double().numpy(), **options)
    for operation in (sampling, sampling_eager):
        tokens, actual = operation(x.to(device), **options)
        assert tokens.tolist() == expected.tolist()
        np.testing.assert_allclose(actual.cpu(), log_prob, rtol=1e-6, atol=1e-6)


def test_extreme_logits_in_every_bit_of_the_key(device):
    """Powers of two of both signs, denormals, zeros of both signs, the largest numbers."""
    powers = 2.0 ** torch.arange(-149, 128).float()
    x = torch.cat([-powers, powers, torch.tensor([0.0, -0.0, 3.4e38, -3.4e38, -torch.inf])])[None]
    for top_k in (2, 130, 277, 279, 281, 400, 558):
        options = {"top_k": top_k, "temperature": 1e38, "seed": top_k}
        expected, _ = core.sampling(x.double().numpy(), **options)
        assert sampling(x.to(device), **options)[0].tolist() == expected.tolist()


@triton.jit
def draw_target_kernel(totals_ptr, targets_ptr, seed, step):
    row = tl.program_id(0)
    target = _draw_target(tl.load(totals_ptr + row), seed, row, step)
    tl.store(targets_ptr + row, target)


def test_every_bit_of_a_draw_is_the_reference_s(device):
    """A token hangs on the high bits alone; a mutant of the low ones survived all other tests."""
    totals = torch.tensor([1, 2**31 - 1, 2**31, 2**40, 2**59 + 12345678901, 2**61 - 1])
    targets = torch.empty_like(totals, device=device)
    launch.launch(draw_target_kernel, (6,), totals.to(device), targets, 2**63 + 17, 2**32 - 1)
    expected = core.draw_target(totals.numpy(), 2**63 + 17, 2**32 - 1)
    assert targets.tolist() == expected.tolist()
    draw = draw_of(tuple(range(6)), totals.device, temperature=1.0, seed=2**63 + 17, step=2**32 - 1)
    eager = eager_sampling._draw_target(totals, draw.u_halves)
    assert eager.tolist() == expected.tolist()


@pytest.mark.parametrize("temperature", [1.0, 0.3, 1e30])
def test_every_bit_of_a_weight_is_the_reference_s(temperature, device):
    x = torch.cat([torch.linspace(-40, 3, 5000), torch.tensor([3 - 2**-22, -3e30, -torch.inf])])
    x = x.view(1, -1).repeat(2, 1)
    x[1] = x[1].nextafter(torch.tensor(torch.inf))
    scale = torch.tensor(core.steps_per_unit(temperature), device=device)
    actual = eager_sampling._weights(x.to(device), x.amax(1, keepdim=True).to(device), scale)
    with np.errstate(over="ignore"):
        assert actual.tolist() == core.weights(x.numpy(), temperature).tolist()


def test_eager_writes_on_nothing_that_others_hold(device):
    """Neither on its logits nor on an earlier draw; and bits that inference mode drew serve all."""
    x = torch.randn(3, 40, device=device)
    logits = x.clone()
    with torch.inference_mode():
        sampling_eager(x, seed=11)
    first = sampling_eager(x, seed=11)
    kept = [result.clone() for result in first]
    sampling_eager(-x, seed=11, step=1)
    assert torch.equal(x, logits)
    assert all(map(torch.equal, first, kept))
    assert all(map(torch.equal, first, sampling_eager(x, seed=11)))


def test_rows_to_draw_nothing_from_spoil_no_other(device):
    x = torch.randn(5, 7, device=device)
    x[1], x[2, 6], x[3, 0] = -torch.inf, torch.nan, torch.inf
    for options in ({}, {"top_k": 3, "top_p": 0.5}, {"temperature": 0}, {"temperature": 0.7}):
        expected, of_others = core.sampling(x.cpu().double().numpy(), **options)
        for operation in (sampling, sampling_eager):
            tokens, log_prob = operation(x, **options)
            assert tokens[1:4].tolist() == [-1] * 3 and tokens.tolist() == expected.tolist()
            np.testing.assert_allclose(log_prob.cpu(), of_others, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_a_draw_in_parts_is_the_whole_draw(dtype, device):
    x = torch.randn(9, 40, device=device)
    whole, _ = sampling(x, seed=3, step=2)
    part = torch.tensor([7, 0, 4], device=device, dtype=dtype)
    for operation in (sampling, sampling_eager):
        assert operation(x[part], seed=3, step=2, rows=part)[0].tolist() == whole[part].tolist()
    numbers = part.cpu().numpy()
    expected, _ = core.sampling(x[part].cpu().double().numpy(), seed=3, step=2, rows=numbers)
    assert expected.tolist() == whole[part].tolist()
    with pytest.raises(ValueError, match=r"^rows: expected shape \(9,\)"):
        sampling(x, rows=part)


def test_one_launch_for_all_rows(device):
    with launch.recording() as log:
        sampling(torch.randn(3, 50, device=device), top_k=5, top_p=0.9, temperature=0.7)
    assert [entry.kernel for entry in log] == ["sampling_kernel"]


def test_log_prob_near_certainty_keeps_its_digits(device):
    x = torch.tensor([[0.0, -20.0]], device=device)
    _, log_prob = sampling(x, temperature=0.0)
    assert log_prob.item() == pytest.approx(-np.log1p(np.exp(-20.0)), rel=1e-3)


def test_a_draw_has_no_gradient(device):
    x = torch.randn(2, 9, device=device, requires_grad=True)
    for result in (*sampling(x), *sampling_eager(x)):
        assert not result.requires_grad


def test_bad_input_is_refused_by_name(device):
    x = torch.randn(2, 9, device=device)
    with pytest.raises(ValueError, match="top_p: expected None or a number above 0"):
        sampling(x, top_p=2.0)
    with pytest.raises(ValueError, match="logits: expected floats"):
        sampling(x.long())
    assert sampling(x[:0])[0].shape == (0,)


@pytest.mark.parametrize("temperature", [1e-37, 1e-300])
def test_a_temperature_near_0_is_no_infinity(temperature, device):
    x = torch.tensor([[50.0, 49.0, -torch.inf], [50.0, 50.0, 49.0]], device=device)
    for operation in (sampling, sampling_eager):
        _, log_prob = operation(x, temperature=temperature)
        np.testing.assert_allclose(log_prob.cpu(), [0, -np.log(2)], rtol=1e-6)
