"""What the projection's kernels promise beyond agreeing with the reference."""

import pytest
import torch

from gptwin.kernels.attention.qkv_projection import qkv_projection
from gptwin.kernels.common.launch import recording
from gptwin.kernels.layers.layer_norm import layer_norm


def draw(*shape, seed=0, dtype=torch.float32, device="cpu"):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return x.to(device, dtype)


def arguments(device, norm=True, dtype=torch.float32, d_head=8):
    """Return x, w, b, and the norm's parameters, of two heads."""
    sizes = [(2, 20, 24), (24, 6 * d_head), (6 * d_head,)]
    sizes += [(24,), (24,)] if norm else []
    drawn = (draw(*size, seed=i, dtype=dtype, device=device) for i, size in enumerate(sizes))
    return [tensor.requires_grad_() for tensor in drawn]


def test_the_result_is_packed_head_major(device):
    packed = qkv_projection(*arguments(device), n_head=2)
    assert packed.shape == (6, 2, 20, 8) and packed.is_contiguous()


def test_the_normalised_rows_are_never_stored(device):
    """Two launches forward: statistics, then the product; 12 bytes a row pass between them."""
    given = arguments(device)
    with recording() as log:
        packed = qkv_projection(*given, n_head=2)
    statistics, product = log
    assert statistics.kernel == "qkv_statistics_kernel"
    assert product.tensors["x.ptr"].data_ptr() == given[0].data_ptr()
    assert product.tensors["packed_ptr"].data_ptr() == packed.data_ptr()
    written = {t.data_ptr() for n, t in statistics.tensors.items() if n != "x.ptr"}
    assert {
        product.tensors[f"norm.{n}"].data_ptr() for n in ("mean", "mean_rest", "rstd")
    } == written
    assert all(t.numel() == 40 for n, t in statistics.tensors.items() if n != "x.ptr")


def test_the_packed_gradient_is_read_where_it_lies(device):
    given = arguments(device)
    packed = qkv_projection(*given, n_head=2)
    d_packed = draw(*packed.shape, seed=9, device=device)
    with recording() as log:
        packed.backward(d_packed)
    products = [launch for launch in log if launch.kernel.startswith("qkv_projection")]
    assert len(products) == 2
    assert {launch.tensors["d_packed_ptr"].data_ptr() for launch in products} == {
        d_packed.data_ptr()
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_fused_norm_rounds_like_a_norm_of_its_own(dtype, device):
    """The tile is rounded as if it had been stored: the same numbers enter the product."""
    x, w, b, *norm = arguments(device, dtype=dtype)
    fused = qkv_projection(x, w, b, *norm, n_head=2)
    apart = qkv_projection(layer_norm(x, *norm), w, b, n_head=2)
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(fused, apart, rtol=8 * step, atol=8 * step)


@pytest.mark.parametrize("d_head", [1, 3, 40, 59, 96, 111])
def test_heads_that_are_no_power_of_two(d_head, device):
    x, w, b, *norm = arguments(device, d_head=d_head)
    packed = qkv_projection(x, w, b, *norm, n_head=2)
    product = layer_norm(x, *norm) @ w + b
    expected = product.unflatten(-1, (6, d_head)).permute(2, 0, 1, 3)
    torch.testing.assert_close(packed, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wanted", range(5))
def test_gradient_of_one_input_alone(wanted, device):
    """Liger#507: requires_grad=False on one input gave a wrong or missing gradient."""
    together, alone = arguments(device), [t.detach() for t in arguments(device)]
    alone[wanted].requires_grad_()
    for given in (together, alone):
        packed = qkv_projection(*given, n_head=2)
        packed.backward(draw(*packed.shape, seed=9, device=device))
    assert torch.equal(alone[wanted].grad, together[wanted].grad)
    assert all(t.grad is None for i, t in enumerate(alone) if i != wanted)


def test_the_bias_has_its_gradient_where_there_is_no_feature(device):
    x, weight = torch.empty(2, 3, 0, device=device), torch.empty(0, 12, device=device)
    bias = torch.randn(12, device=device, requires_grad=True)
    packed = qkv_projection(x, weight, bias, n_head=1)
    packed.backward(torch.ones_like(packed))
    assert bias.grad is not None
    torch.testing.assert_close(bias.grad, torch.full_like(bias, 6.0))


def test_rows_do_not_mix(device):
    """In the same place of a batch: a BLAS may round a row otherwise in another place of a tile."""
    x, *parameters = (t.detach() for t in arguments(device))
    before = qkv_projection(x, *parameters, n_head=2)
    x[0] = float("nan")
    after = qkv_projection(x, *parameters, n_head=2)
    assert torch.equal(before[:, 1:], after[:, 1:]) and after[:, 0].isnan().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b_qkv": draw(48, dtype=torch.float16)}, "b_qkv: expected dtype torch.float32, like x"),
        ({"n_kv_head": 4}, "n_kv_head: expected a divisor of n_head = 2"),
        ({"norm_bias": draw(24)}, "norm_bias: expected norm_weight and norm_bias, or neither"),
    ],
)
def test_bad_arguments_are_refused_before_any_launch(change, message):
    given = {"x": draw(2, 20, 24), "w_qkv": draw(24, 48), "n_head": 2}
    with recording() as log, pytest.raises(ValueError, match=message):
        qkv_projection(**(given | change))
    assert not log
