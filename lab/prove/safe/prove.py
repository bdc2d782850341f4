"""Proves the kernels of twins, variant by variant, in processes of their own.

A kernel that Triton's interpreter has run cannot be compiled, and one that was compiled cannot be
interpreted: so each target is proved in one process, and what is to be shown by a run is run in
another.
"""

import dataclasses
import os
import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from typing import Any

from ...twins.catalogue import TWINS
from ...twins.find import find_twin
from ...twins.twin import Twin
from . import workers
from .asked.launching import Replay, launch_of
from .asked.problem import Problem
from .asked.questions import REFUTED, UNKNOWN, Finding, PremisesContradict, Questions
from .asked.written import written
from .launches import compile as front_end
from .launches.calls import Variant, calls_of_file, calls_of_twin
from .launches.contract import Contract, read
from .launches.holding import sizes, violations
from .launches.propose import propose
from .replay import Fault
from .symbolic.solver import begin_anew

DTYPES = ("float32",)


@dataclasses.dataclass
class Result:
    """What was found of one variant.

    Attributes
    ----------
    kernel : str
    configuration : int
    wide : tuple of str
        The integers that have 64 bits.
    findings : list of Finding
    replays : dict of int to Replay
        By a finding's number, where there are numbers to run.
    problem : str
        Why it was not followed at all; "" if it was.
    seconds, solver_seconds : float
        CPU time, and z3's share.
    """

    kernel: str
    configuration: int
    wide: tuple[str, ...] = ()
    findings: list[Finding] = dataclasses.field(default_factory=list)
    replays: dict[int, Replay] = dataclasses.field(default_factory=dict)
    problem: str = ""
    seconds: float = 0.0
    solver_seconds: float = 0.0


@dataclasses.dataclass
class Outcome:
    """What was found of one target.

    Attributes
    ----------
    name : str
    results : list of Result
    broken : list of str
        Contracts that launches of the target do not satisfy, and cases that could not be run.
    proposed : dict of str to str
        By kernel, the contracts that nobody wrote: made up from a run.
    """

    name: str
    results: list[Result] = dataclasses.field(default_factory=list)
    broken: list[str] = dataclasses.field(default_factory=list)
    proposed: dict[str, str] = dataclasses.field(default_factory=dict)


def contract_of(twin: Twin, kernel: str) -> str | None:
    """Find the contract of a kernel: the twin's own, or that of the twin beside whose file it is.

    Parameters
    ----------
    twin : Twin
    kernel : str

    Returns
    -------
    str or None
        None if nobody wrote one.
    """
    for one in (twin, *TWINS.values()):
        if kernel in one.contracts:
            return one.contracts[kernel]
    return None


def prove_target(name: str, known: set[Any] | None = None) -> Outcome:
    """Prove a target's kernels, in a process that compiles.

    Parameters
    ----------
    name : str
        A twin, or file.py::kernel.
    known : set, optional
        Code that was proved before; what this proves is added.

    Returns
    -------
    Outcome
    """
    known = set() if known is None else known
    outcome = Outcome(name)
    path, _, kernel = name.partition("::")
    with front_end.compiling():
        if path.endswith(".py"):
            module, variants = calls_of_file(path, kernel)
            texts = dict(getattr(module, "CONTRACTS", {}))
        else:
            twin = find_twin(name)
            variants, outcome.broken = calls_of_twin(twin, [d for d in DTYPES if d in twin.dtypes])
            texts = {v.kernel: contract_of(twin, v.kernel) for v in variants}
        for kernel in dict.fromkeys(v.kernel for v in variants):
            own = [v for v in variants if v.kernel == kernel]
            text = texts.get(kernel)
            if text is None:
                text = outcome.proposed[kernel] = propose([c for v in own for c in v.calls])
            contract = read(text, kernel)
            outcome.broken += _broken(contract, own)
            outcome.results += prove_variants(own, contract, known)
    return outcome


def _broken(contract: Contract, variants: list[Variant]) -> list[str]:
    """Hold a contract against all launches of a kernel."""
    found = (
        f"contract of {v.kernel}: {what}"
        for v in variants
        for call in v.calls
        for what in violations(contract, call)
    )
    return list(dict.fromkeys(found))


