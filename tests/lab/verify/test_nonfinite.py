"""NaN and infinity through every twin, and an instrument that sees them dropped or let out."""

import dataclasses

import pytest

from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.twins.draw import RandomArrays
from gptwin.lab.verify.nonfinite import check_nonfinite, nonfinite_cases

each_twin = pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)


@each_twin
def test_backends_agree_on_what_is_finite(twin, device):
    """`gptwin verify` runs all cases; here each number takes one value, or about that."""
    cases = list(nonfinite_cases(twin))
    assert cases, "no extremes"
    for dtype, some in ((twin.dtypes[0], cases[::4]), (twin.dtypes[-1], cases[1::13])):
        for case in some:
            checked = check_nonfinite(twin, case, dtype, device)
            assert checked.passed, (dtype, case, checked.error, checked.wrong)


def broken(name, change):
    """The twin with an operation whose first result is changed, on one backend or on both."""
    twin = TWINS[name]

    def operation(**arguments):
        results = twin.kernel(**arguments)
        many = isinstance(results, tuple)
        first, *others = results if many else (results,)
        changed = change(first, arguments)
        return (changed, *others) if many else changed

    return dataclasses.replace(twin, kernel=operation)


@pytest.mark.parametrize("name", ("softmax", "cross_entropy", "gae"))
def test_a_dropped_nan_is_seen(name, device):
    twin = broken(name, lambda x, _: x.nan_to_num(0.0))
    checks = [
        check_nonfinite(twin, case, "float32", device)
        for case in nonfinite_cases(twin)
        if case["nonfinite"][2] == "nan"
    ]
    assert not all(checked.passed for checked in checks)


def test_a_nan_that_leaves_what_a_mask_hides_is_seen(device):
    twin = broken("whiten", lambda x, arguments: x + 0 * arguments["x"].sum())
    case = next(
        case
        for case in nonfinite_cases(twin)
        if not twin.inputs(case, RandomArrays(case.get("seed", 0))).options["mask"][
            tuple(case["nonfinite"][1])
        ]
    )
    assert check_nonfinite(TWINS["whiten"], case, "float32", device).passed
    assert not check_nonfinite(twin, case, "float32", device).passed


def test_a_missing_refusal_is_seen(device):
    def without_checks(**arguments):
        return TWINS["kl"].eager(**arguments)  # which asks nothing

    twin = dataclasses.replace(TWINS["kl"], kernel=without_checks)
    errors = [check_nonfinite(twin, c, "float32", device).error for c in nonfinite_cases(twin)]
    assert any("expected what NumPy says" in error for error in errors)
