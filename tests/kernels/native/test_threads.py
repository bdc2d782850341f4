"""How the programs of a grid are shared out among threads."""

import ctypes
import os
import signal
import threading
from array import array

import pytest
import torch

from gptwin.kernels.native import threads

_WORD = ctypes.c_void_p
_Kernel = ctypes.CFUNCTYPE(None, *(_WORD,) * 4, *(ctypes.c_int64,) * 2, *(ctypes.c_int32,) * 3)


def share_out(run, total, **how):
    """Share out a grid's programs; `run` is given an arena's address and the first and last one."""

    @_Kernel
    def kernel(arguments, bounds, arena, report, first, last, gx, gy, gz):
        assert (gx, gy, gz) == (total, 1, 1)
        said = run(arena, first, last)
        if said:
            (ctypes.c_int64 * 2).from_address(report)[:] = said

    address = ctypes.cast(kernel, _WORD).value
    task = threads.Task(address, array("Q", [1]), array("Q", [0, 2]), 100, (total, 1, 1))
    return threads.share_out(task, **how)


@pytest.fixture(params=["openmp", "python"], autouse=True)
def three_threads(request, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    if request.param == "python":
        monkeypatch.setattr(threads, "_openmp", lambda: None)
    elif threads._openmp() is None:
        pytest.skip("this PyTorch computes on other threads")


@pytest.mark.parametrize("total", [0, 1, 2, 50])
@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_each_program_runs_once(total, seconds):
    ran, on = [], set()

    def run(arena, first, last):
        ran.extend(range(first, last))
        on.add(threading.get_ident())

    n_threads, report = share_out(run, total, seconds=seconds)
    assert sorted(ran) == list(range(total))
    assert report == (0, 0)
    assert n_threads == min(total, 3 if seconds else 1)
    assert seconds or on <= {threading.get_ident()}, "little work is not worth a thread"


def test_each_thread_has_memory_of_its_own():
    at, all_there = {}, threading.Barrier(3)

    def run(arena, first, last):
        if threading.get_ident() not in at:
            at[threading.get_ident()] = arena
            all_there.wait(timeout=60)

    share_out(run, 12)
    first, second, third = sorted(at.values())
    assert first % 64 == second % 64 == 0
    assert second - first >= 100 <= third - second


def test_the_first_program_with_a_fault_is_told_when_all_have_run():
    ran = []

    def run(arena, first, last):
        ran.append(first)
        return (7, first) if last > 5 else None

    n_threads, (fault, program) = share_out(run, 12)
    assert len(ran) == 12
    assert (n_threads, fault, program) == (3, 7, 5)


def test_programs_that_wait_for_one_another_have_a_thread_each():
    all_there = threading.Barrier(20)
    share_out(lambda *_: all_there.wait(timeout=60) and None, 20, together=True)
    assert not all_there.broken


def test_a_child_does_not_wait_for_threads_of_its_parent():
    share_out(lambda *_: None, 12)
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # ends a child that waits for what never comes
        ran = []
        try:
            share_out(lambda arena, first, last: ran.append(first), 12)
        finally:
            os._exit(len(ran))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 12
