"""Which mutants a twin answers for, what was said of them before, and the score.

A mutant in a function that several operations share is judged by one of them: the operation whose
file it is in, else the one that reaches the fewest functions, the simplest that uses it. If it
survives there, the others are asked: they may use the function in ways of their own.
"""

import dataclasses
import dis
import functools
import hashlib
import json
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ... import kernels
from ...kernels.common.launch import INTERPRETED
from ..twins.catalogue import TWINS
from ..twins.find import find_twin, is_own
from ..twins.twin import Twin
from .equivalent import reasons_of
from .install import KERNELS, files_of, function_of, module_of
from .judge import Verdict, cases_of, judge, make_trials
from .mutants import Mutant, derive, source_of

# All operations share these: where instruments attach, and torch.compile's operators.
NOT_MUTATED = ("common/launch", "common/registered")
REQUIRED_SCORE = 0.95
Verdicts = Iterator[tuple[Mutant, Verdict]]
JUDGE = (
    "verify/budget.py", "verify/check.py", "verify/nonfinite.py", "sanitize/guard.py",
    "mutate/judge.py", "mutate/install.py", "mutate/compiled.py",
)  # fmt: skip
ON = "interpreter" if INTERPRETED else "native"  # how kernels run
_LOAD_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")


# --- who answers for what -------------------------------------------------------------------------


def reached_functions(twin: Twin) -> set[tuple[str, str]]:
    """Find the functions of kernels/ that an operation can call, by the names in their code.

    Parameters
    ----------
    twin : Twin
        The operation.

    Returns
    -------
    set of (str, str)
        Module, such as "layers/softmax", and function, such as "_Softmax.backward".
    """
    return _reached(twin, _place_in_kernels)


def _place_in_kernels(module: str) -> str | None:
    """Name a module of kernels/ by its path; what runs Triton on a CPU is not mutated."""
    package = kernels.__name__ + "."
    place = module.removeprefix(package).replace(".", "/")
    inside = module.startswith(package) and place.split("/")[0] not in ("interpreter", "native")
    return place if inside else None


def _reached(twin: Twin, place_of: Callable[[str], str | None]) -> set[tuple[str, str]]:
    """Find an operation's functions in the modules that have a place; no others are followed."""
    found: set[tuple[str, str]] = set()
    mentioned: set[str] = set()
    menus: list[Any] = []  # named tuples of functions; a caller uses some of them
    seen: dict[int, Any] = {}  # keeps each thing alive, so that no other gets its id
    to_see: list[Any] = [twin.kernel, *twin.kernels().values()]
    while to_see or menus:
        if not to_see:
            chosen = [getattr(menu, f) for menu in menus for f in menu._fields if f in mentioned]
            to_see = [item for item in chosen if id(item) not in seen]
            if not to_see:
                break
        item = to_see.pop()
        if id(item) in seen:
            continue
        seen[id(item)] = item
        if hasattr(item, "_fields"):
            menus.append(item)
        elif isinstance(item, (tuple, list)):
            to_see += item
        elif isinstance(item, dict):
            to_see += item.values()
        elif isinstance(item, functools.partial):
            to_see += [item.func, *item.args]
        elif isinstance(item, type):
            if place_of(item.__module__) is not None:
                to_see += vars(item).values()
        else:
            function = function_of(item)
            if not isinstance(function, types.FunctionType):
                continue
            if "eager" in function.__qualname__:  # no kernel is among what it calls
                continue
            place = place_of(function.__module__)
            if place is not None:
                found.add((place, function.__qualname__))
            if place is not None or item is twin.kernel:
                names = _names(function.__code__)
                mentioned |= _attributes(function.__code__)
                to_see += _values(function, names)
    return found


def _names(code: types.CodeType) -> set[str]:
    """Return the global names and attributes in a code object and those within it."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return {*code.co_names}.union(*map(_names, inner))


def _attributes(code: types.CodeType) -> set[str]:
    """Return the attributes alone: a global of a menu's field's name is not that field."""
    loads = (i.argval for i in dis.get_instructions(code) if i.opname in _LOAD_ATTRIBUTE)
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(loads).union(*map(_attributes, inner))


def _values(function: types.FunctionType, names: set[str]) -> Iterator[Any]:
    """Yield the values of a function's global names and closed-over variables."""
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, types.ModuleType):
            yield from (vars(value).get(attribute) for attribute in names)
        else:
            yield value
    yield from (cell.cell_contents for cell in function.__closure__ or ())


@functools.cache
def _reached_by_twin() -> dict[str, set[tuple[str, str]]]:
    return {name: reached_functions(twin) for name, twin in TWINS.items()}


