"""Kernels compiled before a GPU is there, into a folder that is carried to it.

    gptwin bench ahead FOLDER --arch sm_90        on any machine, with the Triton that the GPU's has
    make gpu KERNELS=FOLDER                       on the GPU's

Triton finds a compiled kernel by a key made of its source and arguments' types, the architecture,
the options, and of Triton itself: its Python files, its library, its ptxas. None of that is the
machine's, so a key made here is that of a GPU's process if both run the same wheel of Triton: the
same version for the same Python. `made.json` keeps what the keys depend on, and `settle` refuses a
folder that does not fit. What is kept of a kernel is its binary and what Triton notes beside it: a
tenth of what the cache holds.
"""

import dataclasses
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.checks import refuse
from ...records import commit, write_whole
from ..processes import Workers

MADE = "made.json"
CACHE_VARIABLE = "TRITON_CACHE_DIR"
GROUP = "__grp__"  # how the files begin that list what belongs to a kernel
BINARIES = (".cubin", ".hsaco")


@dataclasses.dataclass(frozen=True)
class Calls:
    """What processes of one kind will call.

    Attributes
    ----------
    switches : dict
        Variables of their environment, by which they choose kernels.
    cases : dict
        By twin: dtypes and cases.
    roots : dict
        By twin: the results that backward starts from; where it is not named, all.
    """

    switches: Mapping[str, str]
    cases: Mapping[str, Sequence[tuple[str, dict[str, Any]]]]
    roots: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Made:
    """What was compiled ahead.

    Attributes
    ----------
    kernels, bytes : int
        In the folder.
    failures : list of str
        What did not compile.
    """

    kernels: int
    bytes: int
    failures: list[str]


def compile_ahead(folder: Path, arch: str, calls: Iterable[Calls], processes: int) -> Made:
    """Compile what some calls and their backward passes launch, in every configuration.

    Parameters
    ----------
    folder : Path
        Made if it is not there; what is in it already is not compiled again.
    arch : str
        As in `targets.ARCHITECTURES`.
    calls : iterable of Calls
    processes : int
        Side by side.

    Returns
    -------
    Made

    Raises
    ------
    ValueError
        If the architecture is unknown, or the folder holds kernels of another Triton.
    """
    from .targets import architecture

    architecture(arch)
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    expect_fits(folder)
    _point_here(folder)
    failures: set[str] = set()
    for one in calls:
        failures.update(_compile_calls(folder, arch, one, processes))
    kernels = seal(folder, arch)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Made(kernels, size, sorted(failures))


def _compile_calls(folder: Path, arch: str, calls: Calls, processes: int) -> Iterator[str]:
    """Compile in processes like those that will call, and yield what failed."""
    jobs = [
        (name, dtype, case, calls.roots.get(name, ()))
        for name, some in calls.cases.items()
        for dtype, case in some
    ]
    like = str(folder), arch, dict(calls.switches)
    with Workers(min(processes, max(1, len(jobs))), _prepare, like) as pool:
        for failures in pool.map(_compile, *zip(*jobs, strict=True)) if jobs else ():
            yield from failures


def seal(folder: Path, arch: str) -> int:
    """Leave in a folder what is carried, and note what its kernels are of.

    Parameters
    ----------
    folder : Path
        Where Triton kept what it compiled.
    arch : str

    Returns
    -------
    int
        How many kernels are in it.
    """
    kernels = slim(folder)
    what = {"arch": arch, "commit": commit(), "kernels": kernels, **triton_made_with()}
    write_whole(folder / MADE, json.dumps(what, indent=2) + "\n")
    return kernels


