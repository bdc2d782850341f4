"""A module broken on purpose: in a fork, a piece of its text is replaced as it is imported.

Nothing on disk changes, and what a fork imports no other one sees. What takes long to import, and
is not broken, is imported before. A break says something only while its text stands in the file
once, and if the fork has imported that file: everything else is an error of the break's own.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Break(NamedTuple):
    """A change of one file.

    Attributes
    ----------
    file : str
        From the repository's root, as "lab/prove/safe/prove.py".
    old, new : str
        What stands there once, and what takes its place.
    """

    file: str
    old: str
    new: str

    @property
    def is_stale(self) -> bool:
        """Whether the file has changed, so that the break must be written anew."""
        return (ROOT / self.file).read_text(encoding="utf-8").count(self.old) != 1


class Ended(NamedTuple):
    """How a fork ended.

    Attributes
    ----------
    said : str
        What its work returned.
    error : str
        What it raised instead, with the traceback; or why the break says nothing.
    signal : int
        What killed it; 0 if nothing did.
    """

    said: str = ""
    error: str = ""
    signal: int = 0


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a module with one piece of its source replaced."""

    change: Break | None = None
    done = False

    def get_code(self, fullname):
        """Compile the changed text."""
        source = Path(self.path).read_text(encoding="utf-8")
        self.done = True
        return compile(source.replace(self.change.old, self.change.new), self.path, "exec")


class Finder(importlib.abc.MetaPathFinder):
    """Finds the one module that is broken."""

    def __init__(self, change: Break) -> None:
        self.module = "gptwin." + change.file.removesuffix(".py").replace("/", ".")
        self.loader = Loader(self.module, str(ROOT / change.file))
        self.loader.change = change

    def find_spec(self, fullname, path, target=None):
        """Find it, and nothing else."""
        if fullname != self.module:
            return None
        return importlib.util.spec_from_file_location(
            fullname, self.loader.path, loader=self.loader
        )


def in_fork(change: Break | None, work: Callable[[], str]) -> Ended:
    """Do some work in a fork where a file is changed, or none.

    Parameters
    ----------
    change : Break or None
    work : callable
        What it imports of the changed file's package must not have been imported here.

    Returns
    -------
    Ended
    """
    if change is not None and change.is_stale:
        return Ended(error=f"{change.file} has changed: write this break anew")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            with os.fdopen(writing, "w") as pipe:
                json.dump(_ended(change, work), pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        return Ended(signal=-code)
    return Ended(*json.loads(told)) if told else Ended(error=f"it ended with exit code {code}")


def _ended(change: Break | None, work: Callable[[], str]) -> Ended:
    finder = change and Finder(change)
    if finder:
        sys.meta_path.insert(0, finder)
    try:
        said = work()
    except Exception:
        return Ended(error=traceback.format_exc()[-3000:])
    if finder and not finder.loader.done:
        return Ended(error=f"nothing has imported {change.file}, so nobody could notice")
    return Ended(said)
