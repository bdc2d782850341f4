"""Break a kernel's barriers, one after another, and see whether the model notices.

A mutant is found if playing it shows a finding, or if its results are not the kernel's own to the
bit. Which orders would show it does not matter: one run finds what any order could do.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType

import torch

from .faults import Fault, Faults
from .play import How, Played, playing
from .swaps import swaps

Launch = Callable[[], list[torch.Tensor]]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of one mutant.

    Attributes
    ----------
    what, kind : str
        What was broken, such as "wait of k_full" or "neighbours", and how.
    at, text : str
        Where: the lines of the calls that lead there, and what stands in them.
    found : str
        The finding's kind, "other results", or "" if nothing was noticed.
    where : str
        The finding's line, "file:line" without folders.
    """

    what: str
    kind: str
    at: str
    text: str
    found: str
    where: str = ""


def mutants(launch: Launch, strict: bool = True, schedule: str = "behind") -> Iterator[Verdict]:
    """Judge every mutant of the kernels that a function launches.

    Parameters
    ----------
    launch : callable
        Launches Gluon kernels on the CPU, and returns what they have written.
    strict, schedule
        See `How`.

    Yields
    ------
    Verdict
        First of operations that are left out or wrong, then of neighbours that are swapped.

    Raises
    ------
    ValueError
        If something is found in the kernels as they are.
    """
    faults = Faults()
    with playing(schedule, strict, wrap=faults.wrap) as played:
        expected = launch()
    if played.findings:
        raise ValueError(f"the kernel itself has findings:\n{played.findings[0]}")
    judge = functools.partial(_judge, launch, expected, How(schedule, strict, to_the_end=False))
    for fault in faults.possible:
        site = fault.site
        found = judge(fault=fault)
        yield Verdict(fault.what, fault.kind, site.lines, site.text, *found)
    for function in played.functions:
        for swap in swaps(function):
            for code in swap.codes:
                found = judge(changed={function.__code__: code})
                if found[0] != "no program":  # what one statement needs the other gives
                    yield Verdict("neighbours", "swapped", swap.at, swap.text, *found)
                    break


def _judge(
    launch: Launch,
    expected: list[torch.Tensor],
    how: How,
    changed: dict[CodeType, CodeType] | None = None,
    fault: Fault | None = None,
) -> tuple[str, str]:
    wrap = None if fault is None else Faults(fault).wrap
    with playing(**vars(dataclasses.replace(how, changed=changed, wrap=wrap))) as played:
        results = launch()
    if played.findings:
        return _first(played)
    same = all(map(_same_bits, results, expected))
    return ("" if same else "other results"), ""


def _first(played: Played) -> tuple[str, str]:
    first = played.findings[0]
    if first.kind == "failure" and first.detail.startswith(("UnboundLocalError", "NameError")):
        return "no program", ""
    return first.kind, Path(first.where).name


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.view(torch.uint8), b.view(torch.uint8))
