"""The CPU's few passes over the logits score tokens as the plain equivalents do."""

import pytest
import torch

from gptwin.kernels.common.launch import backend
from gptwin.kernels.language import token_scores_cpu
from gptwin.kernels.language.cross_entropy import cross_entropy_eager, token_log_probs
from gptwin.kernels.rlhf.linear_ppo_loss import linear_ppo_loss, linear_ppo_loss_eager

VOCAB, D_MODEL, IGNORED = 11, 4, -100
TOKEN_NAMES = ("old_log_prob", "advantages", "values", "old_values", "returns")
DIFFERENTIABLE = ("hidden", "weight", "values")
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 3e-2}
MASKS = {
    "all count": [True] * 7,
    "some are masked": [True, False, True, True, False, False, True],
    "none counts": [False] * 7,
    "one row": [True],
    "there are none": [],
}
pytestmark = pytest.mark.filterwarnings("error")
every_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
every_dtype = pytest.mark.parametrize("dtype", (torch.float64, torch.float32), ids=str)


@pytest.fixture(autouse=True, params=[1, 2 * VOCAB, 2**18])
def _strip(request, monkeypatch):
    """Strips of one row, which is larger than they should be, of two, and of all there are."""
    monkeypatch.setattr(token_scores_cpu, "STRIP", request.param)


def draw(mask, dtype, tied=True):
    """Return arguments; rows that are masked hold NaN, and targets that are none."""
    g = torch.Generator().manual_seed(3)
    n = len(mask)
    shape = (VOCAB, D_MODEL) if tied else (D_MODEL, VOCAB)
    weight = 2 * torch.randn(shape, generator=g, dtype=torch.float64)
    arguments = {
        "hidden": torch.randn(n, D_MODEL, generator=g, dtype=torch.float64),
        "weight": weight.T if tied else weight,
    }
    arguments |= {x: torch.randn(n, generator=g, dtype=torch.float64) for x in TOKEN_NAMES}
    arguments["old_log_prob"] -= 3
    mask = torch.tensor(mask, dtype=torch.bool)
    targets = torch.randint(0, VOCAB, (n,), generator=g).where(mask, IGNORED)
    for name, x in arguments.items():
        arguments[name] = x.to(dtype)
        if name != "weight":
            arguments[name][~mask] = torch.nan
    return arguments | {"targets": targets, "mask": mask}


def ppo(function, arguments, **options):
    leaves = {n: arguments[n].detach().requires_grad_() for n in DIFFERENTIABLE}
    with backend("eager"):
        results = function(**(arguments | leaves), **options)
    return *results, *torch.autograd.grad(2 * results.loss, tuple(leaves.values()))


