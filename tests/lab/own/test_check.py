"""`gptwin.check`: a kernel that this project did not write, against any reference."""

import pytest
import torch
from hypothesis import strategies as st

import gptwin
from gptwin.kernels.common import plain
from gptwin.kernels.common.launch import INTERPRETED
from gptwin.lab.sanitize.program import watching

from .norm import cases, decay_, in_numpy, in_torch, launch, scale

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="sized for the interpreter")
quick = {"cases": cases(), "dtypes": ["float32"], "examples": 3}
DECAY = {
    "cases": [{"x": {"normal": [21]}, "rate": 0.25}], "dtypes": ["float32"], "examples": 1,
    "layouts": ["contiguous"],
}  # fmt: skip


def test_a_kernel_and_its_gradients_agree_in_every_configuration():
    report = gptwin.check(scale, in_torch, **quick)
    assert report.compared == ("result", "d_x", "d_weight")
    assert report.kernels == ("scale_kernel #0", "scale_kernel #1")
    assert report.n_cases == 2 * 2 + 3  # corners in every configuration, random cases
    assert 0 < report.worst["float32"] <= 1


def test_a_numpy_reference_is_one_too():
    report = gptwin.check(launch, in_numpy, **quick | {"dtypes": [torch.float16]})
    assert report.compared == ("result",)
    given = gptwin.check(
        scale, in_numpy, backward=lambda x, w, d: (d * w, (d * x).sum(0)), **quick
    )  # fmt: skip
    assert given.compared == ("result", "d_x", "d_weight")


def test_a_disagreement_names_all_that_is_needed():
    with pytest.raises(AssertionError) as caught:
        gptwin.check(launch, lambda x, w: x * w * (1 + 1e-4), **quick)
    said = str(caught.value)
    assert said.startswith("launch disagrees with <lambda> in float32\nfloat32, x=1x1 weight=1 #0")
    assert "(scale_kernel: ROWS: 1, num_warps: 4" in said
    assert "result: 1 of 1 elements beyond their budget, the first at [0, 0]: expected " in said
    assert "allowed error " in said
    assert "written by scale_kernel, program (0, 0, 0), block [0..0, 0..0], " in said
    assert "again: gptwin.check(..., dtypes=['float32'], case={" in said


def test_a_wrong_gradient_is_told_by_its_argument():
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.save_for_backward(weight)
            return launch(x, weight)

        @staticmethod
        def backward(ctx, d_y):
            return launch(d_y, ctx.saved_tensors[0]), None

    with pytest.raises(AssertionError, match="d_weight: 1 of 1 elements beyond their budget"):
        gptwin.check(lambda x, weight: Wrong.apply(x, weight), in_torch, **quick)
    gptwin.check(
        lambda x, weight: Wrong.apply(x, weight), in_torch, gradients=["x"], **quick
    )  # fmt: skip


def test_gaps_in_memory_are_seen():
    def ignores_strides(x, weight):
        return launch(torch.as_strided(x, x.shape, (x.shape[1], 1)), weight)

    with pytest.raises(AssertionError, match=r'"layout": "(every_other|row_pitch|transposed)"'):
        gptwin.check(ignores_strides, in_torch, **quick)


@pytest.mark.parametrize(
    "reference", [lambda x, rate: x * (1 - rate), lambda x, rate: x.mul_(1 - rate)]
)
def test_updates_in_place_are_results(reference):
    report = gptwin.check(decay_, reference, updates=["x"], **DECAY)
    assert report.compared == ("x",)
    with pytest.raises(AssertionError, match="x: 21 of 21 elements"):
        gptwin.check(decay_, lambda x, rate: x * rate, updates=["x"], **DECAY)


def test_each_call_updates_a_copy_that_lies_as_its_argument_does():
    declared = gptwin.twin(decay_, lambda x, rate: x * (1 - rate), updates=["x"], cases=[
        {"x": {"normal": [21]}, "rate": 0.25}
    ])  # fmt: skip
    twin = declared.as_twin("of a test")
    x = torch.ones(42)[::2]
    (first,), (second,) = (twin.kernel(x=x, rate=0.25) for _ in range(2))
    assert torch.equal(first, second) and first.stride() == (2,)
    assert torch.equal(x, torch.ones(21))