def prove_all(names: Iterable[str]) -> Iterator[Outcome]:
    """Prove targets, two at a time, and run what was refuted.

    Parameters
    ----------
    names : iterable of str

    Yields
    ------
    Outcome
        In the order of the names.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    with workers.compiling(min(2, processors)) as provers, workers.interpreting() as runners:
        for outcome in provers.map(workers.prove, names):
            confirm(outcome, runners)
            yield outcome


def confirm(outcome: Outcome, runners: Executor) -> None:
    """Run the counterexamples of a target; what a run does not show is not refuted.

    Parameters
    ----------
    outcome : Outcome
        Its findings are brought up to date.
    runners : executor
        Whose process interprets.
    """
    for result in outcome.results:
        for number, replay in result.replays.items():
            finding = result.findings[number]
            _judge(finding, runners.submit(workers.replay, replay).result())


def _judge(finding: Finding, faults: list[Fault]) -> None:
    for fault in faults:
        if fault.confirms(finding.kind, finding.where, finding.tensor):
            finding.verdict, finding.confirmed = REFUTED, fault.text
            return
    if finding.verdict == REFUTED:
        finding.verdict = UNKNOWN
        shown = faults[0].text if faults else "nothing"
        finding.reason += f"; but a run of the counterexample shows {shown.splitlines()[0]}"


def prove_variants(
    variants: list[Variant], contract: Contract, known: set[Any] | None = None
) -> Iterator[Result]:
    """Prove a kernel: with each value of each flag, and, with the first flags, each configuration.

    All are proved with integers of 32 bits, and the first with 64 where the contract lets them be
    that large.

    Parameters
    ----------
    variants : list of Variant
        Of one kernel.
    contract : Contract
    known : set, optional
        Code that was proved before; what this proves is added.

    Yields
    ------
    Result
    """
    known = set() if known is None else known
    first = variants[0].flags
    seen: set[Any] = set()
    for number, variant in enumerate(variants):
        new = not seen.issuperset(variant.flags)
        if not new and variant.flags != first:
            continue
        seen.update(variant.flags)
        wide: frozenset[str] = frozenset()
        for _ in range(1 + (number == 0)):
            result, wide = _prove(variant, contract, wide, known)
            if result is not None:
                yield result
            if not wide:
                break


def _prove(
    variant: Variant, contract: Contract, wide: frozenset[str], known: set[Any]
) -> tuple[Result | None, frozenset[str]]:
    """Prove code, unless it was proved before; say also which integers may be wide."""
    started = time.process_time()
    begin_anew()
    result = Result(variant.kernel, variant.configuration, tuple(sorted(wide)))
    try:
        problem = Problem(variant.call, contract, wide)
    except ValueError:  # a contract that makes no sense
        raise
    except Exception as error:  # what cannot be followed is named, and the other kernels proved
        result.problem = f"{type(error).__name__}: {error}"
        return result, frozenset()
    constants = {n: v for n, v in front_end.constants(variant.call).items() if n in contract.text}
    key = contract.text, repr(constants), _without_floats(problem.text), wide
    if key in known:
        return None, problem.may_be_wide()
    known.add(key)
    examples = [sizes(contract, call) for call in variant.calls[:3]]
    questions = Questions(problem, examples)
    try:
        result.findings = [*questions.all(), *written(questions)]
    except PremisesContradict as error:
        result.problem = str(error)
        return result, frozenset()
    result.replays = {i: launch_of(questions, f) for i, f in enumerate(result.findings) if f.model}
    result.seconds = time.process_time() - started
    result.solver_seconds = questions.solver.seconds + questions.without_programs.seconds
    return result, problem.may_be_wide()


def _without_floats(text: str) -> str:
    """Leave out of TTIR what no address hangs on: places in the source, and which floats."""
    lines = [line for line in text.splitlines() if not line.startswith("#loc")]
    plain = "\n".join(re.sub(r" loc\([^()]*(?:\([^()]*\))?[^()]*\)", "", line) for line in lines)
    return re.sub(r"\b(bf16|f16|f32)\b", "f", plain)
