"""What the guided scores promise beyond agreeing with the reference: memory, chunks, gradients."""

import pytest
import torch

from gptwin.kernels.common.launch import backend, recording
from gptwin.kernels.language import token_scores
from gptwin.kernels.language.cross_entropy import token_log_probs
from gptwin.kernels.language.director_scores import director_scores

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HEADS = ("hidden", "weight", "class_weight")


def draw(n=40, d_model=12, vocab=700, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    arguments = {
        "hidden": torch.randn(n, d_model, generator=g).to(dtype),
        "weight": (0.3 * torch.randn(d_model, vocab, generator=g)).to(dtype),
        "class_weight": torch.randn(d_model, vocab, generator=g).to(dtype),
        "targets": torch.randint(0, vocab, (n,), generator=g),
        "mask": torch.rand(n, generator=g) < 0.6,
    }
    return {name: x.to(DEVICE) for name, x in arguments.items()}


def run(arguments, wanted=HEADS, gamma=1.5):
    leaves = {n: arguments[n].detach().clone().requires_grad_() for n in wanted}
    with backend("triton"):
        results = director_scores(**(arguments | leaves), gamma=gamma)
        return results, torch.autograd.grad(results.log_prob.sum(), tuple(leaves.values()))


def test_chunks_change_no_gradient_and_no_logits_of_all_tokens_are_held(monkeypatch):
    arguments = draw()
    whole = run(arguments)[1]
    sizes = []
    for name in ("empty", "empty_like", "zeros", "where", "full"):
        original = getattr(torch, name)

        def noted(*args, original=original, **kwargs):
            made = original(*args, **kwargs)
            sizes.append(made.numel())
            return made

        monkeypatch.setattr(torch, name, noted)
    monkeypatch.setattr(token_scores, "MAX_LOGITS", 1)  # PITCH columns are the least
    with recording() as log:
        chunked = run(arguments)[1]
    launched = [t.numel() for entry in log for t in entry.tensors.values()]
    # Both gradients' buffers together are smaller than one head's logits.
    assert max(*launched, *sizes) == 2 * 40 * token_scores.PITCH < 40 * 700
    assert sum(entry.kernel == "director_scores_d_logits_kernel" for entry in log) == 3
    for a, b in zip(chunked, whole, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6 * b.abs().max().item(), rtol=0)
    assert all(torch.equal(a, b) for a, b in zip(chunked[1:], whole[1:], strict=True))


@pytest.mark.parametrize("frozen", HEADS)
def test_what_needs_no_gradient_is_not_computed(frozen):
    arguments = draw(n=20, vocab=60)
    whole = dict(zip(HEADS, run(arguments)[1], strict=True))
    wanted = tuple(name for name in HEADS if name != frozen)
    with recording() as log:
        found = run(arguments, wanted)[1]
    assert all(torch.equal(x, whole[name]) for name, x in zip(wanted, found, strict=True))
    n_products = sum("matmul" in entry.kernel for entry in log)
    assert n_products == (2 if frozen == "hidden" else 3)


def test_a_gradient_has_its_heads_strides():
    arguments = draw(n=20, vocab=60)
    arguments["weight"] = arguments["weight"].T.contiguous().T  # as a tied table's
    _, d_weight, d_class_weight = run(arguments)[1]
    assert d_weight.stride() == arguments["weight"].stride()
    assert d_class_weight.stride() == arguments["class_weight"].stride()


def test_without_a_guide_it_is_the_generators_log_probability():
    arguments = draw(n=20, vocab=60)
    targets = arguments["targets"].where(arguments["mask"], -100)
    with backend("triton"):
        plain = token_log_probs(arguments["hidden"], arguments["weight"], targets)
        found = director_scores(**arguments, gamma=0.0).log_prob
    torch.testing.assert_close(found, plain, atol=1e-6, rtol=0)


@pytest.mark.parametrize("how", ["triton", "eager"])
def test_the_heads_must_be_of_one_type(how):
    arguments = draw(n=4, vocab=6)
    arguments["class_weight"] = arguments["class_weight"].half()
    with backend(how), pytest.raises(ValueError, match=r"^class_weight: expected"):
        director_scores(**arguments)
