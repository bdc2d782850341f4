"""Proves the kernels of twins, variant by variant, in processes of their own.

A kernel that Triton's interpreter has run cannot be compiled, and one that was compiled cannot be
interpreted: so kernels are proved in some processes, and what is to be shown by a run is run in
another. First all variants are compiled; code that several launches, or several twins, have in
common is proved once, and what takes longest first, so that no process waits for another.
"""

import dataclasses
import hashlib
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
from .asked.races import Races
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


@dataclasses.dataclass
class Target:
    """What is to be proved of a target.

    Attributes
    ----------
    outcome : Outcome
        Without results.
    kernels : list of (list of Variant, Contract)
    """

    outcome: Outcome
    kernels: list[tuple[list[Variant], Contract]]


@dataclasses.dataclass(frozen=True)
class Task:
    """One variant of a kernel of a target, to be proved in any process.

    Attributes
    ----------
    target : str
    kernel, variant : int
        By their places in `Target.kernels`.
    wide : frozenset of str
        The integers that have 64 bits.
    key : str
        The same for two variants of which the same is to be proved.
    weight : int
        The longer the code the longer the proof.
    """

    target: str
    kernel: int
    variant: int
    wide: frozenset[str]
    key: str
    weight: int


def target_of(name: str) -> Target:
    """Collect a target's kernels and contracts; a context of `compiling` must last.

    Parameters
    ----------
    name : str
        A twin, or file.py::kernel.

    Returns
    -------
    Target
    """
    outcome = Outcome(name)
    path, _, kernel = name.partition("::")
    if path.endswith(".py"):
        module, variants = calls_of_file(path, kernel)
        texts = dict(getattr(module, "CONTRACTS", {}))
    else:
        twin = find_twin(name)
        variants, outcome.broken = calls_of_twin(twin, [d for d in DTYPES if d in twin.dtypes])
        texts = {v.kernel: contract_of(twin, v.kernel) for v in variants}
    kernels = []
    for kernel in dict.fromkeys(v.kernel for v in variants):
        own = [v for v in variants if v.kernel == kernel]
        text = texts.get(kernel)
        if text is None:
            text = outcome.proposed[kernel] = _proposed(own)
        contract = read(text, kernel)
        outcome.broken += _broken(contract, own)
        kernels.append((own, contract))
    return Target(outcome, kernels)


def _proposed(variants: list[Variant]) -> str:
    """Propose a contract: from the launches, and from which numbers stand in whose addresses."""
    calls = [call for variant in variants for call in variant.calls]
    text = propose(calls)
    try:
        problem = Problem(variants[0].call, read(text))
        problem.follow()
    except Exception:  # the proof says what cannot be followed
        return text
    used: dict[str, set[str]] = {}
    for access in problem.walk.accesses:
        lanes = tuple(problem.unknowns.new("lane") for _ in access.pointer.shape)
        used.setdefault(access.base, set()).update(access.pointer.at(lanes).unknowns)
    return propose(calls, used)


def tasks_of(name: str, target: Target) -> list[Task]:
    """List what is to be proved of a target, each code once.

    Parameters
    ----------
    name : str
    target : Target

    Returns
    -------
    list of Task
    """
    found: dict[str, Task] = {}
    for number, (variants, contract) in enumerate(target.kernels):
        for place, wide in asked_of(variants, contract):
            try:
                text = front_end.ttir(variants[place].call, wide)
                key = _key(variants[place], contract, text, wide)
            except Exception as error:  # the proof says so again
                text, key = "", f"{name} {number} {place} {error}"
            found.setdefault(key, Task(name, number, place, wide, key, len(text)))
    return list(found.values())


def prove_task(task: Task, target: Target) -> Result:
    """Prove a variant; a context of `compiling` must last."""
    variants, contract = target.kernels[task.kernel]
    return _prove(variants[task.variant], contract, task.wide)


