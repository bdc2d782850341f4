"""When the kernels for Hopper run: switched on, where they can, and for what they serve."""

import pytest
import torch

from gptwin.kernels.attention.attention import attention
from gptwin.kernels.attention.attention_tiles import Masks
from gptwin.kernels.common import launch
from gptwin.kernels.hopper import serving

CAUSAL = Masks(causal=True)


def half(*shape):
    return torch.zeros(shape, dtype=torch.bfloat16)


QUERY, KEY = half(1, 4, 100, 64), half(1, 2, 150, 64)


def test_they_are_switched_off(monkeypatch):
    monkeypatch.delenv(serving.VARIABLE, raising=False)
    monkeypatch.setattr(serving, "can_run", lambda x: True)
    assert not serving.serves(QUERY, KEY, masks=CAUSAL, dropout=0.0)
    monkeypatch.setenv(serving.VARIABLE, "0")
    assert not serving.serves(QUERY, KEY, masks=CAUSAL, dropout=0.0)
    monkeypatch.setenv(serving.VARIABLE, "1")
    assert serving.serves(QUERY, KEY, masks=CAUSAL, dropout=0.0)


def test_another_word_in_the_switch_is_refused(monkeypatch):
    monkeypatch.setenv(serving.VARIABLE, "yes")
    with pytest.raises(ValueError, match=r"GPTWIN_HOPPER: expected 1, 0 or nothing, got 'yes'"):
        serving.asked_for()


def test_what_they_cannot_run_on_stays_plain(monkeypatch):
    """The interpreter, a CPU, another architecture, and rows that must have decoding's bits."""
    monkeypatch.setenv(serving.VARIABLE, "1")
    assert not serving.can_run(QUERY)
    monkeypatch.setattr(serving, "INTERPRETED", False)
    assert not serving.can_run(QUERY)
    for architecture, can in (("sm_90", True), ("sm_100", False), ("amd", False)):
        monkeypatch.setattr(serving, "architecture", lambda name=architecture: name)
        with launch.recording(compile_only=True):
            assert serving.can_run(QUERY) is can
            with launch.batch_invariant():
                assert not serving.can_run(QUERY)
    with launch.recording(calls_only=True):
        assert not serving.can_run(QUERY)


@pytest.mark.parametrize(
    ("query", "key", "masks", "dropout", "why"),
    [
        (QUERY, KEY, Masks(), 0.0, ""),
        (QUERY, KEY, CAUSAL, 0.0, ""),
        (QUERY.float(), KEY.float(), CAUSAL, 0.0, "float32"),
        (half(1, 1, 9, 40), half(1, 1, 9, 40), CAUSAL, 0.0, "d_head 40"),
        (QUERY, KEY, Masks(causal=True, window=3), 0.0, "window"),
        (QUERY, KEY, Masks(key_start=torch.zeros(1)), 0.0, "padding"),
        (QUERY, KEY, CAUSAL, 0.1, "dropout"),
        (half(0, 4, 9, 64), half(0, 4, 9, 64), CAUSAL, 0.0, "empty"),
        (QUERY, half(1, 2, 0, 64), Masks(), 0.0, "empty"),
        (half(1, 1, 9, 64), half(1, 1, 8, 64), CAUSAL, 0.0, "some see nothing"),
        (half(1, 1, 9, 64), half(1, 1, 8, 64), Masks(), 0.0, ""),
        (half(1, 4, 64, 100).mT, KEY, CAUSAL, 0.0, "a last axis of 1"),
        (half(1, 1, 1, 64).expand(1, 4, 9, 64), KEY, CAUSAL, 0.0, "no axis repeated"),
        (half(4 * 9 * 68)[: 4 * 9 * 68].view(1, 4, 9, 68)[..., :64], KEY, CAUSAL, 0.0, "16 bytes"),
        (half(4 * 9 * 64 + 1)[1:].view(1, 4, 9, 64), KEY, CAUSAL, 0.0, "16 bytes"),
        (half(1, 9, 3, 4, 64)[:, :, 0].transpose(1, 2), KEY, CAUSAL, 0.0, ""),  # qkv, packed
    ],
)  # fmt: skip
def test_why_not(query, key, masks, dropout, why):
    said = serving.why_not(query, key, masks=masks, dropout=dropout)
    assert (why in said) if why else said == ""


def test_what_else_is_read_or_written_must_be_copied_too():
    repeated = half(1).expand(QUERY.shape)  # the gradient of a sum
    assert "repeated" in serving.why_not(QUERY, KEY, KEY, repeated, masks=CAUSAL, dropout=0.0)


def test_a_call_that_they_do_not_serve_runs_the_plain_kernel(monkeypatch, device):
    monkeypatch.setenv(serving.VARIABLE, "1")
    monkeypatch.setattr(serving, "can_run", lambda x: True)
    tensors = [
        torch.randn(1, 1, 5, 64, device=device, requires_grad=True) for _ in range(3)
    ]  # float32
    with launch.recording() as log:
        output, _ = attention(*tensors, causal=True)
        torch.autograd.grad(output.sum(), tensors)
    assert [entry.kernel for entry in log] == [
        "attention_forward_kernel", "attention_backward_delta_kernel",
        "attention_backward_key_value_kernel", "attention_backward_query_kernel",
    ]  # fmt: skip
