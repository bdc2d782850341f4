"""`gptwin prove --equal` as a person sees it."""

from typing import Any


def run(names: list[str], *, seeds: int) -> tuple[int, list[dict[str, Any]]]:
    """Prove of each target that it is one function with its reference, and print what was found.

    Parameters
    ----------
    names : list of str
        Twins of the catalogue, a user's own as package.module:NAME, or file.py::kernel; each there.
    seeds : int
        How many fields each equality is tried in.

    Returns
    -------
    int, list of dict
        The exit code, and the rows to store.

    Raises
    ------
    RuntimeError
        Always: this half is not built yet.
    """
    raise RuntimeError("prove --equal: not built yet")
