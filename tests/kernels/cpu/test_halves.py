"""Halves of a batch side by side: rows, threads, gradient mode and errors."""

import numpy as np
import pytest
import torch

from gptwin.kernels.common import launch
from gptwin.kernels.cpu.halves import Halves


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_rows_are_cut_into_halves_where_there_are_two_cores(two_threads):
    rows = np.array([5, 0, 3, 4, 1])
    assert [share.tolist() for share in Halves(in_halves=True).shares(rows)] == [[0, 3, 5], [1, 4]]
    assert Halves(in_halves=False).shares(rows) == [rows]
    assert Halves(in_halves=True).shares(rows[:1])[0].tolist() == [5]
    torch.set_num_threads(1)
    assert Halves(in_halves=True).shares(rows) == [rows]


def test_each_half_has_its_threads_and_the_callers_gradient_mode(two_threads):
    def seen(number):
        return number, torch.get_num_threads(), torch.is_grad_enabled()

    with torch.no_grad():
        assert Halves(in_halves=True).map(seen, [7, 8]) == [(7, 1, False), (8, 1, False)]
    assert Halves(in_halves=True).map(seen, [7, 8]) == [(7, 1, True), (8, 1, True)]
    assert Halves(in_halves=True).map(seen, [7]) == [(7, 2, True)]
    assert torch.get_num_threads() == 2


def test_what_goes_wrong_in_a_half_is_raised(two_threads):
    def fail(number):
        raise FloatingPointError(f"number {number}")

    with pytest.raises(FloatingPointError, match="number 7"):
        Halves(in_halves=True).map(fail, [7, 8])


def test_halves_run_on_the_backend_that_was_chosen_for_the_whole(monkeypatch):
    """A thread has a door of its own, and would ask the environment."""
    monkeypatch.setenv("GPTWIN_BACKEND", "triton")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with launch.backend("eager"):
        halves = Halves(in_halves=True)
        asked = halves.map(lambda x: launch.runs_on_triton("half", x=x), [torch.ones(2)] * 2)
    assert asked == [False, False]
