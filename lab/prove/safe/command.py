"""`gptwin prove --safe` as a person sees it."""

import time
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .asked.questions import NOT_FOLLOWED, REFUTED, UNKNOWN
from .prove import Outcome, Result, prove_all
from .summary import KINDS, Kernel, kernels_of

_TITLES = {"bounds": "in bounds", "width": "no wrap", "race": "no race", "written": "written"}


def run(names: list[str]) -> tuple[int, list[dict[str, Any]]]:
    """Prove of each target that it is in bounds and without races, and print what was found.

    Parameters
    ----------
    names : list of str
        Twins of the catalogue, a user's own as package.module:NAME, or file.py::kernel; each there.

    Returns
    -------
    int, list of dict
        The exit code, and the rows to store.

    Raises
    ------
    RuntimeError
        If z3 is not installed.
    """
    try:
        import z3
    except ImportError as error:
        raise RuntimeError(
            "prove --safe: expected z3 to be installed, but importing it failed: pip install "
            "'gptwin[prove]'"
        ) from error
    console = Console(emoji=False)
    console.print(
        f"Safe at every size: TTIR without specialisation, z3 {z3.get_version_string()}",
        highlight=False,
    )
    started = time.monotonic()
    kernels: list[Kernel] = []
    results: list[Result] = []
    wrong = False
    for outcome in prove_all(names):
        own = kernels_of(outcome)
        kernels += own
        results += outcome.results
        console.print(_table(outcome.name, own))
        wrong |= _tell(outcome, own, console)
    console.print(_total(results, time.monotonic() - started), highlight=False)
    return int(wrong or not kernels), [kernel.row() for kernel in kernels]


def _total(results: list[Result], seconds: float) -> str:
    """Sum up; a kernel that several twins launch counts once."""
    kernels = kernels_of(Outcome("all", results))
    shares = {kind: [sum(k.share(kind)[i] for k in kernels) for i in (0, 1)] for kind in KINDS}
    accesses, widths, races, whole = ("{} of {}".format(*shares[kind]) for kind in KINDS)
    proved, asked = shares["bounds"]
    return (
        f"{accesses} accesses in bounds at every size ({proved / max(asked, 1):.0%}), {widths} "
        f"integers without a wrap, {races} pairs without a race, {whole} results written whole: "
        f"{len(kernels)} kernels, {seconds:.0f} s"
    )


def _table(name: str, kernels: list[Kernel]) -> Table:
    table = Table(box=SIMPLE_HEAD, title=name, title_justify="left")
    table.add_column("kernel")
    for heading in ("variants", *_TITLES.values(), "s"):
        table.add_column(heading, justify="right")
    for kernel in kernels:
        shares = ("{}/{}".format(*kernel.share(kind)) for kind in KINDS)
        table.add_row(kernel.name, str(kernel.variants), *shares, f"{kernel.seconds:.1f}")
    return table


def _tell(outcome: Outcome, kernels: list[Kernel], console: Console) -> bool:
    """Print what is not proved, and the contracts that were proposed; say if something is wrong."""
    said = list(outcome.broken)
    for kernel in kernels:
        said += [f"{kernel.name}: not followed: {kernel.problem}"] if kernel.problem else []
        for f in kernel.findings:
            where = f.where.rpartition("/")[2]
            said.append(f"{kernel.name}, {where}: {f.what} ({_TITLES[f.kind]}): {f.verdict}"
                        f"{': ' if f.reason else ''}{f.reason}")  # fmt: skip
            if f.confirmed:
                said.append("    a run shows it: " + f.confirmed.replace("\n", "\n    "))
    for text in said:
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    for name, contract in outcome.proposed.items():
        console.print(
            f"{name}: nobody wrote a contract; from its launches this one was read off, and what "
            f"is proved holds of launches that satisfy it:\n    "
            + contract.replace("\n", "\n    "),
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    verdicts = {f.verdict for kernel in kernels for f in kernel.findings}
    problems = any(kernel.problem for kernel in kernels)
    return bool(outcome.broken or problems or verdicts & {REFUTED, UNKNOWN, NOT_FOLLOWED})
