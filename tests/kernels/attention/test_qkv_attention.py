"""What QKV attention promises beyond agreeing with the reference: where its numbers lie."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gptwin.kernels.attention.qkv_attention import path, qkv_attention
from gptwin.kernels.attention.qkv_attention_short import MAX_D_HEAD, MAX_TIME, MIN_TIME
from gptwin.kernels.common.launch import recording

SHORT, LONG = MAX_TIME, MAX_TIME + 3
# What copies numbers without computing any.
COPIES = ("copy_", "clone", "contiguous", "_to_copy", "cat", "stack", "index", "gather", "repeat")


def draw(*shape, seed=0, dtype=torch.float32, device="cpu"):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return x.to(device, dtype)


def arguments(device, time, norm=True, d_head=16, d_model=32, dtype=torch.float32):
    """Return x, w, b, and the norm's parameters, of two heads."""
    sizes = [(2, time, d_model), (d_model, 6 * d_head), (6 * d_head,)]
    sizes += [(d_model,), (d_model,)] if norm else []
    drawn = [draw(*size, seed=i, dtype=dtype, device=device) for i, size in enumerate(sizes)]
    drawn[1] *= d_model**-0.5  # scores of size 1, as in a model: sharp ones magnify roundings
    return [tensor.requires_grad_() for tensor in drawn]


