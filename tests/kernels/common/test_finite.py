"""Who looks for infinities and NaN, and what the one who finds them says."""

import math
import re

import numpy as np
import pytest
import torch

from gptwin.core.checks import expect_finite
from gptwin.kernels.common import launch
from gptwin.kernels.common.finite import checking_finite, checks_finite
from gptwin.kernels.rlhf.kl import kl
from gptwin.kernels.rlhf.ppo_loss import ppo_loss


def test_the_message_counts_and_points(device):
    x = np.array([[1.0, math.inf, math.nan], [math.nan, 2.0, 3.0]])
    rows = np.array([False, True])
    for array, mask in ((x, rows), (torch.tensor(x, device=device), torch.tensor(rows).to(device))):
        with pytest.raises(ValueError, match=re.escape("3 that are not, the first inf at (0, 1)")):
            expect_finite("x", array)
        with pytest.raises(ValueError, match=re.escape("1 that are not, the first nan at (1, 0)")):
            expect_finite("x", array, mask)
        expect_finite("x", array, mask & ~mask)
    with pytest.raises(ValueError, match=r"^loss: .*the first nan at \(\)"):
        expect_finite("loss", torch.tensor(math.nan, device=device))
    expect_finite("empty", np.empty((0, 3)))


@pytest.mark.parametrize(
    "dtype", (torch.float16, torch.bfloat16, torch.float32, torch.float64), ids=str
)
def test_a_sum_that_overflows_or_cancels_deceives_nobody(dtype, device):
    most = torch.finfo(dtype).max
    large = torch.tensor([most, most, 1.0], dtype=dtype, device=device)
    expect_finite("x", large)
    expect_finite("x", large, torch.tensor([True, True, False], device=device))
    cancelling = torch.tensor([math.inf, -math.inf, 1.0], dtype=dtype, device=device)
    with pytest.raises(ValueError, match=re.escape("2 that are not, the first inf at (0,)")):
        expect_finite("x", cancelling)
    with pytest.raises(ValueError, match=re.escape("1 that are not, the first -inf at (1,)")):
        expect_finite("x", cancelling, torch.tensor([False, True, True], device=device))
    expect_finite("x", cancelling, torch.tensor([False, False, True], device=device))
    with pytest.raises(ValueError, match=re.escape("1 that are not, the first inf at (0,)")):
        expect_finite("x", cancelling[:1])


@pytest.mark.parametrize("x", [[], [2**62, 2**62, 2**62], [True, False]])
def test_numbers_without_infinities_pass(x, device):
    for array in (np.array(x), torch.tensor(x, device=device)):
        expect_finite("x", array)


def test_who_is_asked(monkeypatch, device):
    on_cpu, nowhere = torch.zeros(1), torch.zeros(1, device="meta")
    monkeypatch.delenv("GPTWIN_CHECK_FINITE", raising=False)
    assert checks_finite(on_cpu) and not checks_finite(nowhere)
    assert checks_finite(torch.zeros(1, device=device)) == (device == "cpu")
    monkeypatch.setenv("GPTWIN_CHECK_FINITE", "0")
    assert not checks_finite(on_cpu)
    with checking_finite(True):
        assert checks_finite(on_cpu) and not checks_finite(nowhere)
        with checking_finite(False):
            assert not checks_finite(on_cpu)
        assert checks_finite(on_cpu)
    monkeypatch.setenv("GPTWIN_CHECK_FINITE", "1")
    assert checks_finite(torch.zeros(1, device=device))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not checks_finite(on_cpu)
    monkeypatch.undo()
    monkeypatch.setenv("GPTWIN_CHECK_FINITE", "yes")
    with pytest.raises(ValueError, match="GPTWIN_CHECK_FINITE: expected 0 or 1, got 'yes'"):
        checks_finite(on_cpu)


def test_unchecked_it_passes_through(device):
    x = torch.tensor([math.nan, 1.0], device=device)
    every = torch.ones(2, dtype=torch.bool, device=device)
    with checking_finite(False):
        assert kl(x, x, every).isnan().tolist() == [True, False]
        assert ppo_loss(*[x] * 7, every).loss.isnan()


def test_compiled_it_leaves_the_graph_whole():
    every = torch.ones(3, dtype=torch.bool)
    with launch.backend("eager"):
        compiled = torch.compile(kl, fullgraph=True, backend="eager")
        result = compiled(torch.full((3,), math.nan), torch.zeros(3), every)
    assert result.isnan().all()
