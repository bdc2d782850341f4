"""Who looks for infinities and NaN, and what the one who finds them says."""

import math
import re

import numpy as np
import pytest
import torch

from gptwin.core.checks import expect_finite
from gptwin.kernels import launch
from gptwin.kernels.finite import checking_finite, checks_finite
from gptwin.kernels.kl import kl
from gptwin.kernels.ppo_loss import ppo_loss


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
