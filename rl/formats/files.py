"""Writing files so that a reader finds the old ones or the new ones, never half of one.

A checkpoint is written over the last one that worked, by a process that may be killed while it
does so. Each file is therefore written under another name, flushed to the disk, and renamed:
`os.replace` is one step to whoever looks. The renames come last and together, so that only a crash
between two of them can leave new files beside old ones; loading then finds that they do not fit.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

Writer = Callable[[Path], object]  # writes its file to the path it is given


def write_together(directory: Path, writers: Mapping[str, Writer]) -> None:
    """Write several files of a directory, all or none.

    Parameters
    ----------
    directory : pathlib.Path
        Made if it is not there.
    writers : mapping of str to function
        By file name, what writes it to the path it is given.

    Raises
    ------
    OSError
        If the disk is full, say; the files are then as they were before.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".writing-") as temporary:
        written = {name: Path(temporary, name) for name in writers}
        for name, path in written.items():
            writers[name](path)
            flush(path)
        for name, path in written.items():
            os.replace(path, directory / name)
        flush(directory)


def text_writer(text: str) -> Writer:
    """Return what writes `text`, in UTF-8 and with its line ends as they are."""
    return lambda path: path.write_bytes(text.encode("utf-8"))


def flush(path: Path) -> None:
    """Ask the system to put a file or a directory's entries on the disk now."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network disks do not know how
            os.fsync(handle)
    finally:
        os.close(handle)
