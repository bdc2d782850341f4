"""All cases of a twin, and what they say together."""

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import as_completed
from typing import Any

import torch

from ...processes import Workers
from ...twins.twin import Case
from ...verify.verify import n_configurations, variants
from .algebra import constants
from .algebra.functions import TAKEN_FOR_0
from .cases import STEERS, Outcome, prove_case
from .crossing import CROSSING
from .preparation import prepared, twin_to_prove

# The quickest cases of a twin that are run again with shadows moved.
STEERED_CORNERS = 2


@dataclasses.dataclass(frozen=True)
class Unit:
    """Cases that one process runs, one after another: one case in all configurations and fields.

    Attributes
    ----------
    name : str
        The twin.
    case : Case
    seeds : int
    steer : str
        How shadows are moved.
    dtype : str
        Of the tensors: a kernel may have configurations for numbers of two bytes alone. What is
        computed is the same, since numbers have no rounding here.
    """

    name: str
    case: Case
    seeds: int
    steer: str = ""
    dtype: str = "float32"

    @property
    def configurations(self) -> range:
        """Those that it runs: steered cases the first alone."""
        return range(1 if self.steer else n_configurations(twin_to_prove(self.name)))

    def __len__(self) -> int:
        """Count the runs."""
        return len(self.configurations) * self.seeds


@dataclasses.dataclass
class Proof:
    """What is known of a twin.

    Attributes
    ----------
    name : str
    seeds : int
    outcomes : list of Outcome
    opaque : set of float
        Constants of which no meaning was found.
    """

    name: str
    seeds: int
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)
    opaque: set[float] = dataclasses.field(default_factory=set)

    @property
    def proved(self) -> bool:
        """Whether all cases were followed and agree, and every kernel was reached."""
        return bool(self.outcomes) and not self.failures and not self.unreached

    @property
    def failures(self) -> list[Outcome]:
        """The cases that are not proved, the smallest first."""
        return sorted(
            (o for o in self.outcomes if not o.proved), key=lambda o: (bool(o.error), o.n_elements)
        )

    @property
    def unreached(self) -> list[str]:
        """Kernels and configurations that no case launched."""
        reached = set().union(*(o.reached for o in self.outcomes))
        return [f"{k} #{i}" for k, i in variants(twin_to_prove(self.name)) if (k, i) not in reached]

    @property
    def n_variants(self) -> int:
        """How many kernels with their configurations there are."""
        return len(variants(twin_to_prove(self.name)))

    @property
    def degree(self) -> float:
        """The greatest degree of what was compared."""
        return max((o.degree for o in self.outcomes), default=1.0)

    @property
    def bound(self) -> float:
        """The exponent of 2 of the chance that an element which differs passed in all fields."""
        return min(0.0, self.seeds * (math.log2(max(self.degree, 1.0)) - 30))

    def one_way(self, *, steered: bool) -> list[tuple[str, str, bool]]:
        """List decisions that shadows took one way only: line, operation, the way."""
        ways: dict[tuple[str, str], set[bool]] = {}
        for outcome in self.outcomes:
            if steered or not outcome.steer:
                for key, seen in outcome.decisions.items():
                    ways.setdefault(key, set()).update(seen)
        return sorted((*key, *seen) for key, seen in ways.items() if len(seen) == 1)  # type: ignore[misc]

    @property
    def loops_crossed(self) -> set[str]:
        """The loops that ran twice somewhere."""
        trips = (pair for outcome in self.outcomes for pair in outcome.trips.items())
        return {line for line, n in trips if n > 1}

    @property
    def loops_not_crossed(self) -> list[str]:
        """List loops that never ran twice: a second round of theirs is not looked at."""
        lines = {line for outcome in self.outcomes for line in outcome.trips}
        return sorted(lines - self.loops_crossed)

    def as_row(self) -> dict[str, Any]:
        """Describe it for a file."""
        before = self.one_way(steered=False)
        after = self.one_way(steered=True)
        counts: dict[str, int] = {}
        for outcome in self.outcomes:
            for name, count in outcome.counts.items():
                counts[name] = counts.get(name, 0) + count
        n_variants = self.n_variants
        return {
            "proof": "equal",
            "name": self.name,
            "proved": self.proved,
            "cases": len(self.outcomes),
            "elements": sum(o.n_elements for o in self.outcomes),
            "programs": sum(o.programs for o in self.outcomes),
            "kernels": f"{n_variants - len(self.unreached)}/{n_variants}",
            "seeds": self.seeds,
            "degree": self.degree,
            "bound_log2": round(self.bound, 1),
            "one_way": [list(one) for one in after],
            "steered": len(before) - len([one for one in before if one in after]),
            "loops_not_crossed": self.loops_not_crossed,
            "opaque_constants": sorted(self.opaque),
            "counts": counts,
            "unreached": self.unreached,
            "seconds": round(sum(o.seconds for o in self.outcomes), 2),
            "failures": [failure_as_json(o) for o in self.failures[:5]],
        }


