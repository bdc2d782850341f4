"""What is stored of declared approximations is of all of them, and the truth is the truth."""

from pathlib import Path

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

pytest.importorskip("llvmlite")

from gptwin.lab.prove.equal import approximations
from gptwin.lab.store import read_rows

STORED = Path(approximations.__file__).with_name("approximations.jsonl")
TRUTHS = {
    "k3 near 0": lambda x: np.expm1(-x) + x,
    "log(1 + e)": np.log1p,
    "log(1 + rest)": np.log1p,
    "a token's weight": lambda x: np.exp(-x),
}


def test_every_approximation_is_measured_on_its_interval() -> None:
    rows = {row["approximation"]: row for row in read_rows(STORED)["rows"]}
    assert list(rows) == [one.name for one in approximations.APPROXIMATIONS]
    for one in approximations.APPROXIMATIONS:
        row = rows[one.name]
        assert (row["low"], row["high"]) == (one.low, one.high)
        assert row["numbers"] == sum(n for _, n in approximations.stretches(one.low, one.high))
        assert row["worst_ulp"] < 3


@triton.jit
def both_kernel(x_ptr, near_ptr, truth_ptr, BOTH: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    near, truth = BOTH(tl.load(x_ptr + at))
    tl.store(near_ptr + at, near)
    tl.store(truth_ptr + at, truth)


@pytest.mark.parametrize("one", approximations.APPROXIMATIONS, ids=lambda one: one.name)
def test_the_truth_that_errors_are_measured_against(one: approximations.Approximation) -> None:
    """80 bits of NumPy's agree with it, at float32 numbers from the whole interval."""
    x = np.geomspace(1e-2, one.high, 512).astype(np.float32)
    x = np.concatenate((x, x * (np.sign(one.low) or 1e-4)))
    near, truth = torch.empty(1024, dtype=torch.float64), torch.empty(1024, dtype=torch.float64)
    both_kernel[(1,)](torch.from_numpy(x), near, truth, BOTH=one.both, BLOCK=1024)
    expected = TRUTHS[one.name](x.astype(np.longdouble))
    ulp = np.spacing(np.ones_like(x) if one.of_one else expected.astype(np.float32))
    assert np.abs(truth.numpy() - expected).max() <= 1e-13 * np.abs(expected).max()
    assert (np.abs(truth.numpy() - expected) < 1e-4 * ulp).all()
    assert (np.abs(near.numpy() - expected) < 3 * ulp).all()
