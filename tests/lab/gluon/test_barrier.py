"""The model's barrier is PTX's, and what orders what is what partitions tell each other."""

import numpy as np
import pytest

from gptwin.lab.gluon.machine.barrier import Barrier
from gptwin.lab.gluon.machine.program import Agent, Program, Stopped
from gptwin.lab.gluon.machine.shared import Access, Allocation, Cells


@pytest.fixture
def program() -> Program:
    return Program(
        "kernel", (0,), (1,), {}, True, True, lambda: "kernel.py:1", lambda error: "kernel.py:1"
    )


def barrier_of(program: Program, count: int) -> Barrier:
    barrier = Barrier(program, "bar")
    barrier.init(count)
    return barrier


def kinds(program: Program) -> list[str]:
    return [finding.kind for finding in program.findings.values()]


def partition(program: Program, name: str) -> Agent:
    """Let a new partition, which knows what the kernel knows, have the turn."""
    parent = program.agent
    program.agent = Agent(name, knows=parent.knows, fenced=parent.fenced)
    return program.agent


def test_parity_1_is_over_at_first_and_0_after_all_have_arrived(program: Program) -> None:
    barrier = barrier_of(program, 2)
    assert barrier.passes(1) and not barrier.passes(0)
    barrier.arrive()
    assert not barrier.passes(0)
    barrier.arrive()
    assert barrier.passes(0) and not barrier.passes(1)
    barrier.arrive(2)
    assert barrier.passes(1) and not barrier.passes(0)


def test_a_phase_waits_for_arrivals_and_bytes(program: Program) -> None:
    barrier = barrier_of(program, 1)
    program.agent.fence()
    copy = program.issue("copy", lambda: barrier.land(copy, 64))
    barrier.brings(copy)
    barrier.arrive(bytes=64)
    assert not barrier.passes(0)
    copy.perform()
    assert barrier.passes(0) and not program.findings


def test_bytes_may_come_before_they_are_expected(program: Program) -> None:
    """PTX's count of bytes goes below zero while an arrival is missing."""
    barrier = barrier_of(program, 1)
    program.agent.fence()
    copy = program.issue("copy", lambda: barrier.land(copy, 64))
    barrier.brings(copy)
    copy.perform()
    assert not barrier.passes(0)
    barrier.arrive(bytes=64)
    assert barrier.passes(0) and not program.findings


def test_more_bytes_than_expected_are_found(program: Program) -> None:
    barrier = barrier_of(program, 1)
    program.agent.fence()
    copy = program.issue("copy", lambda: barrier.land(copy, 64))
    barrier.brings(copy)
    barrier.arrive(bytes=32)
    copy.perform()
    assert kinds(program) == ["wrong bytes"]


def test_a_waiter_knows_what_those_knew_who_arrived(program: Program) -> None:
    barrier = barrier_of(program, 1)
    kernel = program.agent
    partition(program, "writer")
    before = program.step()
    barrier.arrive()
    after = program.step()
    program.agent = kernel
    assert not kernel.knows & before
    barrier.passed()
    assert kernel.knows & before and not kernel.knows & after


def test_an_arrival_that_may_count_for_the_phase_before_is_found(program: Program) -> None:
    barrier = barrier_of(program, 1)
    kernel = program.agent
    partition(program, "first")
    barrier.arrive()
    program.agent = kernel
    partition(program, "second")
    barrier.arrive()
    assert kinds(program) == ["arrives too early"]


def test_a_wait_that_may_see_the_phase_two_before_is_found(program: Program) -> None:
    barrier = barrier_of(program, 1)
    kernel = program.agent
    partition(program, "writer")
    barrier.arrive()
    barrier.arrive()
    program.agent = kernel
    barrier.passed()
    assert kinds(program) == ["wait passes early"]


def test_a_phase_that_may_end_before_a_wait_for_the_last_is_found(program: Program) -> None:
    barrier = barrier_of(program, 1)
    kernel = program.agent
    writer = partition(program, "writer")
    barrier.arrive()
    program.agent = kernel
    barrier.passed()
    program.agent = writer
    barrier.arrive()
    assert kinds(program) == ["phase missed"]


def test_a_barrier_is_initialised_first_and_once(program: Program) -> None:
    with pytest.raises(Stopped):
        Barrier(program, "bar").arrive()
    barrier = barrier_of(program, 1)
    barrier.init(1)
    assert kinds(program) == ["not initialised"]
    assert next(iter(program.findings.values())).count == 2


def test_nobody_uses_a_barrier_that_is_invalidated(program: Program) -> None:
    barrier = barrier_of(program, 1)
    barrier.arrive()
    barrier.passed()
    barrier.invalidate()
    assert not program.findings
    with pytest.raises(Stopped):
        barrier.arrive()


def test_tma_is_shown_that_a_barrier_is_new(program: Program) -> None:
    barrier = barrier_of(program, 1)
    barrier.brings(program.issue("copy", lambda: None))
    assert kinds(program) == ["missing fence"]


