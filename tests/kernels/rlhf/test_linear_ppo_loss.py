"""What the fused PPO loss promises beyond agreeing with the reference; eager PyTorch too."""

import contextlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwin.kernels.common.launch import backend, recording
from gptwin.kernels.language import token_scores
from gptwin.kernels.language.token_scores import score
from gptwin.kernels.rlhf.linear_ppo_loss import linear_ppo_loss
from gptwin.kernels.rlhf.ppo_loss import ppo_loss

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOKEN_NAMES = ("old_log_prob", "advantages", "values", "old_values", "returns")
DIFFERENTIABLE = ("hidden", "weight", "values")
both = pytest.mark.parametrize("how", ("triton", "eager"))


def draw(seed=0, n=90, d_model=20, vocab=150, std=0.3, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    arguments = {
        "hidden": torch.randn(n, d_model, generator=g).to(dtype),
        "weight": (std * torch.randn(d_model, vocab, generator=g)).to(dtype),
        "targets": torch.randint(0, vocab, (n,), generator=g),
    }
    arguments |= {name: torch.randn(n, generator=g) for name in TOKEN_NAMES}
    arguments["old_log_prob"] -= 5
    arguments["mask"] = torch.rand(n, generator=g) < 0.6
    return {name: x.to(DEVICE) for name, x in arguments.items()}


def run(how="triton", **arguments):
    """Return the results and the gradients to the arguments that get one."""
    leaves = {n: arguments[n].detach().clone().requires_grad_() for n in DIFFERENTIABLE}
    with backend(how):
        results = linear_ppo_loss(**(arguments | leaves), entropy_coefficient=0.1)
        return results, torch.autograd.grad(results.loss, tuple(leaves.values()))


@contextlib.contextmanager
def largest_buffer(numbers):
    before, token_scores.MAX_LOGITS = token_scores.MAX_LOGITS, numbers
    try:
        yield
    finally:
        token_scores.MAX_LOGITS = before


@both
def test_it_is_linear_then_log_softmax_then_ppo_loss(how):
    arguments = draw()
    results, gradients = run(how, **arguments)
    leaves = {n: arguments[n].clone().requires_grad_() for n in DIFFERENTIABLE}
    log_p = (leaves["hidden"] @ leaves["weight"]).log_softmax(-1)
    tokens = {name: arguments[name] for name in (*TOKEN_NAMES, "mask")}
    tokens |= {
        "values": leaves["values"],
        "log_prob": log_p.gather(-1, arguments["targets"][:, None])[:, 0],
        "entropy": -(log_p.exp() * log_p).sum(-1),
    }
    expected = ppo_loss(**tokens, entropy_coefficient=0.1)
    for a, b in zip(results, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    for a, b in zip(
        gradients, torch.autograd.grad(expected.loss, tuple(leaves.values())), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("columns", (256, 512))
def test_chunks_do_not_change_the_gradients(dtype, columns):
    arguments = draw(n=40, vocab=700, dtype=dtype)
    whole = run(**arguments)[1]
    with largest_buffer(40 * columns):
        chunked = run(**arguments)[1]
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 1e-2}[dtype]
    for a, b in zip(chunked, whole, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, atol=tolerance * b.abs().max().item(), rtol=0)
    assert torch.equal(chunked[1], whole[1])  # d_weight is complete within its chunk


def test_no_logits_of_all_tokens_are_ever_allocated(monkeypatch):
    n, vocab, most = 90, 1200, 90 * 256
    sizes = []
    for name in ("empty", "empty_like", "zeros", "zeros_like", "where", "full"):
        original = getattr(torch, name)

        def noted(*args, original=original, **kwargs):
            made = original(*args, **kwargs)
            sizes.append(made.numel())
            return made

        monkeypatch.setattr(torch, name, noted)
    with largest_buffer(most), recording() as log:
        run(**draw(n=n, vocab=vocab))
    launched = [t.numel() for entry in log for t in entry.tensors.values()]
    assert max(*launched, *sizes) == max(most, 20 * vocab) < n * vocab  # the weight has 20 rows
    assert sum(entry.kernel == "token_scores_d_logits_kernel" for entry in log) == 5


@settings(max_examples=15)
@given(st.integers(0, 1000), st.sampled_from([0.01, 1.0, 100.0]), st.integers(1, 200))
def test_log_prob_is_never_above_0_nor_entropy_below(seed, std, vocab):
    a = draw(seed, n=40, vocab=vocab, std=std)
    mask = torch.ones_like(a["mask"])
    # Greedy targets: log-probabilities as near 0 as they come.
    targets = (a["hidden"] @ a["weight"]).argmax(-1)
    log_prob, entropy, lse = score(a["hidden"], a["weight"], targets, mask, 1.0)
    assert (log_prob <= 0).all() and (entropy >= 0).all() and lse.isfinite().all()


@both
def test_masked_rows_never_leak(how):
    arguments = draw(1)
    mask = arguments["mask"]
    poisoned = {n: x.clone() for n, x in arguments.items()}
    for name in ("hidden", *TOKEN_NAMES):
        poisoned[name][~mask] = torch.nan
    poisoned["targets"][~mask] = -100
    before, after = run(how, **arguments), run(how, **poisoned)
    for a, b in zip((*before[0], *before[1]), (*after[0], *after[1]), strict=True):
        assert torch.equal(a, b)
    assert not after[1][0][~mask].any() and not after[1][2][~mask].any()


@both
@pytest.mark.parametrize("n", (0, 5))
def test_nothing_unmasked_gives_zeros(how, n):
    arguments = draw(n=n)
    arguments["mask"][:] = False
    arguments["hidden"][:] = torch.nan
    results, gradients = run(how, **arguments)
    assert [x.item() for x in results] == [0.0] * 12
    assert not any(g.any() for g in gradients)


@both
def test_on_the_first_minibatch_the_ratio_is_exactly_1(how):
    """The rollout's log-probabilities, if scored by the same code, give ratio 1 to the bit."""
    a = draw(2)
    if how == "triton":
        a["old_log_prob"] = score(a["hidden"], a["weight"], a["targets"], a["mask"], 1.0)[0]
    else:
        log_p = (a["hidden"] * a["mask"][:, None] @ a["weight"]).log_softmax(-1)
        a["old_log_prob"] = log_p.gather(-1, a["targets"][:, None])[:, 0]
    results, _ = run(how, **a)
    assert results.ratio_min == results.ratio_max == 1
    assert results.approx_kl == 0


@both
@pytest.mark.skipif(DEVICE == "cuda", reason="on a GPU, looking would wait for the device")
@pytest.mark.parametrize("wrong", (-1, 150))
def test_targets_out_of_range_are_refused_on_the_cpu(how, wrong):
    arguments = draw()
    arguments["mask"][:] = True
    arguments["targets"][3] = wrong
    with pytest.raises(ValueError, match=f"targets: expected 0 to 149 .*, got {wrong} at 3"):
        run(how, **arguments)


@pytest.mark.parametrize("wrong", (-1, 150, 2**40))
def test_unchecked_targets_out_of_range_are_nan(wrong):
    """What a GPU does, where nobody looked: the kernel must not use the target as an address."""
    a = draw()
    a["targets"][3] = wrong
    a["mask"][:] = True
    log_prob, _, _ = score(a["hidden"], a["weight"], a["targets"], a["mask"], 1.0)
    assert log_prob[3].isnan() and log_prob.isnan().sum() == 1


def test_only_what_needs_a_gradient_gets_one():
    arguments = draw()
    arguments["values"].requires_grad_()
    with recording() as log:
        linear_ppo_loss(**arguments).loss.backward()
    assert arguments["values"].grad.any()
    assert "token_scores_d_logits_kernel" not in {entry.kernel for entry in log}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": torch.half}, r"weight: expected dtype torch\.float32, like hidden"),
        ({"returns": torch.half}, r"returns: expected dtype torch\.float32, like values"),
        (dict.fromkeys(TOKEN_NAMES, torch.half), "values: expected dtype float32"),
    ],
)
def test_wrong_dtypes_are_refused_by_name(changes, message):
    arguments = draw()
    for name, dtype in changes.items():
        arguments[name] = arguments[name].to(dtype)
    with pytest.raises(ValueError, match=message):
        linear_ppo_loss(**arguments)
