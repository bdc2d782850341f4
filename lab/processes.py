"""Processes that work for this one, and end when it does.

Who is killed cannot end those that it started. They would go on, for hours perhaps, and share the
processors, or the GPU, with the next command: so each looks whether its parent is still there.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import Any

LOOK_S = 0.5


def end_with_parent(parent: int) -> None:
    """End this process, and its group if it leads one, once whoever started it is gone.

    Parameters
    ----------
    parent : int
        Its id, as it says itself: it may be gone before this process looks.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_S)
        if hasattr(os, "getpgrp") and os.getpgrp() == os.getpid():  # neither on Windows
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Workers(ProcessPoolExecutor):
    """A pool of fresh processes. As a context it ends them at once if something goes wrong.

    Parameters
    ----------
    size : int
        How many.
    begin : callable, optional
        What each does first.
    arguments : tuple
        Of that.
    """

    def __init__(
        self, size: int, begin: Callable[..., Any] | None = None, arguments: tuple[Any, ...] = ()
    ) -> None:
        # CUDA and Triton do not survive a fork, and how kernels run is decided at their import.
        context = multiprocessing.get_context("spawn")
        first = os.getpid(), begin, arguments
        super().__init__(size, mp_context=context, initializer=_begin, initargs=first)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Wait for the workers; on Ctrl-C, or an error, do not."""
        if kind is not None:
            for worker in list((self._processes or {}).values()):
                worker.terminate()
        return super().__exit__(kind, error, traceback)


def _begin(parent: int, begin: Callable[..., Any] | None, arguments: tuple[Any, ...]) -> None:
    end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    if begin is not None:
        begin(*arguments)