@pytest.mark.parametrize(("strict", "reader", "found"), [
    (True, "kernel", True), (False, "kernel", False), (False, "consumer", True),
])  # fmt: skip
def test_a_fence_stands_between_registers_and_tma(
    program: Program, strict: bool, reader: str, found: bool
) -> None:
    """Triton adds one where a partition does both, and none between two."""
    program.strict = strict
    memory = Allocation(program, "tiles", (2, 8), float)
    cells = Cells.at(np.arange(8))
    memory.touch(cells, Access.now(program, "store", writes=True))
    if reader != "kernel":
        partition(program, reader)
    memory.touch(cells, Access.of(program.issue("TMA store", lambda: None), writes=False))
    assert kinds(program) == ["missing fence"] * found


def test_another_stage_is_other_memory(program: Program) -> None:
    memory = Allocation(program, "tiles", (2, 8), float)
    memory.touch(Cells.at(np.arange(8)), Access.of(program.issue("load", lambda: None), True))
    memory.touch(Cells.at(np.arange(8, 16)), Access.now(program, "store", True))
    assert not program.findings
    memory.touch(Cells.at(np.arange(0, 16, 2)), Access.now(program, "load", False))
    assert kinds(program) == ["read before it is filled"]


def test_a_phase_that_ends_without_its_copy_is_found(program: Program) -> None:
    """An arrival that expects nothing: the copy goes on when the phase is over."""
    barrier = barrier_of(program, 1)
    program.agent.fence()
    copy = program.issue("copy", lambda: barrier.land(copy, 64))
    barrier.brings(copy)
    barrier.arrive()
    assert kinds(program) == ["wrong bytes"]
    copy.perform()
    assert next(iter(program.findings.values())).count == 2


def test_a_copy_that_may_count_for_the_phase_before_is_found(program: Program) -> None:
    barrier = barrier_of(program, 1)
    program.agent.fence()
    kernel = program.agent
    partition(program, "first")
    barrier.arrive()
    program.agent = kernel
    partition(program, "second")
    barrier.brings(program.issue("copy", lambda: None))
    assert kinds(program) == ["arrives too early"]


def test_more_arrivals_than_the_count_are_found(program: Program) -> None:
    barrier = barrier_of(program, 2)
    barrier.arrive(3)
    assert kinds(program) == ["arrives too often"]


def test_a_barrier_that_a_partition_does_not_know_is_found(program: Program) -> None:
    """Two partitions, and one of them initialises."""
    kernel = program.agent
    partition(program, "one")
    barrier = barrier_of(program, 2)
    program.agent = kernel
    partition(program, "other")
    barrier.arrive()
    assert kinds(program) == ["not initialised"]


def test_a_fence_before_an_arrival_is_the_waiters_too(program: Program) -> None:
    barrier = barrier_of(program, 1)
    memory = Allocation(program, "tiles", (8,), float)
    cells = Cells.at(np.arange(8))
    kernel = program.agent
    partition(program, "writer")
    memory.touch(cells, Access.now(program, "store", writes=True))
    program.agent.fence()
    barrier.arrive()
    program.agent = kernel
    barrier.passed()
    memory.touch(cells, Access.of(program.issue("TMA store", lambda: None), writes=False))
    assert not program.findings


def test_what_races_is_named_by_what_was_there(program: Program) -> None:
    memory = Allocation(program, "tiles", (8,), float)
    cells = Cells.at(np.arange(8))
    kernel = program.agent
    partition(program, "writer")
    memory.touch(cells, Access.now(program, "store", writes=True))
    program.agent = kernel
    partition(program, "other")
    memory.touch(cells, Access.now(program, "store", writes=True))
    assert kinds(program) == ["unordered writes"]
    memory.touch(cells, Access.now(program, "load", writes=False))
    program.agent = kernel
    partition(program, "third")
    memory.touch(cells, Access.now(program, "store", writes=True))
    assert "overwritten while read" in kinds(program)


def test_what_nothing_has_written_is_not_read(program: Program) -> None:
    memory = Allocation(program, "tiles", (8,), float)
    memory.touch(Cells.at(np.arange(4)), Access.now(program, "store", writes=True))
    memory.touch(Cells.at(np.arange(4)), Access.now(program, "load", writes=False))
    assert not program.findings
    memory.touch(Cells.at(np.arange(5)), Access.now(program, "load", writes=False))
    assert kinds(program) == ["read before it is filled"]


def test_columns_side_by_side_are_other_memory(program: Program) -> None:
    memory = Allocation(program, "tiles", (8,), float)
    even, odd = Cells.at(np.arange(0, 8, 2)), Cells.at(np.arange(1, 8, 2))
    memory.touch(even, Access.of(program.issue("TMA load", lambda: None), writes=True))
    memory.touch(odd, Access.now(program, "store", writes=True))
    assert not program.findings
    memory.touch(even, Access.now(program, "store", writes=True))
    assert kinds(program) == ["unordered writes"]
