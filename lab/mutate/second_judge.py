"""The second judge of mutants: whether one that no check noticed is the same function.

`verify` compares within a tolerance, so a mutant may survive that changes a result by less. Each
survivor is asked of `gptwin prove --equal`: at the twin's corners, in every configuration, over a
finite field. One that is proved equal is equivalent, on the branches taken; one that differs is
alive, and the twin's checks are to be mended. Kernels are compiled for that, not interpreted, in
processes of their own.

Not judged is what real numbers cannot tell: roundings, dtypes, and what is decided where two
floats are equal.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...kernels.common.launch import INTERPRETED
from ..processes import Workers
from .mutants import Mutant

# Seconds of the processor after which a mutant is given up.
PATIENCE = 60.0
# Faults that are equal on real numbers, whatever they do to floats.
ROUNDINGS = frozenset(("precision lowered", "accumulator lowered"))


@dataclasses.dataclass(frozen=True)
class Opinion:
    """What the second judge says of a mutant.

    Attributes
    ----------
    equal : bool or None
        None if it could not be judged.
    why : str
    """

    equal: bool | None
    why: str

    def __str__(self) -> str:
        """Say it in a line."""
        word = {True: "equivalent", False: "alive", None: "not judged"}[self.equal]
        return f"{word}: {self.why}"


def opinions(
    mutants: Sequence[tuple[str, Mutant]],
    processes: int,
    on_opinion: Callable[[], None] = lambda: None,
) -> dict[Mutant, Opinion]:
    """Judge mutants side by side.

    Parameters
    ----------
    mutants : sequence of (str, Mutant)
        Each with the twin that answers for it.
    processes : int
        1 starts none, if kernels are compiled here.
    on_opinion : callable
        Called after each.

    Returns
    -------
    dict of Mutant to Opinion
    """
    said: dict[Mutant, Opinion] = {}
    if not mutants:
        return said
    if processes == 1 and not INTERPRETED:
        for name, mutant in mutants:
            said[mutant] = opinion(name, mutant)
            on_opinion()
        return said
    with _compiling(), Workers(min(processes, len(mutants))) as pool:
        asked = [pool.submit(opinion, name, mutant) for name, mutant in mutants]
        for (_, mutant), job in zip(mutants, asked, strict=True):
            said[mutant] = job.result()
            on_opinion()
    return said


@contextlib.contextmanager
def _compiling() -> Iterator[None]:
    """Start processes whose kernels are not interpreted."""
    before = os.environ.pop("TRITON_INTERPRET", None)
    try:
        yield
    finally:
        if before is not None:
            os.environ["TRITON_INTERPRET"] = before


def opinion(name: str, mutant: Mutant) -> Opinion:
    """Judge one mutant, in a process whose kernels are not interpreted.

    Parameters
    ----------
    name : str
        The twin.
    mutant : Mutant

    Returns
    -------
    Opinion
    """
    import inspect

    from ..prove.equal.edits import edited
    from ..prove.equal.preparation import prepared, twin_to_prove
    from ..prove.equal.proofs import Proof, run_unit, steered_units, units_of
    from .install import ROOT, module_of
    from .mutants import source_of

    if mutant.operator in ROUNDINGS:
        return Opinion(None, "it changes roundings, which real numbers have not")
    twin_to_prove(name)  # imports a user's module, too
    path = ROOT / mutant.file
    module = module_of(path)
    found = inspect.getattr_static(module, mutant.function.split(".")[0])
    if hasattr(found, "approximation"):
        return Opinion(None, "it is in an approximation, which the proof replaces")
    source, started = mutant.apply(source_of(path)), time.process_time()
    proof = Proof(name, 1)
    try:
        with prepared(name), edited(module.__name__, mutant.function, source):
            for steered in (False, True):
                for unit in steered_units(proof) if steered else units_of(name, 1):
                    _, outcomes, _ = run_unit(unit)
                    proof.outcomes += outcomes
                    if failed := next((o for o in outcomes if not o.proved), None):
                        if failed.error:
                            return Opinion(None, failed.error)
                        return Opinion(False, f"{failed.differences[0]}, in {failed.case}")
                    if time.process_time() - started > PATIENCE:
                        return Opinion(None, f"equal in {len(proof.outcomes)} runs, out of time")
    except Exception as error:  # what a mutant raises
        return Opinion(None, f"{type(error).__name__}: {str(error)[:200]}")
    if _moves_a_bound(mutant) and _compares_floats(mutant, proof):
        return Opinion(None, "it differs where two floats are equal, and none are drawn so")
    return Opinion(True, f"proved equal in {len(proof.outcomes)} runs")


def _moves_a_bound(mutant: Mutant) -> bool:
    """Say whether < becomes <=, or the like."""
    before, after = (text.replace("=", "") for text in (mutant.original, mutant.replacement))
    return mutant.operator == "bound off by one" and before == after


def _compares_floats(mutant: Mutant, proof: Any) -> bool:
    """Say whether floats are compared in the mutant's statement."""
    file, (first, last) = mutant.file.rpartition("/")[2], mutant.lines
    lines = {f"{file}:{line}" for line in range(first, last + 1)}
    decided = (key for outcome in proof.outcomes for key in outcome.decisions)
    return any(line in lines and operation == "arith.cmpf" for line, operation in decided)
