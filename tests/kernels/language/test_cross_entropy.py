"""What the cross-entropy promises beyond agreeing with the reference; eager PyTorch too."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwin.core.language.cross_entropy import REDUCTIONS
from gptwin.kernels.common.launch import backend, recording
from gptwin.kernels.language import token_scores
from gptwin.kernels.language.cross_entropy import cross_entropy, token_log_probs

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
both = pytest.mark.parametrize("how", ("triton", "eager"))
reductions = pytest.mark.parametrize("reduction", REDUCTIONS)


def draw(seed=0, n=30, d_model=20, vocab=150, std=0.3, dtype=torch.float32, ignored=0.3):
    g = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, vocab, (n,), generator=g)
    targets[torch.rand(n, generator=g) < ignored] = -100
    hidden = torch.randn(n, d_model, generator=g).to(dtype)
    weight = (std * torch.randn(d_model, vocab, generator=g)).to(dtype)
    return {"hidden": hidden.to(DEVICE), "weight": weight.to(DEVICE), "targets": targets.to(DEVICE)}


def run(how="triton", hidden=None, weight=None, **others):
    """Return the results, and the loss's gradients to hidden and weight."""
    leaves = [x.detach().requires_grad_() for x in (hidden, weight)]  # strides stay
    with backend(how):
        results = cross_entropy(*leaves, **others)
        return results, torch.autograd.grad(results[0].sum(), leaves)


@both
@reductions
def test_it_is_pytorchs(how, reduction):
    arguments = draw()
    results, gradients = run(how, **arguments, reduction=reduction)
    leaves = [arguments[name].clone().requires_grad_() for name in ("hidden", "weight")]
    expected = torch.nn.functional.cross_entropy(
        leaves[0] @ leaves[1], arguments["targets"], reduction=reduction
    )
    torch.testing.assert_close(results[0], expected, atol=1e-5, rtol=1e-5)
    for a, b in zip(gradients, torch.autograd.grad(expected.sum(), leaves), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@both
@reductions
@pytest.mark.parametrize("n", (0, 5))
def test_all_labels_ignored_gives_zeros(how, reduction, n):
    """Liger#177: 0 / 0."""
    arguments = draw(n=n, ignored=1.1)
    arguments["hidden"][:] = torch.nan
    results, gradients = run(how, **arguments, reduction=reduction)
    for x in (*results, *gradients):
        assert torch.equal(x, torch.zeros_like(x))
    assert results[0].shape == ((n,) if reduction == "none" else ())


@both
def test_one_class_and_the_last_column(how):
    """Liger#177."""
    results, gradients = run(how, **draw(vocab=1, ignored=0.0))
    assert results[0] == 0 and not any(g.any() for g in gradients)
    for vocab in (128, 129, 150):  # at, just after and within a tile
        arguments = draw(vocab=vocab, ignored=0.0)
        arguments["targets"][:] = vocab - 1
        expected = -(arguments["hidden"] @ arguments["weight"]).log_softmax(-1)[:, -1].mean()
        torch.testing.assert_close(run(how, **arguments)[0][0], expected, atol=1e-5, rtol=1e-5)


@both
@reductions
@pytest.mark.parametrize("frozen", ("hidden", "weight"))
def test_what_needs_no_gradient_is_not_computed(how, reduction, frozen):
    """Liger#678 and #507: wrong gradients, and a loss of 0, without a gradient on one input."""
    arguments = draw()
    results, gradients = run(how, **arguments, reduction=reduction)
    wanted = "weight" if frozen == "hidden" else "hidden"
    leaf = arguments[wanted].requires_grad_()
    with backend(how), recording() as log:
        loss = cross_entropy(**arguments, reduction=reduction)[0]
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    assert torch.equal(loss, results[0])
    assert torch.equal(gradient, gradients[wanted == "weight"])
    if how == "triton":
        assert sum(entry.kernel == "matmul_kernel" for entry in log) == 1


@both
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16), ids=str)
def test_the_gradient_of_the_true_class_is_p_minus_1(how, dtype):
    """Liger#1329: 1 − p in bfloat16 is 0 or 2⁻⁸ where p is near 1; here it is rounded once.

    W is the identity, so that d_hidden is the gradient of the logits themselves.
    """
    x = torch.zeros(4, 32, dtype=dtype, device=DEVICE)
    x[:, 0] = torch.tensor([7.0, 8.0, 9.0, 10.0], dtype=dtype)
    weight = torch.eye(32, dtype=dtype, device=DEVICE)
    targets = torch.zeros(4, dtype=torch.int64, device=DEVICE)
    _, (d_hidden, _) = run(how, hidden=x, weight=weight, targets=targets, reduction="sum")
    p = x.double().softmax(-1)
    # float32 logits of size 10, then one rounding
    slack = torch.finfo(dtype).eps / 2 + 1e-3 * (dtype == torch.float32) + 1e-3
    torch.testing.assert_close(d_hidden[:, 0].double(), p[:, 0] - 1, rtol=slack, atol=0)