@functools.cache
def users_of(module: str, function: str) -> list[str]:
    """List the twins that use a function of kernels/.

    Parameters
    ----------
    module, function : str
        As `reached_functions` has them.

    Returns
    -------
    list of str
        The one that the file is of, then the simpler before the others.
    """
    operation = module.split("/")[-1]
    users = [name for name, reached in _reached_by_twin().items() if (module, function) in reached]
    return sorted(users, key=lambda name: (name != operation, _size(name)))


def _size(name: str) -> int:
    """Say how large an operation is: how many functions it reaches."""
    return len(_reached_by_twin()[name])


def _others_of(name: str, mutant: Mutant) -> list[str]:
    """List the other twins that a mutant of one may show in."""
    if is_own(name):
        return []
    module = mutant.file.removeprefix("kernels/").removesuffix(".py")
    return [user for user in users_of(module, mutant.function) if user != name]


@functools.cache
def mutants_by_twin() -> dict[str, list[Mutant]]:
    """Derive all mutants and give each to one twin.

    Returns
    -------
    dict
        Twin name to its mutants, in the order of files and lines.
    """
    reached = _reached_by_twin()
    files = sorted({module for functions in reached.values() for module, _ in functions})
    mutants: dict[str, list[Mutant]] = {name: [] for name in TWINS}
    for module in files:
        path, operation = KERNELS / f"{module}.py", module.split("/")[-1]
        if module in NOT_MUTATED or not (operation in TWINS or "@triton.jit" in source_of(path)):
            continue
        for mutant in derive(path, f"kernels/{module}.py"):
            if users := users_of(module, mutant.function):
                mutants[users[0]].append(mutant)
    return mutants


@functools.cache
def mutants_of(name: str) -> list[Mutant]:
    """List the mutants that a twin answers for.

    Parameters
    ----------
    name : str
        Of the catalogue, or of a user's own: all in that user's files that it can reach.

    Returns
    -------
    list of Mutant
        In the order of files and lines.
    """
    if not is_own(name):
        return mutants_by_twin()[name]
    twin = find_twin(name)
    files = {str(file) for file in files_of(twin)}
    modules = {module_of(Path(file)).__name__: file for file in files}
    reached = _reached(twin, modules.get)
    derived = (mutant for file in sorted(files) for mutant in derive(Path(file), file))
    return [mutant for mutant in derived if (mutant.file, mutant.function) in reached]


def sample(mutants: list[Mutant], size: int | None, seed: int) -> list[Mutant]:
    """Choose mutants at random, every kind of fault about as often as the others.

    A mutant's place in the draw depends on its name and the seed alone: a change elsewhere in the
    file leaves most of a sample as it was.

    Parameters
    ----------
    mutants : list of Mutant
        To choose from.
    size : int or None
        How many; None for all.
    seed : int
        Of the draw.

    Returns
    -------
    list of Mutant
        In the order given.
    """
    if size is None or size >= len(mutants):
        return mutants

    def lot(mutant: Mutant) -> str:
        return hashlib.sha256(f"{seed} {mutant.name}".encode()).hexdigest()

    drawn: dict[str, int] = {}
    ranked = []
    for mutant in sorted(mutants, key=lot):
        drawn[mutant.operator] = drawn.get(mutant.operator, 0) + 1
        ranked.append((drawn[mutant.operator], lot(mutant), mutant.identity))
    chosen = {identity for _, _, identity in sorted(ranked)[:size]}
    return [mutant for mutant in mutants if mutant.identity in chosen]


# --- what was said before -------------------------------------------------------------------------


