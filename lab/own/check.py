"""`gptwin.check`: a kernel of your own against its reference, in a line of a test."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from ...core.checks import refuse
from ...kernels.common import plain
from ..device import kernel_device
from ..settings import read_settings
from ..twins.find import nameless
from ..twins.twin import Case, Twin
from ..verify.console import brief, explain, percent
from ..verify.verify import DEFAULT_EXAMPLES, Job, Row, unreached, verify_row
from .arguments import name_of
from .declare import Declaration, twin
from .sarif import DISAGREEMENT


@dataclasses.dataclass(frozen=True)
class Report:
    """What was checked, and how much of the error budget was used up.

    Attributes
    ----------
    n_cases : int
        Calls of the kernel that were compared.
    compared : tuple of str
        The results and gradients.
    kernels : tuple of str
        Kernels that ran, each with a configuration: "rms_norm_kernel #0".
    worst : dict
        Dtype to the largest share of the budget, at most 1.
    """

    n_cases: int
    compared: tuple[str, ...]
    kernels: tuple[str, ...]
    worst: dict[str, float]

    def __str__(self) -> str:
        """Say it in a line."""
        worst = ", ".join(f"{dtype} {percent(share)}" for dtype, share in self.worst.items())
        return (
            f"{self.n_cases} cases agree in {', '.join(self.compared)}; worst share of the error "
            f"budget: {worst}; ran {', '.join(self.kernels)}"
        )


class Disagreement(AssertionError):
    """A kernel's results are not its reference's.

    Parameters
    ----------
    message : str
    failed : list of Row

    Attributes
    ----------
    findings : list of dict
        For SARIF (sarif.py): each dtype's first wrong element, at the line that stored it.
    """

    def __init__(self, message: str, failed: list[Row]) -> None:
        super().__init__(message)
        self.findings = [
            {
                "kind": DISAGREEMENT,
                "where": row.tile.where if row.tile else "",
                "text": f"{row.job.dtype}: " + "\n".join(explain(row)),
            }
            for row in failed
        ]


def check(
    kernel: Callable[..., Any] | Declaration,
    reference: Callable[..., Any] | None = None,
    *,
    examples: int = DEFAULT_EXAMPLES,
    seed: int = 0,
    case: Case | None = None,
    **declared: Any,
) -> Report:
    """Check a kernel against its reference, and raise if they disagree.

    An element may be off by twice (a gradient: three times) the worst error that the reference
    itself makes in the kernel's dtype, and a few roundings (lab/verify/check.py). Corners run with
    every configuration of the autotuned kernels, random cases with a random one, tensors lie in
    memory with gaps and transposed, too; a disagreement is shrunk to the smallest case.

    Parameters
    ----------
    kernel : callable or Declaration
        The function that launches, or what `gptwin.twin` returned, with nothing to declare beside.
    reference : callable
        The same in PyTorch or NumPy.
    examples : int
        Random cases in each dtype.
    seed : int
        Of the random cases.
    case : dict, optional
        Run this one alone, as an error has shown it.
    **declared
        `cases`, `dtypes`, `updates` and whatever else `gptwin.twin` takes.

    Returns
    -------
    Report

    Raises
    ------
    AssertionError
        If they disagree: which result, dtype, case and configuration, the first wrong element
        beside its budget, and the tile that wrote it.
    ValueError
        Naming the argument that makes no sense.
    RuntimeError
        If kernels can run neither on a GPU nor on the CPU, compiled or interpreted.
    """
    __tracebackhide__ = True  # pytest shows the caller's line
    if isinstance(kernel, Declaration):
        if reference is not None or declared:
            refuse("kernel", "a declared twin alone", "more beside it", "say it to gptwin.twin")
        declaration = kernel
    else:
        if reference is None:
            refuse("reference", "a function", "none")
        if "cases" not in declared and case is not None:
            declared["cases"] = [{n: v for n, v in case.items() if n not in _BESIDE}]
        declaration = twin(kernel, reference, **declared)
    if examples < 1:
        refuse("examples", "at least 1", str(examples))
    function = declaration.kernel
    name = f"{getattr(function, '__module__', '')}:{name_of(function)}"
    device = kernel_device()
    with plain.choosing_here():
        own = declaration.as_twin(name, configs=read_settings().configs)
        nameless[name] = own
        try:
            rows = [
                verify_row(Job(name, dtype, examples, seed, None, case), device, lambda: None)
                for dtype in own.dtypes
            ]
            missing = unreached(rows)
        finally:
            del nameless[name]
    failed = [row for row in rows if not row.passed]
    if failed or missing:
        message = _message(declaration, own, rows, failed, missing.get(name, []))
        raise Disagreement(message, failed)
    return Report(
        sum(row.n_cases for row in rows),
        (*own.results, *(f"d_{argument}" for argument in own.arguments)),
        tuple(sorted({f"{kernel} #{i}" for row in rows for kernel, i in row.reached})),
        {row.job.dtype: row.worst.share if row.worst else 0.0 for row in rows},
    )


_BESIDE = ("layout", "d_layout", "seed", "configuration")


def _message(
    declaration: Declaration, own: Twin, rows: list[Row], failed: list[Row], missing: list[str]
) -> str:
    kernel, reference = name_of(declaration.kernel), name_of(declaration.reference)
    if not failed:
        return f"{kernel}: no case launched {', '.join(missing)}: nothing is known of it"
    dtypes = ", ".join(row.job.dtype for row in failed)
    lines = [f"{kernel} disagrees with {reference} in {dtypes}"]
    for row in failed:
        assert row.failure is not None
        lines.append(f"{row.job.dtype}, {brief(row.failure.case)}{_chosen(own, row)}")
        lines += ["  " + line for line in explain(row)]
        lines.append(f"  again: {_reproduction(row)}")
    passed = [row.job.dtype for row in rows if row.passed]
    if passed:
        lines.append(f"agrees in {', '.join(passed)}")
    return "\n".join(lines)


def _chosen(own: Twin, row: Row) -> str:
    """Say what the configuration's number stands for."""
    assert row.failure is not None
    index = row.failure.case.get("configuration", 0)
    for name, kernel in own.kernels().items():
        configs = getattr(kernel, "configs", None)
        if configs and (row.failure.error or (name, index) in row.failure.reached):
            return f" ({name}: {configs[index % len(configs)]})"
    return ""


def _reproduction(row: Row) -> str:
    """Give the Python that runs a failing case again."""
    assert row.failure is not None
    case = json.dumps(row.failure.case)
    return f"gptwin.check(..., dtypes=[{row.job.dtype!r}], case={case})"