def test_python_float_gradients_stay_float32():
    """Liger#1350: a Python float made everything float64."""
    leaves = [x.requires_grad_() for x in list(draw().values())[:2]]
    loss, log_prob, entropy = cross_entropy(*leaves, draw()["targets"])
    (0.5 * loss + 0.1 * entropy.mean()).backward()
    assert {x.dtype for x in (loss, log_prob, entropy)} == {torch.float32}
    assert all(leaf.grad.dtype == torch.float32 and leaf.grad.any() for leaf in leaves)


@both
def test_more_than_two_dimensions_are_refused(how):
    """FlagGems#5392 wrote out of bounds."""
    arguments = draw()
    arguments["hidden"] = arguments["hidden"].view(2, 15, 20)
    with backend(how), pytest.raises(ValueError, match=r"hidden: expected 2 dimensions \[token, d"):
        cross_entropy(**arguments)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.sampled_from([0.01, 1.0, 100.0]), st.integers(1, 200))
def test_log_prob_is_never_above_0_nor_entropy_below(seed, std, vocab):
    """verl#2656: fused log-probabilities reached +123 in training."""
    arguments = draw(seed, vocab=vocab, std=std)
    # Greedy targets: log-probabilities as near 0 as they come.
    arguments["targets"] = (arguments["hidden"] @ arguments["weight"]).argmax(-1)
    with backend("triton"):
        loss, log_prob, entropy = cross_entropy(**arguments)
    assert loss >= 0 and (log_prob <= 0).all() and (entropy >= 0).all()


@both
@pytest.mark.skipif(DEVICE == "cuda", reason="on a GPU, looking would wait for the device")
@pytest.mark.parametrize("wrong", (-1, 150))
def test_targets_out_of_range_are_refused_on_the_cpu(how, wrong):
    arguments = draw()
    arguments["targets"][3] = wrong
    with pytest.raises(ValueError, match=f"targets: expected 0 to 149 .*, got {wrong} at 3"):
        run(how, **arguments)


@both
def test_a_uniform_models_loss_is_log_vocab(how):
    arguments = draw(vocab=1030)
    arguments["weight"][:] = 0
    loss, _, entropy = run(how, **arguments)[0]
    assert loss.item() == pytest.approx(math.log(1030), rel=1e-6)
    assert entropy.max().item() == pytest.approx(math.log(1030), rel=1e-6)


@both
@pytest.mark.parametrize("reduction", ("mean", "none"))
def test_ignored_tokens_never_leak(how, reduction):
    arguments = draw(1)
    ignored = arguments["targets"] == -100
    poisoned = {name: x.clone() for name, x in arguments.items()}
    poisoned["hidden"][ignored] = torch.nan
    before, after = (run(how, **a, reduction=reduction) for a in (arguments, poisoned))
    for a, b in zip((*before[0], *before[1]), (*after[0], *after[1]), strict=True):
        assert torch.equal(a, b)
    assert not after[1][0][ignored].any()