def triton_made_with() -> dict[str, str]:
    """Return what of this machine's Triton the keys depend on."""
    from triton.backends.nvidia.compiler import get_ptxas_version
    from triton.runtime.cache import triton_key

    return {
        "triton_key": triton_key(),
        "ptxas": str(get_ptxas_version(90)),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def misfit(folder: Path) -> str:
    """Say what keeps this Triton from finding a folder's kernels; empty if nothing does.

    Parameters
    ----------
    folder : Path
        From `compile_ahead`.

    Returns
    -------
    str
        What the folder is of, and what this machine has.
    """
    if not (folder / MADE).is_file():
        return ""
    made, here = json.loads((folder / MADE).read_text()), triton_made_with()
    differing = [name for name, value in here.items() if made.get(name) != value]
    if not differing:
        return ""
    name = differing[-1]  # the plainest of them
    return f"of {name} {str(made.get(name))[:40]}, and this machine's is {str(here[name])[:40]}"


def expect_fits(folder: Path) -> None:
    """Refuse a folder whose kernels this Triton would not find.

    Raises
    ------
    ValueError
        Naming what differs.
    """
    if why := misfit(folder):
        refuse(
            "kernels",
            "kernels compiled by this machine's Triton",
            f"{folder.name}, {why}",
            "another version of Triton, or its wheel for another Python",
        )


def settle(folder: Path) -> int:
    """Make a folder that was carried the cache of this process and of those that it starts.

    Parameters
    ----------
    folder : Path
        From `compile_ahead`.

    Returns
    -------
    int
        How many kernels are in it.

    Raises
    ------
    ValueError
        If it is no such folder, or of another Triton.
    """
    if not (folder / MADE).is_file():
        refuse("kernels", f"a folder that gptwin bench ahead made, with {MADE}", str(folder))
    expect_fits(folder)
    _point_here(folder.resolve())
    os.environ[CACHE_VARIABLE] = str(folder.resolve())
    return int(json.loads((folder / MADE).read_text())["kernels"])


def slim(folder: Path) -> int:
    """Keep of each kernel its binary and Triton's notes.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    int
        Kernels.
    """
    n = 0
    for group, paths in _groups(folder):
        kept = {
            name: path for name, path in paths.items() if Path(name).suffix in (".json", *BINARIES)
        }
        for name in paths.keys() - kept.keys():
            (group.parent / name).unlink(missing_ok=True)
        group.write_text(json.dumps({"child_paths": kept}))
        n += 1
    for empty in [child for child in folder.iterdir() if child.is_dir()]:
        if not any(empty.glob(f"{GROUP}*")):  # launchers: each machine compiles its own
            shutil.rmtree(empty)
    return n


def _point_here(folder: Path) -> None:
    """Let the lists name files where they are now."""
    for group, paths in _groups(folder):
        here = {name: str(group.parent / name) for name in paths}
        group.write_text(json.dumps({"child_paths": here}))


def _groups(folder: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield the list of each kernel's files, and what it says."""
    for group in sorted(folder.glob(f"*/{GROUP}*")):
        yield group, json.loads(group.read_text())["child_paths"]


# --- in a worker process --------------------------------------------------------------------------


def _prepare(folder: str, arch: str, switches: Mapping[str, str]) -> None:
    """Turn this fresh process into a compiler for one architecture, with a cache of its own."""
    os.environ["TRITON_INTERPRET"] = "0"
    os.environ[CACHE_VARIABLE] = folder
    os.environ.pop("GPTWIN_BACKEND", None)
    os.environ |= {"GPTWIN_ARCH": arch, **switches}
    # Kernels choose their lists when they are imported: as on the GPU's machine by the switches,
    # which may ask for another architecture's, and not by what is compiled for.
    from ..twins import catalogue  # noqa: F401
    from .targets import compile_for

    compile_for(arch)


def _compile(name: str, dtype: str, case: dict[str, Any], roots: Sequence[str]) -> list[str]:
    """Compile what one call launches; return what failed."""
    from ..twins.find import find_twin
    from .inspect import compile_case

    launches: list[Any] = []
    try:
        compile_case(find_twin(name, try_it=False), case, dtype, launches, roots=roots)
    except Exception as error:  # a compiler may raise anything, and the others are worth having
        return [f"{name} {dtype}: {type(error).__name__}: {error}"[:300]]
    return [f"{name} {dtype}: {launch.error}"[:300] for launch in launches if launch.error]
