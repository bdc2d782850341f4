"""The programs of a grid on all cores: each thread takes the next few until none are left.

As many threads as PyTorch uses. Programs that wait for one another are all there at once, each on
a thread of its own: whichever another one waits for goes on some time.
"""

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

PARTS = 4  # for each thread: one that has done its own takes over from one that has heavier ones
TOGETHER = 512  # so many programs that wait for one another are there at once
WORTH_SHARING = 1e-4  # seconds of work: to wake a thread takes a tenth of that


class _Arena(threading.local):
    """Memory for a program's tiles, kept for each thread."""

    def __init__(self) -> None:
        self.memory = torch.empty(0, dtype=torch.uint8)

    def address(self, size: int) -> int:
        """Return memory that begins at a multiple of 64."""
        if self.memory.numel() < size + 64:
            self.memory = torch.empty(max(size, 1 << 20) + 64, dtype=torch.uint8)
        return (self.memory.data_ptr() + 63) & ~63


arena = _Arena()


@functools.cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="gptwin-native")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of its parent's threads


def share_out(
    run: Callable[[int, int], None], total: int, *, seconds: float = 1.0, together: bool = False
) -> None:
    """Run the programs of a grid.

    Parameters
    ----------
    run : callable
        Runs programs from a first to a last; it may raise.
    total : int
        How many there are.
    seconds : float
        About how long one thread would take.
    together : bool
        Whether they wait for one another.

    Raises
    ------
    Exception
        What `run` raised, for the first of the programs for which it did.
    """
    n_threads = min(TOGETHER if together else torch.get_num_threads(), total)
    if n_threads <= 1 or (seconds < WORTH_SHARING and not together):
        run(0, total)
        return
    n_parts = total if together else min(total, PARTS * n_threads)
    parts = [(total * i // n_parts, total * (i + 1) // n_parts) for i in range(n_parts)][::-1]
    failed: dict[int, Exception] = {}

    def work() -> None:
        while True:
            try:
                first, last = parts.pop()
            except IndexError:  # another thread took the last one
                return
            try:
                run(first, last)
            except Exception as error:
                failed[first] = error

    if together:
        with ThreadPoolExecutor(n_threads) as pool:
            for _ in range(n_threads):
                pool.submit(work)
    else:
        others = [_pool(n_threads).submit(work) for _ in range(n_threads - 1)]
        work()
        for other in others:
            other.result()
    if failed:
        raise failed[min(failed)]
