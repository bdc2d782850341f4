"""The judge itself: what it lets pass, and what it must not."""

import dataclasses

import numpy as np
import pytest
import torch

from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.twins.draw import COTANGENT_LAYOUTS, lay_out
from gptwin.lab.verify.budget import RESULT_MULTIPLE, compare
from gptwin.lab.verify.check import FEW_NUMBERS, MORE_DRAWS, check

TRUTH = np.array([1.0, -2.0, 0.0])


def near(*errors):
    return TRUTH + np.array(errors)


def share(actual, eager=TRUTH, truth=TRUTH, dtype="float32", noise=0.0, name="y"):
    return compare(name, truth, np.asarray(eager), np.asarray(actual), dtype, noise).share


def test_the_truth_itself_uses_nothing_of_the_budget():
    assert share(TRUTH) == 0


def test_twice_eagers_error_is_the_limit_for_results_and_three_times_for_gradients():
    eager = near(0, 0, 0.01)
    assert share(near(0, 0, 0.0199), eager) < 1 < share(near(0, 0, 0.0201), eager)
    assert share(near(0, 0, 0.0299), eager, name="d_x") < 1
    assert share(near(0, 0, 0.0301), eager, name="d_x") > 1
    assert RESULT_MULTIPLE == 2


def test_one_rounding_of_the_output_is_allowed():
    assert share([1 + 2.0**-9, -2, 0], dtype="bfloat16") <= 1
    assert share([1 + 2.0**-7, -2, 0], dtype="bfloat16") > 1
    assert share([1 + 2.0**-9, -2, 0], dtype="float32") > 1


def test_integers_are_equal_or_wrong():
    """A drawn token next to the right one is as wrong as any, whatever eager drew."""
    tokens = np.array([5, -1, 151_935])
    assert share(tokens, truth=tokens, eager=tokens + 7, dtype="bfloat16", noise=9.0) == 0
    beside = tokens + np.array([0, 0, 1])
    assert share(beside, truth=tokens, eager=tokens + 7, dtype="bfloat16", noise=9.0) > 1


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_where_the_truth_is_finite_the_result_must_be(wrong):
    eager_is_no_excuse = near(np.inf, 0, 0)
    assert share([wrong, -2, 0], eager_is_no_excuse, noise=1.0) == np.inf


def test_infinities_and_nan_must_be_the_same():
    truth = np.array([np.inf, np.nan])
    assert share([np.inf, np.nan], truth, truth) == 0
    assert share([-np.inf, np.nan], truth, truth) == np.inf
    assert share([np.inf, 0.0], truth, truth) == np.inf


def test_a_result_of_another_shape_is_wrong_everywhere():
    assert share(np.zeros((3, 1))) == np.inf


def test_the_first_element_beyond_its_budget_is_named():
    found = compare("y", TRUTH, TRUTH, np.array([1.0, -2.5, 0.3]), "float32", 0.0)
    assert (found.index, found.expected, found.actual, found.n_wrong) == ((1,), -2.0, -2.5, 2)


def wrong_twin(change):
    """A softmax whose kernel is not quite the reference."""
    twin = TWINS["softmax"]
    return dataclasses.replace(twin, kernel=lambda x, **options: change(twin.kernel(x, **options)))


def test_an_element_that_is_never_written_is_seen(device):
    def unwritten(p):
        out = torch.empty_like(p)
        out[..., :-1] = p[..., :-1]
        return out + 0 * p  # keeps the graph

    finding = check(wrong_twin(unwritten), {"shape": [2, 5]}, "float32", device)
    assert finding.comparisons[0].index == (0, 4)
    assert np.isnan(finding.comparisons[0].actual)


def test_a_small_relative_error_is_seen_in_float32(device):
    finding = check(wrong_twin(lambda p: p * (1 + 1e-5)), {"shape": [2, 5]}, "float32", device)
    assert not finding.passed
    finding = check(wrong_twin(lambda p: p), {"shape": [2, 5]}, "float32", device)
    assert finding.passed


def test_an_exception_is_a_finding(device):
    def explode(p):
        raise RuntimeError("boom")

    finding = check(wrong_twin(explode), {"shape": [2, 5]}, "float32", device)
    assert not finding.passed and finding.error == "RuntimeError: boom"


@pytest.mark.parametrize("layout", COTANGENT_LAYOUTS)
def test_layouts_keep_the_values_and_change_the_strides(layout):
    x = torch.arange(24.0).reshape(2, 3, 4)
    laid = lay_out(x, layout)
    if layout == "expanded":
        assert laid.stride(0) == 0 and torch.equal(laid[1], x[0])
        return
    assert torch.equal(laid, x)
    assert (laid.stride() == x.stride()) == (layout == "contiguous")


@pytest.mark.parametrize(
    ("n", "sloppy_elsewhere", "passes"),
    [
        (8, True, True),
        (8, False, False),
        (FEW_NUMBERS + 1, True, False),
    ],
)
def test_eager_is_asked_again_where_few_numbers_make_it_lucky(n, sloppy_elsewhere, passes):
    """A kernel as good as eager passes although eager was exact on this draw, by luck."""
    calls = []

    def eager(x, **options):
        calls.append(x)
        lucky = len(calls) == 1 or not sloppy_elsewhere
        return x * (1 if lucky else 1 + 2**-6)

    twin = dataclasses.replace(
        TWINS["gelu"], eager=eager, kernel=lambda x, **options: x * (1 + 2**-6),
        forward=lambda x, **options: (x, None), backward=lambda saved, d_y: d_y,
    )  # fmt: skip
    assert check(twin, {"shape": [n], "seed": 3}, "float32", "cpu").passed == passes
    assert len(calls) == (1 if n > FEW_NUMBERS else 1 + MORE_DRAWS)


def test_the_yardstick_is_eager_on_contiguous_tensors():
    """Else PyTorch reads the padding between bfloat16 rows on some CPUs, and is a NaN."""
    seen = []

    def eager(x, **options):
        seen.append(x.is_contiguous())
        return TWINS["gelu"].eager(x, **options)

    twin = dataclasses.replace(TWINS["gelu"], eager=eager)
    assert check(twin, {"shape": [3, 5], "layout": "row_pitch"}, "float32", "cpu").passed
    assert seen == [True]