class KnownVerdicts:
    """Verdicts of earlier runs, one JSON line each, kept as they come.

    A verdict holds while the mutant's file is the same, and kernels run in the same way. That of a
    killed mutant holds while the case that killed it is there, that of a survivor while all cases
    and the judge are the same.

    Parameters
    ----------
    file : Path or None
        Where they lie; None keeps nothing.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.known: dict[tuple[str, ...], dict[str, Any]] = {}
        if file is not None and file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:  # a kill cut this line short
                    continue
                key = (entry["mutant"], entry["source"], entry["on"], entry["twin"])
                self.known[key] = entry

    def find(self, twin: str, mutant: Mutant, cases: list[str]) -> Verdict | None:
        """Return what was said of a mutant, if it still holds.

        Parameters
        ----------
        twin : str
            Whose checks said it.
        mutant : Mutant
            The fault.
        cases : list of str
            The names of the cases that judge now.

        Returns
        -------
        Verdict or None
        """
        entry = self.known.get((mutant.identity, _source_hash(mutant), ON, twin))
        if entry is None:
            return None
        verdict = Verdict(**entry["verdict"])
        holds = (
            verdict.case in ("", *cases)
            if verdict.killed
            else entry.get("judge") == _judge_hash(cases)
        )
        return verdict if holds else None

    def add(self, twin: str, mutant: Mutant, cases: list[str], verdict: Verdict) -> None:
        """Keep a verdict.

        Parameters
        ----------
        twin, mutant, cases
            As in `find`.
        verdict : Verdict
            What was said.
        """
        if self.file is None:
            return
        entry = {
            "mutant": mutant.identity,
            "source": _source_hash(mutant),
            "judge": _judge_hash(cases),
            "on": ON,
            "twin": twin,
            "verdict": dataclasses.asdict(verdict),
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def _source_hash(mutant: Mutant) -> str:
    return _hash([source_of(KERNELS.parent / mutant.file)])


def _judge_hash(cases: list[str]) -> str:
    return _hash([*cases, *(source_of(Path(__file__).parents[1] / name) for name in JUDGE)])


def _hash(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


# --- the score ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Score:
    """What is known of one twin's mutants.

    Attributes
    ----------
    twin : str
        The operation.
    n_derived : int
        Its mutants, whether they were run or not.
    verdicts : dict
        Mutant to verdict, of those that were chosen.
    reasons : dict
        Identity to reason, of those among them that are listed as equivalent.
    """

    twin: str
    n_derived: int
    verdicts: dict[Mutant, Verdict]
    reasons: dict[str, str]

    @property
    def killed(self) -> list[Mutant]:
        """Mutants that some check noticed, save those listed as equivalent."""
        return [m for m, v in self.verdicts.items() if v.killed and m.identity not in self.reasons]

    @property
    def survivors(self) -> list[Mutant]:
        """Mutants that no check noticed, save those listed as equivalent."""
        return [
            m for m, v in self.verdicts.items() if not v.killed and m.identity not in self.reasons
        ]

    @property
    def equivalent(self) -> list[Mutant]:
        """Mutants listed as equivalent, as no check contradicts."""
        return [m for m, v in self.verdicts.items() if not v.killed and m.identity in self.reasons]

    @property
    def contradicted(self) -> list[Mutant]:
        """Mutants listed as equivalent that a check tells from the kernel."""
        return [m for m, v in self.verdicts.items() if v.killed and m.identity in self.reasons]

    @property
    def share(self) -> float:
        """The mutation score: killed, of those that are not equivalent; 1 if there are none."""
        return len(self.killed) / max(1, len(self.killed) + len(self.survivors))

    @property
    def passed(self) -> bool:
        """Whether the score is high enough and the list of equivalent mutants is true."""
        enough = self.share >= REQUIRED_SCORE or not self.survivors
        return enough and not self.contradicted


def score_twin(
    twin: Twin,
    *,
    size: int | None,
    seed: int,
    examples: int,
    known: KnownVerdicts,
    processes: int,
    on_event: Callable[[str, int], None] = lambda what, n: None,
) -> Score:
    """Judge a twin's mutants.

    Parameters
    ----------
    twin : Twin
        The operation.
    size : int or None
        How many mutants; None for all.
    seed : int
        Of the choice, and of the random cases.
    examples : int
        Random cases beside the fixed ones.
    known : KnownVerdicts
        Verdicts of earlier runs.
    processes : int
        Children at a time.
    on_event : callable
        Called with "cases" and "mutants", and how many were done.

    Returns
    -------
    Score
    """
    derived = mutants_of(twin.name)
    chosen = sample(derived, size, seed)
    reasons = reasons_of(twin, chosen)  # a list that is no list is refused before anything runs

    def judged(by: Twin, mutants: list[Mutant], on_case: Callable[[], None]) -> Verdicts:
        cases = case_names(by, examples, seed)
        found = {m: v for m in mutants if (v := known.find(by.name, m, cases)) is not None}
        yield from found.items()
        left = [m for m in mutants if m not in found]
        if left:
            trials = make_trials(by, examples, seed, on_case)
            for mutant, verdict in judge(by, left, trials, processes):
                known.add(by.name, mutant, cases, verdict)
                yield mutant, verdict

    verdicts = {}
    for mutant, verdict in judged(twin, chosen, lambda: on_event("cases", 1)):
        verdicts[mutant] = verdict
        on_event("mutants", 1)
    others = {m: _others_of(twin.name, m) for m in chosen if m.identity not in reasons}
    simplest = sorted({n for names in others.values() for n in names}, key=_size)
    for other in simplest:
        alive = [m for m, names in others.items() if other in names and not verdicts[m].killed]
        if alive:
            verdicts |= {m: v for m, v in judged(TWINS[other], alive, lambda: None) if v.killed}
    return Score(twin.name, len(derived), {m: verdicts[m] for m in chosen}, reasons)


def case_names(twin: Twin, examples: int, seed: int) -> list[str]:
    """Name the cases that judge a twin's mutants, each as `Trial.name` does.

    Parameters
    ----------
    twin, examples, seed
        As in `score_twin`.

    Returns
    -------
    list of str
    """
    return [
        f"{dtype} {json.dumps(case)}"
        for dtype in twin.dtypes
        for case in cases_of(twin, dtype, examples, seed)
    ]