def prove_target(name: str) -> Outcome:
    """Prove a target's kernels, in a process that compiles.

    Parameters
    ----------
    name : str
        A twin, or file.py::kernel.

    Returns
    -------
    Outcome
    """
    with front_end.compiling():
        target = target_of(name)
        target.outcome.results = [prove_task(task, target) for task in tasks_of(name, target)]
    return target.outcome


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
    """Prove targets, in two processes, and run what was refuted.

    Parameters
    ----------
    names : iterable of str

    Yields
    ------
    Outcome
        In the order of the names. What several have in common has taken its time in the first.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    with workers.compiling(min(2, processors)) as provers, workers.interpreting() as runners:
        prepared = list(provers.map(workers.prepare, names))
        tasks: dict[str, Task] = {}
        for task in (task for _, own in prepared for task in own):
            tasks.setdefault(task.key, task)
        heavy_first = sorted(tasks.values(), key=lambda task: -task.weight)
        asked = {task.key: provers.submit(workers.prove_task, task) for task in heavy_first}
        for outcome, own in prepared:
            for task in own:
                result = asked[task.key].result()
                if tasks[task.key] is task:
                    confirm(result, runners)
                    outcome.results.append(result)
                else:
                    outcome.results.append(dataclasses.replace(result, seconds=0.0))
            yield outcome


def confirm(result: Result, runners: Executor) -> None:
    """Run the counterexamples of a variant; what a run does not show is not refuted.

    Parameters
    ----------
    result : Result
        Its findings are brought up to date.
    runners : executor
        Whose process interprets.
    """
    for number, replay in result.replays.items():
        _judge(result.findings[number], runners.submit(workers.replay, replay).result())


def _judge(finding: Finding, faults: list[Fault]) -> None:
    for fault in faults:
        if fault.confirms(finding.kind, finding.where, finding.tensor):
            finding.verdict, finding.confirmed = REFUTED, fault.text
            return
    if finding.verdict == REFUTED:
        finding.verdict = UNKNOWN
        shown = faults[0].text if faults else "nothing"
        finding.reason += f"; but a run of the counterexample shows {shown.splitlines()[0]}"


def asked_of(variants: list[Variant], contract: Contract) -> Iterator[tuple[int, frozenset[str]]]:
    """Choose what to prove of a kernel.

    Each value of each flag and, with the first flags, each configuration. All are proved with
    integers of 32 bits, and the first with 64 where the contract lets them be that large.

    Parameters
    ----------
    variants : list of Variant
        Of one kernel.
    contract : Contract

    Yields
    ------
    int, frozenset of str
        A variant's place, and which integers have 64 bits.
    """
    first = variants[0].flags
    seen: set[Any] = set()
    for number, variant in enumerate(variants):
        new = not seen.issuperset(variant.flags)
        if not new and variant.flags != first:
            continue
        seen.update(variant.flags)
        yield number, frozenset()
        if number == 0 and (wide := _may_be_wide(variant, contract)):
            yield number, wide


def _may_be_wide(variant: Variant, contract: Contract) -> frozenset[str]:
    try:
        return Problem(variant.call, contract).may_be_wide()
    except ValueError:  # a contract that makes no sense
        raise
    except Exception:  # the proof says so
        return frozenset()


def prove_variants(variants: list[Variant], contract: Contract) -> Iterator[Result]:
    """Prove a kernel: all that `asked_of` chooses.

    Parameters
    ----------
    variants : list of Variant
    contract : Contract

    Yields
    ------
    Result
    """
    for number, wide in asked_of(variants, contract):
        yield _prove(variants[number], contract, wide)


def _prove(variant: Variant, contract: Contract, wide: frozenset[str]) -> Result:
    started = time.process_time()
    begin_anew()
    result = Result(variant.kernel, variant.configuration, tuple(sorted(wide)))
    try:
        problem = Problem(variant.call, contract, wide)
        problem.follow()
    except ValueError:  # a contract that makes no sense
        raise
    except Exception as error:  # what cannot be followed is named, and the other kernels proved
        result.problem = f"{type(error).__name__}: {error}"
        return result
    examples = [sizes(contract, call) for call in variant.calls[:3]]
    questions = Questions(problem, examples)
    try:
        result.findings = [*questions.all(), *Races(questions).all(), *written(questions)]
    except PremisesContradict as error:
        result.problem = str(error)
        return result
    result.replays = {i: launch_of(questions, f) for i, f in enumerate(result.findings) if f.model}
    result.seconds = time.process_time() - started
    result.solver_seconds = questions.solver.seconds + questions.without_programs.seconds
    return result


def _key(variant: Variant, contract: Contract, text: str, wide: frozenset[str]) -> str:
    """Name what is to be proved: two variants with one key are proved by one proof."""
    call = variant.call
    constants = {n: v for n, v in front_end.constants(call).items() if n in contract.text}
    function = call.function.fn
    what = (
        function.__module__, function.__name__, contract.text, sorted(map(repr, constants.items())),
        list(front_end.arguments(call)), front_end.itemsize(call), sorted(wide),
        _without_floats(text),
    )  # fmt: skip
    return hashlib.sha256(repr(what).encode()).hexdigest()


def _without_floats(text: str) -> str:
    """Leave out of TTIR what no address hangs on: places in the source, and which floats."""
    lines = [line for line in text.splitlines() if not line.startswith("#loc")]
    plain = "\n".join(re.sub(r" loc\([^()]*(?:\([^()]*\))?[^()]*\)", "", line) for line in lines)
    return re.sub(r"\b(bf16|f16|f32)\b", "f", plain)
