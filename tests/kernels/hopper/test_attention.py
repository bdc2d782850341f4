"""The kernels for Hopper, played (lab/gluon) on a CPU: their numbers, and what no barrier orders.

tests/lab/gluon plays the forward kernel in many orders and breaks its barriers. Here are the public
operation's three launches, on lengths that divide no tile, in layouts that people use.
"""

from collections import Counter

import pytest
import torch

from gptwin.core.attention import attention as reference
from gptwin.kernels.attention.attention import attention
from gptwin.kernels.common import launch
from gptwin.kernels.hopper import serving
from gptwin.lab.gluon.play import playing
from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.verify.verify import Job, verify_row

if not launch.INTERPRETED:
    pytest.skip("the launches between are interpreted", allow_module_level=True)

HOPPER = [f"hopper_attention_{name}_kernel" for name in ("forward", "backward_key_value",
                                                         "backward_query")]  # fmt: skip


@pytest.fixture(autouse=True)
def switched_on(monkeypatch):
    """No GPU is needed: Gluon's kernels are played, the others interpreted."""
    monkeypatch.setenv(serving.VARIABLE, "1")
    monkeypatch.setattr(serving, "can_run", lambda x: True)


def attend(query, key, value, d_output, causal, schedule):
    """Return output, lse and the three gradients."""
    with playing(schedule) as played:
        output, lse = attention(query, key, value, causal=causal)
        gradients = torch.autograd.grad(output, (query, key, value), d_output)
    assert played.kernels == HOPPER
    assert not played.findings, "\n".join(map(str, played.findings))
    return output, lse, *gradients


def drawn(n_batch, n_head, n_kv_head, n_query, n_key, d_head, dtype):
    """Draw query, key, value and d_output as a projection leaves them, the time before heads."""
    draw = torch.Generator().manual_seed(n_query)
    sizes = ((n_head, n_query), (n_kv_head, n_key), (n_kv_head, n_key), (n_head, n_query))
    return [
        torch.randn(n_batch, time, heads, d_head, generator=draw)
        .to(dtype)
        .transpose(1, 2)
        .requires_grad_()
        for heads, time in sizes
    ]


@pytest.mark.parametrize(
    ("sizes", "dtype", "causal", "schedule"),
    [
        ((1, 2, 1, 150, 200, 64), torch.float16, True, "behind"),  # two heads share keys
        ((1, 1, 1, 200, 130, 128), torch.bfloat16, False, "ahead"),  # more queries than keys
        ((2, 1, 1, 33, 33, 64), torch.bfloat16, True, "1"),  # a warpgroup has nothing to do
        ((1, 1, 1, 128, 384, 64), torch.float16, True, "2"),  # whole tiles, several
    ],
)
def test_results_are_the_references(sizes, dtype, causal, schedule):
    tensors = drawn(*sizes, dtype)
    results = attend(*tensors, causal, schedule)
    query, key, value, d_output = (x.detach().double().numpy() for x in tensors)
    (output, lse), saved = reference.attention_forward(query, key, value, causal=causal)
    gradients = reference.attention_backward(saved, d_output, 0 * lse)
    for got, expected in zip(results, (output, lse, *gradients), strict=True):
        error = abs(got.detach().double().numpy() - expected).max()
        assert error <= torch.finfo(dtype).eps * abs(expected).max()


def test_what_stands_behind_a_head_is_not_read():
    """TMA's tiles reach beyond a head that ends within one: lse and delta of the next are there."""
    tensors = drawn(1, 2, 2, 70, 70, 64, torch.float16)
    before = [x[:, 0].clone() for x in attend(*tensors, True, "behind")]
    with torch.no_grad():
        for x in tensors:
            x[:, 1] = float("nan")
    after = attend(*tensors, True, "behind")
    for x, y in zip(before, after, strict=True):
        assert torch.equal(x, y[:, 0]) and not x.isnan().any()
        assert y[:, 1].isnan().any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_verify_holds_them_to_the_budget_of_the_twin(dtype):
    """With the switch on, `gptwin verify attention` on a GPU of Hopper judges these kernels."""
    twin = TWINS["attention"]
    (case,) = (case for case in twin.corners if case["d_head"] in serving.D_HEADS
               and not case.get("dropout"))  # fmt: skip
    with playing() as played:
        row = verify_row(Job("attention", dtype, 0, 0, None, case), "cpu", lambda: None)
    assert {(name, 0) for name in HOPPER} <= row.reached and not played.findings
    assert row.passed, row.failure
    assert len(row.worst.comparisons) == 5  # output, lse and three gradients
    assert row.on_hopper.launched == Counter(HOPPER) and not row.on_hopper.refused