def assert_same(actual, expected, dtype):
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == e.dtype
        torch.testing.assert_close(a, e, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@every_dtype
@every_mask
@pytest.mark.parametrize("entropy_coefficient", (0.0, 0.1))
@pytest.mark.parametrize("temperature", (1.0, 0.7))
def test_the_ppo_loss_is_the_plain_one(mask, dtype, temperature, entropy_coefficient):
    arguments = draw(mask, dtype)
    options = {"temperature": temperature, "entropy_coefficient": entropy_coefficient}
    options |= {"clip": 0.1, "value_clip": 0.3, "value_coefficient": 0.5}
    actual, expected = (
        ppo(function, arguments, **options) for function in (linear_ppo_loss, linear_ppo_loss_eager)
    )
    assert_same(actual, expected, dtype)
    d_hidden, d_weight, d_values = actual[-3:]
    masked = ~arguments["mask"]
    assert not d_hidden[masked].any() and not d_values[masked].any()
    assert d_weight.T.is_contiguous() or entropy_coefficient  # like the embedding that it is


def test_of_half_precision_too():
    """The same logits are looked at in float32; gradients are rounded at another place."""
    arguments = draw(MASKS["some are masked"], torch.bfloat16)
    arguments |= {name: arguments[name].float() for name in TOKEN_NAMES}
    actual, expected = (
        ppo(function, arguments) for function in (linear_ppo_loss, linear_ppo_loss_eager)
    )
    assert_same(actual[:-3], expected[:-3], torch.float32)
    assert_same(actual[-3:], expected[-3:], torch.bfloat16)


@pytest.mark.parametrize("wanted", [("hidden",), ("weight",), ("values",)])
def test_only_what_needs_a_gradient_gets_one(wanted):
    arguments = draw(MASKS["some are masked"], torch.float64, tied=False)
    for function in (linear_ppo_loss, linear_ppo_loss_eager):
        leaves = {name: arguments[name].clone().requires_grad_() for name in wanted}
        with backend("eager"):
            function(**(arguments | leaves)).loss.backward()
        gradient = leaves[wanted[0]].grad
        if function is linear_ppo_loss:
            own = gradient
    torch.testing.assert_close(own, gradient)


@every_dtype
@every_mask
def test_log_probabilities_alone_are_the_plain_ones(mask, dtype, monkeypatch):
    a = draw(mask, dtype)
    given = [a["hidden"].requires_grad_(), a["weight"].detach().requires_grad_()]
    expected = cross_entropy_eager(*given, a["targets"])[1]
    with backend("eager"):
        actual = token_log_probs(*given, a["targets"])
        monkeypatch.delattr(
            token_scores_cpu, "_Scores"
        )  # without a gradient, nothing is to be kept
        with torch.no_grad():
            alone = token_log_probs(*given, a["targets"])
    assert not alone.requires_grad
    d_log_prob = torch.arange(1.0, len(mask) + 1, dtype=dtype)
    d_log_prob[~a["mask"]] = torch.nan  # of what does not count, nobody knows the gradient
    gradients = torch.autograd.grad(actual, given, d_log_prob)
    d_log_prob[~a["mask"]] = 0
    assert_same(
        (actual, alone, *gradients),
        (expected, expected, *torch.autograd.grad(expected, given, d_log_prob)),
        dtype,
    )


@pytest.mark.parametrize("how", ("triton", "eager"))
def test_a_label_may_be_any_number(how, device):
    a = {n: x.to(device) for n, x in draw(MASKS["some are masked"], torch.float32).items()}
    targets = a["targets"].where(a["mask"], VOCAB + 3).int()
    with backend(how):
        actual = token_log_probs(a["hidden"], a["weight"], targets, ignore_index=VOCAB + 3)
    expected = cross_entropy_eager(a["hidden"], a["weight"], a["targets"])[1]
    torch.testing.assert_close(actual, expected)


def test_a_row_far_from_uniform_keeps_its_log_probability():
    """Of a token whose probability is 0 in float32."""
    hidden, weight = torch.eye(2), torch.tensor([[0.0, -300.0, 5.0], [0.0, 0.0, 700.0]])
    given = (hidden, weight, torch.tensor([1, 2]), torch.ones(2, dtype=torch.bool))
    log_prob, entropy = token_scores_cpu.eager_scores(*given, with_entropy=True)
    torch.testing.assert_close(token_scores_cpu.eager_scores(*given)[0], log_prob)
    assert log_prob.tolist() == pytest.approx([-305.0067, 0.0], abs=1e-4)
    assert (entropy >= 0).all() and entropy[1] == 0


def test_an_entropy_promises_no_gradient():
    a = draw(MASKS["all count"], torch.float64)
    given = (a["hidden"].requires_grad_(), a["weight"], a["targets"], a["mask"])
    log_prob, entropy = token_scores_cpu.eager_scores(*given, with_entropy=True)
    assert log_prob.requires_grad and not entropy.requires_grad


def test_a_gradient_can_be_taken_again_but_has_none_itself():
    arguments = draw(MASKS["all count"], torch.float64)
    hidden = arguments["hidden"].requires_grad_()
    with backend("eager"):
        loss = linear_ppo_loss(**arguments).loss
    (first,) = torch.autograd.grad(loss, hidden, retain_graph=True)
    (again,) = torch.autograd.grad(loss, hidden, retain_graph=True)
    assert torch.equal(first, again)
    with pytest.raises(NotImplementedError, match="second derivative"):
        torch.autograd.grad(loss, hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
        loss.backward()


def test_autocast_is_as_with_half_precision_arguments():
    arguments = draw(MASKS["some are masked"], torch.float32)
    hidden, weight = arguments["hidden"].requires_grad_(), arguments["weight"].requires_grad_()
    rest = arguments["targets"], arguments["mask"]
    half = [x.detach().bfloat16().requires_grad_() for x in (hidden, weight)]
    with torch.autocast("cpu", torch.bfloat16):
        (log_prob,) = token_scores_cpu.eager_scores(hidden, weight, *rest)
    (expected,) = token_scores_cpu.eager_scores(*half, *rest)
    torch.testing.assert_close(log_prob, expected, rtol=0, atol=0)
    gradients = torch.autograd.grad(log_prob.sum(), (hidden, weight))
    for actual, exact in zip(gradients, torch.autograd.grad(expected.sum(), half), strict=True):
        torch.testing.assert_close(actual, exact.float(), rtol=0, atol=0)
