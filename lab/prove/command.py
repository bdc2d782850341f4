"""`gptwin prove`: asks the two halves, and stores what they found."""

from typing import Any

from ...core.checks import refuse
from ...kernels.common._triton import UNAVAILABLE
from ..sanitize.drivers import is_file
from ..store import expect_writable, made_with, write_rows
from .equal import command as equal_command
from .safe import command as safe_command
from .targets import expand


def prove(
    names: list[str], *, safe: bool, equal: bool, seeds: int, json_file: str | None = None
) -> int:
    """Prove twins or kernels, and print what was proved and what was not.

    Parameters
    ----------
    names : list of str
        As in `expand`; empty for all twins.
    safe, equal : bool
        Which half; both if neither is named.
    seeds : int
        How many fields each equality is tried in.
    json_file : str, optional
        Where to store the rows; each says under "proof" of which half it is.

    Returns
    -------
    int
        0 if all that was asked is proved, else 1.

    Raises
    ------
    ValueError
        If an argument makes no sense.
    RuntimeError
        If Triton is missing, or a user's file cannot be imported.
    """
    if UNAVAILABLE is not None:
        raise RuntimeError(f"prove: expected Triton to be installed, but {UNAVAILABLE}")
    if seeds < 1:
        refuse("seeds", "at least 1", str(seeds))
    stored = None if json_file is None else expect_writable("json", json_file)
    targets = expand(names)
    exit_code, rows = 0, list[dict[str, Any]]()
    alone = len(targets) == 1 and is_file(targets[0])  # it has nothing to be equal to
    if equal or not (safe or alone):
        code, found = equal_command.run(targets, seeds=seeds)
        exit_code, rows = max(exit_code, code), rows + found
    if safe or not equal:
        code, found = safe_command.run(targets)
        exit_code, rows = max(exit_code, code), rows + found
    if stored is not None:
        write_rows(stored, made_with() | {"seeds": seeds, "passed": not exit_code}, rows)
    return exit_code
