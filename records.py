"""What outlives a process: files that are there whole or not at all, and what made them.

A file is written over the last one that worked, by a process that may be killed while it does so,
on a disk that may be full. It is therefore written inside a hidden folder beside its place, flushed
to the disk, and then renamed: `os.replace` is one step to whoever looks. A kill leaves the hidden
folder behind, and the old file as it was.

Standard library alone, since every room may import this.
"""

import contextlib
import datetime
import errno
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from . import __version__

PACKAGE = Path(__file__).resolve().parent
WRITING = ".writing-"
CANNOT_BE_WRITTEN = "cannot be written"
# What a disk answers that does not know how to flush; anything else means that it failed.
CANNOT_FLUSH = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}

Writer = Callable[[Path], object]  # writes its file to the path it is given
Content = str | bytes | Writer


def write_whole(path: str | Path, content: Content) -> None:
    """Write a file whole; one that exists is replaced in one step or not at all.

    Parameters
    ----------
    path : str or pathlib.Path
        In a folder that exists.
    content : str, bytes or function
        As in `write_together`.

    Raises
    ------
    OSError
        If the system does not let it be written; names the file.
    """
    path = Path(path)
    with naming(path):
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {path.parent}")
        _write(path.parent, {path.name: content})


def write_together(directory: str | Path, contents: Mapping[str, Content]) -> None:
    """Write several files of a folder, all or none.

    The renames come last and together, so that only a crash between two of them can leave new files
    beside old ones.

    Parameters
    ----------
    directory : str or pathlib.Path
        Made if it is not there.
    contents : mapping of str to str, bytes or function
        By file name: the text (in UTF-8, line ends as they are), the bytes, or what writes the file
        to the path that it is given.

    Raises
    ------
    OSError
        If the disk is full, say; names the file. All files are then as they were before.
    """
    directory = Path(directory)
    with naming(directory):
        directory.mkdir(parents=True, exist_ok=True)
    _write(directory, contents)


def _write(directory: Path, contents: Mapping[str, Content]) -> None:
    with contextlib.ExitStack() as stack:
        with naming(directory / next(iter(contents), "")):
            hidden = stack.enter_context(_hidden_folder(directory))
        for name, content in contents.items():
            place, written = directory / name, hidden / name
            with naming(place):
                _write_content(written, content)
                if place.is_dir():
                    raise IsADirectoryError(errno.EISDIR, "a folder has this name")
                if place.exists():
                    written.chmod(place.stat().st_mode & 0o777)
                flush(written)
        for name in contents:
            with naming(directory / name):
                os.replace(hidden / name, directory / name)
        with contextlib.suppress(OSError):  # the files are there, whatever becomes of the flush
            flush(directory)


@contextlib.contextmanager
def _hidden_folder(directory: Path) -> Iterator[Path]:
    """Make a folder beside the files' places: a rename must not cross disks."""
    with tempfile.TemporaryDirectory(
        dir=directory, prefix=WRITING, ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


def _write_content(path: Path, content: Content) -> None:
    if callable(content):
        content(path)
    else:
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the system name the file that was asked for, not the hidden one, or none.

    Parameters
    ----------
    path : pathlib.Path
        What cannot be written, if there is an error.
    """
    try:
        yield
    except OSError as error:
        if str(error.strerror).startswith(CANNOT_BE_WRITTEN):
            raise  # it was named further in
        reason = f"{CANNOT_BE_WRITTEN}: {error.strerror or error}"
        raise OSError(error.errno or errno.EIO, reason, str(path)) from error


def results_folder(folder: str) -> Path:
    """Return where figures are kept: a folder of the checkout.

    A wheel brings none along; an installed gptwin keeps its own below the working folder, in build.
    """
    kept = PACKAGE / folder
    return kept if kept.is_dir() else Path("build") / folder


def flush(path: Path) -> None:
    """Ask the system to put a file or a folder's entries on the disk now.

    Raises
    ------
    OSError
        If the disk cannot hold them; some learn only now that they are full.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in CANNOT_FLUSH:
            raise
    finally:
        os.close(handle)


def json_lines(records: Iterable[Mapping[str, Any]]) -> str:
    """Write records as JSON, one a line, so that they merge and read well.

    Raises
    ------
    ValueError
        If a number is not finite, which JSON has no word for.
    """
    return "".join(json.dumps(record, allow_nan=False, default=str) + "\n" for record in records)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read what `json_lines` wrote.

    Raises
    ------
    ValueError
        If a line is no JSON object; names the file and the line.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: expected JSON, got {error}") from None
        if not isinstance(record, dict):
            raise ValueError(f"{path}:{number}: expected a JSON object, got {line[:40]}")
        found.append(record)
    return found


def provenance(*packages: str) -> dict[str, Any]:
    """Say what figures are made with, and where.

    Parameters
    ----------
    *packages : str
        Whose versions matter beside gptwin's and Python's.

    Returns
    -------
    dict
        Ready for JSON: gptwin, commit, date, system, cpu, cores (that this process may use),
        python, and a version or None for each package.
    """
    return {
        "gptwin": __version__,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": available_cores(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


@functools.cache
def version(package: str) -> str | None:
    """Return a package's version, None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def available_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """Return the processor's model name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def commit() -> str:
    """Return the commit of this checkout, with a + if Python files have changed since.

    Of a copy without Git's data: `GPTWIN_COMMIT`, or else a hash of the Python files.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ("git", "-C", str(PACKAGE), *arguments),
            capture_output=True, text=True, check=True, timeout=20,
        ).stdout.strip()  # fmt: skip

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        head, top = git("rev-parse", "HEAD", "--show-toplevel").splitlines()
        if Path(top) == PACKAGE:  # not a project that gptwin is installed in
            changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/*.py")
            return head + ("+" if changed else "")
    return os.environ.get("GPTWIN_COMMIT") or f"files {hash_of_files()}"


def hash_of_files() -> str:
    """Return a hash of the package's Python files."""
    digest = hashlib.sha256()
    rooms = (PACKAGE / room for room in ("core", "kernels", "lab", "rl", "benchmarks"))
    for path in sorted([*PACKAGE.glob("*.py"), *(p for room in rooms for p in room.rglob("*.py"))]):
        digest.update(f"{path.relative_to(PACKAGE)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