@pytest.mark.parametrize("tied", (True, False))
@pytest.mark.parametrize("columns", (256, 1024))
def test_a_tied_heads_gradient_lies_as_its_table(tied, columns, monkeypatch):
    """In chunks and in one: the strides are the weight's, so that autograd copies nothing."""
    arguments = draw(n=30, vocab=600)
    expected = run(**arguments)[1]
    if tied:
        arguments["weight"] = arguments["weight"].T.contiguous().T
    monkeypatch.setattr(token_scores, "MAX_LOGITS", 30 * columns)
    actual = run(**arguments)[1]
    assert actual[1].stride() == arguments["weight"].stride()
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_a_head_tied_to_its_table_trains_the_table():
    arguments = draw()
    table = arguments["weight"].T.contiguous().requires_grad_()  # [vocab, d_model]
    with backend("triton"):
        cross_entropy(arguments["hidden"], table.T, arguments["targets"])[0].backward()
    torch.testing.assert_close(table.grad, run(**arguments)[1][1].T, atol=1e-6, rtol=1e-5)


def test_the_entropys_gradient_is_computed_only_if_asked_for(monkeypatch):
    """And all three results' gradients add up."""
    asked = []
    launch = token_scores.launch

    def spy(kernel, grid, *args, **constants):
        if kernel in token_scores.D_LOGITS_KERNELS.values():
            given = dict(zip(kernel.arg_names, args, strict=False))
            asked.append(given["d_entropy_ptr"] is not None)
        launch(kernel, grid, *args, **constants)

    monkeypatch.setattr(token_scores, "launch", spy)
    arguments = draw()
    for of_entropy in (0.0, 0.3):
        both_ways = []
        for how in ("triton", "eager"):
            leaf = arguments["hidden"].detach().requires_grad_()
            with backend(how):
                loss, log_prob, entropy = cross_entropy(leaf, *list(arguments.values())[1:])
            total = loss + 0.7 * (log_prob**2).sum()
            total = total + of_entropy * entropy.sum() if of_entropy else total
            both_ways += torch.autograd.grad(total, leaf)
        torch.testing.assert_close(*both_ways, atol=1e-5, rtol=1e-4)
    assert asked == [False, True]


@both
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
def test_ignore_index_and_int32_targets(how, dtype):
    """A label inside the vocabulary, such as the padding token, is ignored like one outside."""
    arguments = draw(dtype=dtype)
    expected = run(how, **arguments)
    padded = arguments | {"targets": arguments["targets"].int()}
    padded["targets"][arguments["targets"] == -100] = 149
    assert (arguments["targets"] != 149).all()
    actual = run(how, **padded, ignore_index=149)
    for a, b in zip((*actual[0], *actual[1]), (*expected[0], *expected[1]), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": torch.half}, r"weight: expected dtype torch\.float32, like hidden"),
        (
            {"weight": torch.double, "hidden": torch.double},
            "hidden: expected dtype float32, float16 or bfloat16",
        ),
    ],
)
def test_wrong_dtypes_are_refused_by_name(changes, message):
    arguments = draw()
    for name, dtype in changes.items():
        arguments[name] = arguments[name].to(dtype)
    with backend("triton"), pytest.raises(ValueError, match=message):
        cross_entropy(**arguments)


@both
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32])
def test_log_probs_of_targets_of_any_integer_type(how, dtype):
    """Nothing is ignored where a type holds no −100: 156 is not it."""
    arguments = draw(vocab=200, ignored=0.0)
    arguments["targets"][:3] = 156
    with backend(how):
        expected = token_log_probs(**arguments)
        found = token_log_probs(**arguments | {"targets": arguments["targets"].to(dtype)})
    assert torch.equal(found, expected) and (found < 0).all()
