"""The programs of a grid on all cores: each thread takes the next few until none are left.

Where it can be, the threads are those of OpenMP on which PyTorch computes. Between two launches
they wait awake for some milliseconds, and to wake a thread that sleeps takes longer than many a
kernel. And threads of our own would have to share the cores with those that wait. Elsewhere, and
after a fork, which OpenMP does not survive, the threads are Python's.

Programs that wait for one another are all there at once, each on a thread of its own: whichever
another one waits for goes on some time.
"""

import ctypes
import functools
import os
import threading
from array import array
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch

from . import machine

PARTS = 4  # for each thread: one that has done its own takes over from one that has heavier ones
TOGETHER = 512  # so many programs that wait for one another are there at once
WORTH_SHARING = 1e-4  # seconds of work: to wake a thread takes a tenth of that

# What a thread is told, 8 bytes each. `next_part` and `next_thread` count up as they are taken.
_FIELDS = (
    "ptr kernel", "ptr arguments", "ptr bounds", "ptr arenas", "i64 arena_bytes", "ptr reports",
    "i64 programs", "i64 parts", "i32 gx", "i32 gy", "i32 gz", "i64 next_part", "i64 next_thread",
)  # fmt: skip
_COUNTERS = ("next_part", "next_thread")


def _loads() -> str:
    """Write the loads of a work's fields; of a counter, its address."""
    lines = []
    for i, (kind, name) in enumerate(field.split() for field in _FIELDS):
        at = name if name in _COUNTERS else f"{name}.at"
        lines.append(f"  %{at} = getelementptr i64, ptr %work, i64 {i}")
        if name not in _COUNTERS:
            lines.append(f"  %{name} = load {kind}, ptr %{at}")
    return "\n".join(lines)


# What each thread does: it takes an arena, and then parts until there are no more.
_WORKER = f"""
define void @take_parts(ptr %work) {{
entry:
{_loads()}
  %thread = atomicrmw add ptr %next_thread, i64 1 monotonic
  %skipped = mul i64 %thread, %arena_bytes
  %arena = getelementptr i8, ptr %arenas, i64 %skipped
  br label %take
take:
  %part = atomicrmw add ptr %next_part, i64 1 monotonic
  %is_one = icmp slt i64 %part, %parts
  br i1 %is_one, label %run, label %finish
run:
  %following = add i64 %part, 1
  %before = mul i64 %part, %programs
  %until = mul i64 %following, %programs
  %first = udiv i64 %before, %parts
  %last = udiv i64 %until, %parts
  %words = mul i64 %part, 2
  %report = getelementptr i64, ptr %reports, i64 %words
  call void %kernel(
    ptr %arguments, ptr %bounds, ptr %arena, ptr %report,
    i64 %first, i64 %last, i32 %gx, i32 %gy, i32 %gz)
  br label %take
finish:
  ret void
}}
"""


class Task(NamedTuple):
    """A kernel and what it is given: see `kernel.py`.

    Attributes
    ----------
    kernel : int
        The address of its function.
    arguments, bounds : array of int
    arena_bytes : int
    grid : tuple of int
        Three numbers of programs.
    """

    kernel: int
    arguments: array
    bounds: array
    arena_bytes: int
    grid: tuple[int, int, int]


class _Memory(threading.local):
    """Memory for the tiles of all threads of a launch, kept for the thread that launches."""

    def __init__(self) -> None:
        self.held = torch.empty(0, dtype=torch.uint8)

    def address(self, size: int) -> int:
        """Return memory that begins at a multiple of 64."""
        if self.held.numel() < size + 64:
            self.held = torch.empty(max(size, 1 << 20) + 64, dtype=torch.uint8)
        return (self.held.data_ptr() + 63) & ~63


_memory = _Memory()


@functools.cache
def _worker() -> Any:
    """Return the machine code of a thread's work, as a function of the work's address."""
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(machine.link("take_parts", _WORKER))


@functools.cache
def _openmp() -> Any:
    """Return OpenMP's function that runs another one on many threads; None if there is none."""
    run = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    if run is not None:
        run.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        run.restype = None
    return run


@functools.cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="gptwin-native")


class _Process:
    """What is known of this process."""

    forked = False  # OpenMP would wait for threads that the parent alone has


def _after_fork() -> None:
    _Process.forked = True
    _pool.cache_clear()


os.register_at_fork(after_in_child=_after_fork)


def share_out(
    task: Task, *, seconds: float = 1.0, together: bool = False
) -> tuple[int, tuple[int, int]]:
    """Run the programs of a grid.

    Parameters
    ----------
    task : Task
    seconds : float
        About how long one thread would take.
    together : bool
        Whether the programs wait for one another.

    Returns
    -------
    n_threads : int
        On which they ran.
    report : tuple of int
        What the first of the programs with a fault reported: the fault and the program; (0, 0) if
        there was none.
    """
    gx, gy, gz = task.grid
    total = gx * gy * gz
    n_threads = min(TOGETHER if together else torch.get_num_threads(), total)
    if seconds < WORTH_SHARING and not together:
        n_threads = min(1, n_threads)
    n_parts = total if together else min(total, PARTS * n_threads if n_threads > 1 else 1)
    arena_bytes = (task.arena_bytes + 63) & ~63
    reports = array("q", bytes(16 * max(1, n_parts)))
    work = array("q", (
        task.kernel, task.arguments.buffer_info()[0], task.bounds.buffer_info()[0],
        _memory.address(n_threads * arena_bytes), arena_bytes, reports.buffer_info()[0],
        total, n_parts, *task.grid, 0, 0,
    ))  # fmt: skip
    _run(work.buffer_info()[0], n_threads, together=together)
    pairs = zip(reports[::2], reports[1::2], strict=True)
    return n_threads, next((pair for pair in pairs if pair[0]), (0, 0))


def _run(work: int, n_threads: int, *, together: bool) -> None:
    """Let threads take the parts of a work, and wait for them."""
    take_parts = _worker()
    if n_threads <= 1:
        take_parts(work)
    elif together:
        with ThreadPoolExecutor(n_threads) as pool:
            for _ in range(n_threads):
                pool.submit(take_parts, work)
    elif _openmp() is None or _Process.forked:
        others = [_pool(n_threads).submit(take_parts, work) for _ in range(n_threads - 1)]
        take_parts(work)
        for other in others:
            other.result()
    else:
        _openmp()(take_parts, work, n_threads, 0)