def failure_as_json(outcome: Outcome) -> dict[str, Any]:
    """Describe a case that is not proved."""
    return {
        "case": outcome.case,
        "seed": outcome.seed,
        "steer": outcome.steer,
        "error": outcome.error,
        "differences": [str(one) for one in outcome.differences],
    }


def units_of(name: str, seeds: int) -> list[Unit]:
    """List what a twin's proof runs: its corners, and a case that crosses what they do not.

    Parameters
    ----------
    name : str
    seeds : int

    Returns
    -------
    list of Unit
    """
    cases = (*twin_to_prove(name).corners, *CROSSING.get(name, ()))
    return [Unit(name, case, seeds) for case in cases]


def steered_units(proof: Proof) -> list[Unit]:
    """List what is run again with shadows moved, if a decision went one way.

    The quickest cases, and the quickest that runs most loops twice: what one round leaves to the
    next, such as a running maximum, is decided there alone.
    """
    if not proof.one_way(steered=False):
        return []
    plain = [o for o in proof.outcomes if o.proved and o.seed == 0 and not o.steer]
    plain = [o for o in plain if o.case.get("configuration", 0) == 0]
    quickest = sorted(plain, key=lambda o: o.seconds)
    crossing = sorted(quickest, key=lambda o: -sum(n > 1 for n in o.trips.values()))
    cases: list[Case] = []
    for outcome in (*quickest[:STEERED_CORNERS], *crossing[:1]):
        case = {k: v for k, v in outcome.case.items() if k != "configuration"}
        if case not in cases:
            cases.append(case)
    return [Unit(proof.name, case, 1, steer) for case in cases for steer in STEERS[1:]]


def two_byte_units(proof: Proof) -> list[Unit]:
    """List what is run in bfloat16: all cases in one field, if float32 left a configuration out."""
    if not proof.unreached:
        return []
    return [dataclasses.replace(unit, dtype="bfloat16") for unit in units_of(proof.name, 1)]


def run_unit(unit: Unit) -> tuple[Unit, list[Outcome], set[float]]:
    """Run a unit's cases.

    Parameters
    ----------
    unit : Unit

    Returns
    -------
    Unit, list of Outcome, set of float
        The unit, what became of its cases, and the constants without a meaning.
    """
    twin = twin_to_prove(unit.name)
    outcomes = []
    with prepared(unit.name):
        for configuration in unit.configurations:
            for seed in range(unit.seeds):
                case = unit.case | {"configuration": configuration}
                case |= {} if unit.dtype == "float32" else {"dtype": unit.dtype}
                outcome = prove_case(twin, case, seed, unit.steer)
                if unit.steer and outcome.differences and TAKEN_FOR_0 in outcome.counts:
                    continue  # steered too far: one side may round to 0 what the other does not
                outcomes.append(outcome)
                if outcome.error:
                    break  # another field does not follow further
    return unit, outcomes, set(constants.opaque)


def run_units(units: Iterable[Unit], processes: int) -> Iterator[Any]:
    """Run units side by side, and yield what `run_unit` returns as they finish."""
    units = list(units)
    if processes == 1 or len(units) < 2:
        yield from map(run_unit, units)
        return
    with Workers(processes, _start_worker) as pool:
        for future in as_completed([pool.submit(run_unit, unit) for unit in units]):
            yield future.result()


def _start_worker() -> None:
    torch.set_num_threads(1)  # the workers share the cores
    os.environ.pop("TRITON_INTERPRET", None)


def prove_twins(
    names: list[str], seeds: int, processes: int, on_runs: Callable[[int, int], None]
) -> dict[str, Proof]:
    """Prove twins: their cases, then, where a decision went one way, those with shadows moved.

    And where float32 reached not all configurations, the cases in bfloat16.

    Parameters
    ----------
    names : list of str
    seeds : int
    processes : int
    on_runs : callable
        Called with how many runs were finished, and how many there are in all so far.

    Returns
    -------
    dict of str to Proof
    """
    proofs = {name: Proof(name, seeds) for name in names}
    done = total = 0
    first = [unit for name in names for unit in units_of(name, seeds)]
    first.sort(key=len, reverse=True)  # what takes long begins early
    for again in (False, True):
        units = (
            [u for p in proofs.values() for u in (*steered_units(p), *two_byte_units(p))]
            if again
            else first
        )
        total += sum(map(len, units))
        for unit, outcomes, opaque in run_units(units, processes):
            proofs[unit.name].outcomes += outcomes
            proofs[unit.name].opaque |= opaque
            done += len(unit)
            on_runs(done, total)
    return proofs
