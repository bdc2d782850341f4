"""How many threads a run computes with, and what it says where fewer would be faster."""

import os
import re

import pytest
import tiny
import torch

from gptwin.rl.pipeline import Pipeline
from gptwin.rl.training import threads
from gptwin.rl.training.threads import use_threads


@pytest.fixture
def machine(monkeypatch):
    """A machine of so many cores, of which so many are busy; PyTorch's threads as they are set."""

    def make(cores, busy, before):
        there = [before]
        monkeypatch.setattr(torch, "set_num_threads", lambda n: there.__setitem__(0, n))
        monkeypatch.setattr(torch, "get_num_threads", lambda: there[0])
        monkeypatch.setattr(threads, "available_cores", lambda: cores)
        monkeypatch.setattr(os, "getloadavg", lambda: (busy, 0.0, 0.0))
        return there

    return make


def test_a_run_computes_with_the_threads_that_it_names(machine):
    there = machine(cores=8, busy=0.0, before=8)
    assert use_threads(0) == "" and there == [8]
    assert use_threads(3) == "" and there == [3]


@pytest.mark.parametrize(
    ("cores", "busy", "before", "wanted", "said"),
    [
        (2, 0.0, 4, 0, "Note: 4 threads on 2 cores wait for each other: run.threads=2"),
        (2, 0.0, 1, 4, "Note: 4 threads on 2 cores wait for each other: run.threads=2"),
        (2, 1.0, 2, 0, "Note: 1.0 processes have kept 2 cores busy .*: .* run.threads=1 is much"),
        (8, 3.2, 8, 0, "Note: 3.2 processes have kept 8 cores busy .*: .* run.threads=5 is much"),
        (2, 9.0, 2, 0, "Note: 9.0 processes .* run.threads=1 is much faster, or OMP_WAIT_POLICY="),
        (2, 0.6, 2, 0, "$"),  # what a machine does besides
        (2, 9.0, 1, 0, "$"),  # one thread waits for none
        (8, 3.2, 8, 4, "$"),
    ],
)  # fmt: skip
def test_it_says_where_fewer_would_be_faster(machine, cores, busy, before, wanted, said):
    machine(cores, busy, before)
    assert re.match(said, use_threads(wanted))


def test_a_pipeline_uses_and_says_it_unless_it_is_quiet(machine, tmp_path, capsys):
    there = machine(cores=2, busy=0.0, before=2)
    configuration = tiny.configuration(tmp_path, run={"threads": 3})
    Pipeline(configuration)
    assert there == [3]
    assert capsys.readouterr().err.startswith("Note: 3 threads on 2 cores wait for each other")
    Pipeline(configuration, quiet=True)
    assert capsys.readouterr().err == ""
