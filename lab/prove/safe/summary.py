"""What was found of a kernel, over all its variants: a verdict for each access and integer."""

import collections
import dataclasses
from typing import Any

from .asked.questions import NOT_FOLLOWED, PROVED, REFUTED, UNKNOWN, UNREACHED, Finding
from .prove import Outcome, Result

# The worse of two verdicts counts; what one variant never reaches another may.
_ORDER = (UNREACHED, PROVED, NOT_FOLLOWED, UNKNOWN, REFUTED)
KINDS = ("bounds", "width", "race", "written")


@dataclasses.dataclass
class Kernel:
    """What was found of a kernel.

    Attributes
    ----------
    operation, name : str
    variants : int
        Compiled, with different constants or widths; proved before for another target are none.
    verdicts : dict of str to dict
        For each kind of question how many there are of each verdict.
    findings : list of Finding
        Those that are not proved, the worst of each statement.
    problem : str
    seconds : float
    """

    operation: str
    name: str
    variants: int = 0
    verdicts: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    findings: list[Finding] = dataclasses.field(default_factory=list)
    problem: str = ""
    seconds: float = 0.0

    def share(self, kind: str) -> tuple[int, int]:
        """Return how many statements of a kind are proved, and how many there are."""
        found = self.verdicts.get(kind, {})
        return found.get(PROVED, 0), sum(found.values())

    def row(self) -> dict[str, Any]:
        """Return what is stored."""
        return {
            "proof": "safe",
            "operation": self.operation,
            "kernel": self.name,
            "variants": self.variants,
            **{kind: list(self.share(kind)) for kind in KINDS},
            "not_proved": [
                f"{f.kind}: {f.where.rpartition('/')[2]}: {f.what}: {f.verdict}: {f.reason}"
                for f in self.findings
            ],
            "problem": self.problem,
            "seconds": round(self.seconds, 2),
        }


def kernels_of(outcome: Outcome) -> list[Kernel]:
    """Sum a target's results up, kernel by kernel.

    Parameters
    ----------
    outcome : Outcome

    Returns
    -------
    list of Kernel
    """
    groups: dict[str, list[Result]] = collections.defaultdict(list)
    for result in outcome.results:
        groups[result.kernel].append(result)
    return [_kernel(outcome.name, name, results) for name, results in groups.items()]


def _kernel(operation: str, name: str, results: list[Result]) -> Kernel:
    kernel = Kernel(operation, name, len(results))
    worst: dict[tuple[str, str, str], Finding] = {}
    for result in results:
        kernel.seconds += result.seconds
        kernel.problem = kernel.problem or result.problem
        for finding in result.findings:
            key = finding.kind, finding.where, finding.what
            known = worst.get(key)
            if known is None or _ORDER.index(finding.verdict) > _ORDER.index(known.verdict):
                worst[key] = finding
    for finding in worst.values():
        of_kind = kernel.verdicts.setdefault(finding.kind, {})
        of_kind[finding.verdict] = of_kind.get(finding.verdict, 0) + 1
        if finding.verdict != PROVED:
            kernel.findings.append(finding)
    return kernel
