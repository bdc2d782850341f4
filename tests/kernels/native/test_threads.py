"""How the programs of a grid are shared out among threads."""

import threading

import pytest
import torch

from gptwin.kernels.native.threads import share_out


@pytest.fixture(autouse=True)
def three_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)


@pytest.mark.parametrize("total", [0, 1, 2, 50])
@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_each_program_runs_once(total, seconds):
    ran, threads = [], set()

    def run(first, last):
        ran.extend(range(first, last))
        threads.add(threading.get_ident())

    share_out(run, total, seconds=seconds)
    assert sorted(ran) == list(range(total))
    assert seconds or threads == {threading.get_ident()}, "little work is not worth a thread"


def test_the_first_program_that_failed_is_told_when_all_have_run():
    ran = []

    def run(first, last):
        ran.append(first)
        if last > 5:
            raise ValueError(str(first))

    with pytest.raises(ValueError, match=r"^[45]$"):
        share_out(run, 12)
    assert len(ran) == 12


def test_programs_that_wait_for_one_another_have_a_thread_each():
    all_there = threading.Barrier(20)
    share_out(lambda first, last: all_there.wait(timeout=60), 20, together=True)