def test_an_undeclared_update_is_a_fault():
    def writes(x, rate):
        decay_(x, rate)
        return x

    with pytest.raises(AssertionError, match="x: expected to be left as it is"):
        gptwin.check(writes, lambda x, rate: x * (1 - rate), **DECAY)


def test_a_kernel_may_insist_on_a_gpu():
    """As most do: its function makes "cuda" tensors, or refuses others, backward too."""

    class OnGPU(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            assert x.is_cuda and weight.device.type == "cuda"
            ctx.save_for_backward(x, weight)
            return launch(x, weight) + torch.zeros(1, dtype=x.dtype, device="cuda")

        @staticmethod
        def backward(ctx, d_y):
            assert d_y.is_cuda
            x, weight = ctx.saved_tensors
            return launch(d_y, weight), (d_y * x).sum(0)

    report = gptwin.check(lambda x, weight: OnGPU.apply(x, weight), in_torch, **quick)
    assert report.compared == ("result", "d_x", "d_weight")


def test_pytorchs_own_function_is_a_reference():
    def case(rows, n):
        return {"x": {"normal": [rows, n]}, "shape": [n], "weight": {"normal": [n]}, "eps": 1e-5}

    def norm(x, shape, weight, eps):
        x = x.float()
        rms = torch.rsqrt((x * x).mean(-1, keepdim=True) + eps)
        return launch((x * rms).to(weight.dtype), weight)

    strategy = st.builds(case, st.integers(1, 3), st.integers(1, 9))
    given = quick | {"cases": strategy, "dtypes": [torch.bfloat16]}
    report = gptwin.check(norm, torch.nn.functional.rms_norm, **given)
    assert report.compared == ("result",)


def test_a_watched_program_may_check():
    """As in a test under @pytest.mark.gptwin: the check says which configuration runs."""
    plain.watch_plain_launches()  # as an earlier test may have
    with watching() as seen:
        report = gptwin.check(scale, in_torch, **quick)
    assert report.kernels == ("scale_kernel #0", "scale_kernel #1")
    assert seen.n_launches > report.n_cases and not seen.violations


def test_a_half_precision_reference_is_taken_in_float64():
    """What a reference casts to float32 on its way does not round the truth."""
    twin = gptwin.twin(launch, in_torch, cases=cases()).as_twin("of a test", try_it=False)
    x = torch.full((1, 1), 1 + 2**-40, dtype=torch.float64).numpy()
    assert twin.forward(x=x, weight=x[0])[0][0] == x * x


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cases": 3}, "cases: expected a Hypothesis strategy, or a list of cases, got a int"),
        ({"cases": [{"x": {"shape": [3]}}]}, "cases: x: expected a tensor as one of normal"),
        ({"cases": [{"seed": 3}]}, "cases: expected other names than layout"),
        ({"cases": [{"x": torch.zeros(2)}]}, "cases: expected numbers, strings and lists"),
        ({"cases": [{"y": {"normal": [2, 2]}}]}, "reference: expected a function of the arguments"),
        ({"cases": st.just(3)}, "cases: expected dicts of a call's arguments, got a int"),
        ({"dtypes": ["float64"]}, "dtypes: expected some of float32, float16, bfloat16, got float"),
        ({"dtypes": "float32"}, r"dtypes: expected a list of names, such as \['float32'\]"),
        ({"updates": ["z"]}, r"updates: expected arguments of a case \(x, weight\), got 'z'"),
        ({"gradients": ["x"]}, "gradients: expected results of launch that carry gradients"),
        ({"layouts": ["odd"]}, "layouts: expected some of contiguous"),
        ({"reference": None}, "reference: expected a function, got none"),
        ({"kernel": in_torch}, "kernel: expected a function that launches a Triton kernel"),
        ({"results": ["a", "b"]}, "results: expected 1 names"),
        ({"configs": 0}, "configs: expected at least 1"),
        ({"examples": 0}, "examples: expected at least 1"),
    ],
)
def test_bad_input_is_refused_by_name(wrong, message):
    given = {"kernel": launch, "reference": in_torch, **quick, **wrong}
    with pytest.raises(ValueError, match=message):
        gptwin.check(given.pop("kernel"), given.pop("reference"), **given)
