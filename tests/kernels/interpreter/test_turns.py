"""Programs that wait for one another take turns, in whatever order they begin."""

from collections.abc import Callable, Sequence

import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError

from gptwin.kernels.interpreter import EndlessWait, Launch, follow


class Backwards:
    """Let the last program begin first."""

    def launch(self, launch: Launch, run: Callable[[], None]) -> None:
        run()

    def order(self, n_programs: int) -> Sequence[int]:
        return range(n_programs)[::-1]


@triton.jit
def prefix_kernel(x_ptr, flag_ptr, sum_ptr):
    program = tl.program_id(0)
    before = 0.0
    if program > 0:
        while tl.load(flag_ptr + program - 1, volatile=True) == 0:
            pass
        before = tl.load(sum_ptr + program - 1)
    tl.store(sum_ptr + program, before + tl.load(x_ptr + program))
    tl.atomic_xchg(flag_ptr + program, 1)


def test_a_program_waits_for_one_that_begins_later() -> None:
    x, sums = torch.arange(6.0), torch.empty(6)
    with follow(Backwards()):
        prefix_kernel[(6,)](x, torch.zeros(6, dtype=torch.int32), sums)
    assert sums.tolist() == x.cumsum(0).tolist()


@triton.jit
def barriers_kernel(count_ptr, seen_ptr, n_programs, N_BARRIERS: tl.constexpr):
    program = tl.program_id(0)
    for i in range(N_BARRIERS):
        tl.atomic_add(count_ptr + i, 1)
        while tl.atomic_add(count_ptr + i, 0) < n_programs:
            pass
        tl.store(seen_ptr + program * N_BARRIERS + i, tl.program_id(0))


def test_all_programs_meet_several_times() -> None:
    counts, seen = torch.zeros(3, dtype=torch.int32), torch.full((4, 3), -1)
    barriers_kernel[(4,)](counts, seen, 4, N_BARRIERS=3)
    assert counts.tolist() == [4, 4, 4], "nobody adds twice"
    assert seen.tolist() == [[i, i, i] for i in range(4)], "each is itself when it goes on"


def test_a_wait_that_cannot_end_is_told_with_its_line() -> None:
    counts, seen = torch.zeros(3, dtype=torch.int32), torch.full((4, 3), -1)
    with pytest.raises(InterpreterError, match=r"3 other programs wait, too.*py:48$") as caught:
        barriers_kernel[(4,)](counts, seen, 5, N_BARRIERS=3)
    assert isinstance(caught.value.__cause__, EndlessWait)
    assert (seen == -1).all()


@triton.jit
def failing_kernel(flag_ptr, x_ptr):
    if tl.program_id(0) == 2:
        tl.device_assert(tl.load(x_ptr) > 0, "x is not positive")
    while tl.load(flag_ptr, volatile=True) == 0:
        pass


def test_one_that_fails_ends_those_that_wait() -> None:
    with pytest.raises(InterpreterError, match=r"x is not positive.*program \(2, 0, 0\)"):
        failing_kernel[(4,)](torch.zeros(1), torch.zeros(1))
    prefix_kernel[(1,)](torch.ones(1), torch.zeros(1, dtype=torch.int32), torch.empty(1))


@triton.jit
def patient_kernel(x_ptr, y_ptr, n):
    total = 0.0
    for _ in range(n):
        total += tl.load(x_ptr)
    tl.store(y_ptr + tl.program_id(0), total)


def test_who_reads_the_same_again_and_again_need_not_wait() -> None:
    y = torch.zeros(3)
    patient_kernel[(3,)](torch.ones(1), y, 200)
    assert y.tolist() == [200, 200, 200]
