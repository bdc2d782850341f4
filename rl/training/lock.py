"""One writer a run's folder: two would remove each other's files.

The system lets go of a lock when its process ends, however it ends. So the file `.lock` that lies
there after a kill is no lock, and nobody has to remove it; what is in it says who holds one.
"""

import contextlib
import fcntl
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from ...core.checks import refuse

LOCK = ".lock"


@contextlib.contextmanager
def only_writer(directory: Path, *, waits: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a folder's lock while the context lasts.

    Parameters
    ----------
    directory : pathlib.Path
        Made if it is not there.
    waits : callable, optional
        Wait for another process that holds it, once this has been called with who it is.

    Raises
    ------
    ValueError
        If another process holds it, and `waits` is None: says which.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK).open("a+", encoding="utf-8", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            if waits is None:
                cause = "a run that still goes on: wait for it, or name another folder"
                refuse("run.directory", "a folder that nobody writes to", f"{directory}, which "
                       f"{holder} writes to", cause)  # fmt: skip
            waits(holder)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # some network disks have no locks
            print(f"Warning: {directory} cannot be locked: {error.strerror}", file=sys.stderr)
        _sign(file)
        yield


def _sign(file: TextIO) -> None:
    """Write who holds the lock; on a full disk the lock holds without it."""
    with contextlib.suppress(OSError):
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