class NoCopies(TorchDispatchMode):
    """Refuse every PyTorch operation that moves numbers, as long as the context lasts."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert name not in COPIES, f"{name} was called"
        return function(*args, **(kwargs or {}))


def storages(launch, names):
    return [launch.tensors[name].untyped_storage().data_ptr() for name in names]


# --- the rule ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time", "n_head", "n_kv_head", "d_head", "options", "expected"),
    [
        (MAX_TIME, 12, 12, MAX_D_HEAD, {}, "single"),
        (MIN_TIME, 12, 12, 1, {}, "single"),
        (MAX_TIME + 1, 12, 12, 64, {}, "packed"),
        (MIN_TIME - 1, 12, 12, 64, {}, "packed"),
        (MAX_TIME, 12, 12, MAX_D_HEAD + 1, {}, "packed"),
        (MAX_TIME, 12, 4, 64, {}, "packed"),
        (MAX_TIME, 12, 12, 64, {"dropout": 0.1}, "packed"),
        (MAX_TIME, 12, 12, 64, {"documents": True}, "packed"),
    ],
)
def test_the_rule(time, n_head, n_kv_head, d_head, options, expected):
    assert path(time, n_head, n_kv_head, d_head, **options) == expected


@pytest.mark.parametrize("time", [MIN_TIME - 1, MIN_TIME, SHORT, LONG])
def test_the_rule_is_followed(time, device):
    with recording() as log:
        qkv_attention(*arguments(device, time, norm=False), n_head=2)
    kernels = [launch.kernel for launch in log]
    if path(time, 2, 2, 16) == "single":
        assert kernels == ["qkv_attention_short_kernel"]
    else:
        assert kernels == ["qkv_projection_kernel", "attention_forward_kernel"]


@pytest.mark.parametrize("options", [{}, {"window": 5}, {"causal": False}, {"padded": True}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("time", [3, SHORT])
def test_both_paths_give_the_same(time, dtype, options, device):
    options = dict(options)
    if options.pop("padded", False):
        options["key_start"] = torch.tensor([2, 0], device=device)
    results = {}
    for name in ("packed", "single"):
        given = arguments(device, time, dtype=dtype)
        output = qkv_attention(*given, n_head=2, force_path=name, **options)
        output.backward(draw(*output.shape, seed=9, dtype=dtype, device=device))
        results[name] = (output.detach(), *(tensor.grad for tensor in given))
    # Gradients of the parameters are sums over 2 x 64 positions.
    step = {torch.float32: 2.0**-18, torch.bfloat16: 2.0**-5}[dtype]
    for packed, single in zip(results["packed"], results["single"], strict=True):
        size = packed.abs().max().item()
        torch.testing.assert_close(single, packed, rtol=0, atol=step * size)


# --- no copies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("time", [SHORT, LONG])
def test_nothing_is_copied_in_either_direction(time, device):
    given = arguments(device, time)
    d_output = draw(2, time, 32, seed=9, device=device)
    with NoCopies():
        output = qkv_attention(*given, n_head=2)
        torch.autograd.grad(output, given, d_output)


def test_a_copy_would_be_seen():
    with pytest.raises(AssertionError, match="clone was called"), NoCopies():
        torch.zeros(2, 3).T.contiguous()


def test_attention_reads_what_the_projection_wrote(device):
    """One buffer forward, one backward; head h, batch b and time t lie where the docstring says."""
    given = arguments(device, LONG, norm=False)
    with recording() as log:
        output = qkv_attention(*given, n_head=2)
    projection, attention = log
    packed = projection.tensors["packed_ptr"]
    assert set(storages(attention, ("query.ptr", "key.ptr", "value.ptr"))) == {
        packed.untyped_storage().data_ptr()
    }
    assert attention.tensors["query.ptr"].data_ptr() == packed[0].data_ptr()
    assert attention.tensors["key.ptr"].data_ptr() == packed[2].data_ptr()
    assert attention.tensors["value.ptr"].data_ptr() == packed[4].data_ptr()
    assert attention.tensors["output.ptr"].data_ptr() == output.data_ptr()
    assert output.is_contiguous()

    with recording() as log:
        output.backward(draw(*output.shape, seed=9, device=device))
    written, read = set(), set()
    for launch in log:
        for name in ("query", "key", "value"):
            if launch.kernel.startswith("attention") and f"{name}.ptr" in launch.tensors:
                assert storages(launch, [f"{name}.ptr"]) == [packed.untyped_storage().data_ptr()]
            if f"d_{name}.ptr" in launch.tensors:
                written |= set(storages(launch, [f"d_{name}.ptr"]))
        if launch.kernel.startswith("qkv_projection"):
            read |= set(storages(launch, ["d_packed_ptr"]))
    assert len(written) == 1 and written == read


def traffic(log):
    """Bytes of the distinct tensors of each launch: what it must read or write at least."""
    return sum(
        sum({t.data_ptr(): t.numel() * t.element_size() for t in launch.tensors.values()}.values())
        for launch in log
    )


def test_launches_and_bytes_of_each_path(device):
    """Packed: Q, K and V are written once and read once. Single: they are in no memory."""
    x, w, b = (tensor.detach() for tensor in arguments(device, SHORT, norm=False))
    n_x, n_parameters, n_packed, n_output, n_lse = (
        x.numel(), w.numel() + b.numel(), 6 * 2 * SHORT * 16, 2 * SHORT * 32, 2 * 2 * SHORT
    )  # fmt: skip
    with recording() as packed:
        qkv_attention(x, w, b, n_head=2, force_path="packed")
    assert len(packed) == 2
    assert traffic(packed) == 4 * (n_x + n_parameters + 2 * n_packed + n_output + n_lse)
    with recording() as single:
        qkv_attention(x, w, b, n_head=2, force_path="single")
    assert len(single) == 1
    assert traffic(single) == 4 * (n_x + n_parameters + n_output + n_lse)


# --- edges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["packed", "single"])
def test_a_position_that_sees_nothing_is_zero(name, device):
    given = [tensor.detach() for tensor in arguments(device, 20)]
    given[0][0, :6] = math.nan  # padding
    key_start = torch.tensor([6, 0], device=device)
    output = qkv_attention(*given, n_head=2, key_start=key_start, force_path=name)
    assert not output[0, :6].any() and torch.isfinite(output).all()


@pytest.mark.parametrize("time", [0, 1])
def test_empty_and_single_positions(time, device):
    given = arguments(device, time)
    output = qkv_attention(*given, n_head=2)
    assert output.shape == (2, time, 32)
    output.backward(torch.ones_like(output))
    assert all(torch.isfinite(tensor.grad).all() for tensor in given)


@pytest.mark.parametrize("time", [SHORT, LONG])
@pytest.mark.parametrize("wanted", range(5))
def test_gradient_of_one_input_alone(wanted, time, device):
    """Liger#507: requires_grad=False on one input gave a wrong or missing gradient."""
    together, alone = arguments(device, time), [t.detach() for t in arguments(device, time)]
    alone[wanted].requires_grad_()
    for given in (together, alone):
        output = qkv_attention(*given, n_head=2)
        output.backward(draw(*output.shape, seed=9, device=device))
    assert torch.equal(alone[wanted].grad, together[wanted].grad)
    assert all(t.grad is None for i, t in enumerate(alone) if i != wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"force_path": "fast"}, "force_path: expected None, 'packed' or 'single', got 'fast'"),
        ({"force_path": "single", "dropout": 0.1}, "force_path: expected 'packed' for this call"),
        ({"force_path": "single", "n_kv_head": 1}, "force_path: expected 'packed'"),
        ({"causal": False, "window": 3}, "window: expected causal=True"),
        ({"w_qkv": draw(32, 96, dtype=torch.float16)}, "w_qkv: expected dtype torch.float32"),
    ],
)
def test_bad_arguments_are_refused_before_any_launch(change, message):
    given = {"x": draw(2, 20, 32), "w_qkv": draw(32, 96), "n_head": 2}
    with recording() as log, pytest.raises(ValueError, match=message):
        qkv_attention(**(given | change))
    assert not log
