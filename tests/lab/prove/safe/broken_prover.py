"""The prover, broken on purpose: each rule has a kernel that shows when it is gone.

    python tests/lab/prove/safe/broken_prover.py [NAME ...]            prints the verdicts as JSON
    python tests/lab/prove/safe/broken_prover.py --store [NAME ...]    keeps them in breaks.jsonl

proves the kernel that each break names, in a fork of its own where the break's file is replaced as
it is imported, and says whether it came out otherwise than it must. Nothing on disk changes. A
kernel `..._broken` must not be proved where its fault is, a `..._fixed` must be, whole, and the
contract of a `..._refused` must not be taken. With `--store` the prover as it stands is asked, too:
it must be right about each of these kernels.
"""

import functools
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[2] / "tools")]

from broken import Break, Ended, in_fork  # noqa: E402
from faults import FAULTS, OF_TABLES, SLOW_TRAPS, TRAPS  # noqa: E402

PACKAGE = "lab/prove/safe"
FILES = "small_kernels.py", "traps.py", "slow_traps.py", "tables.py", "swapped_ids.py"
STORED = HERE / "breaks.jsonl"
NOTICED = "noticed"

BOTH_WAIT = 'not (kinds <= {"load"} or kinds <= ATOMIC)'

# name: (file below lab/prove/safe, what stands there once, what takes its place, the kernel)
BREAKS = {
    # integers
    "a quotient drops what may carry over": (
        "symbolic/terms.py", "low >= 0 and high < b", "low >= 0 and high <= b",
        "carried_over_broken",
    ),
    "a quotient lies one lower than what bounds it": (
        "symbolic/terms.py", "return c * self.formula(q) < self.formula(u)",
        "return c * self.formula(q) + 1 < self.formula(u)", "last_row_broken",
    ),
    "a remainder may be as large as its divisor": (
        "symbolic/terms.py", "facts = [exact, rv < yv, qv <= xv]",
        "facts = [exact, rv <= yv, qv <= xv]", "rows_and_tiles_fixed",
    ),
    "a quotient and a remainder are any numbers": (
        "symbolic/terms.py", "facts = [exact, rv < yv, qv <= xv]", "facts = [rv < yv, qv <= xv]",
        "reversed_tiles_fixed",
    ),
    "by minus one any integer can be divided": (
        "symbolic/terms.py", "facts += [z3.Implies(yv < -1, fact)",
        "facts += [z3.Implies(yv < 0, fact)", "by_minus_one_broken",
    ),
    "the larger of two is the smaller": (
        "symbolic/terms.py", "[m >= xv, m >= yv] if largest else",
        "[m <= xv, m <= yv] if True else",
        "larger_of_two_broken",
    ),
    "a minimum may be anything below both": (
        "symbolic/terms.py", "known.facts += [z3.Or(m == xv, m == yv)]", "pass",
        "rows_of_a_group_fixed",
    ),
    "a choice takes the other side": (
        "symbolic/terms.py", "z3.Implies(z3.Not(condition), m == self.formula(y))",
        "z3.Implies(z3.Not(condition), m == self.formula(x))", "chosen_broken",
    ),
    "less or equal is less": (
        "symbolic/evaluate.py", '"slt": "lt", "sle": "le"', '"slt": "lt", "sle": "lt"',
        "off_by_one_broken",
    ),
    "an integer may be one larger than its type": (
        "asked/questions.py", "fits = z3.And(v >= low, v <= high)",
        "fits = z3.And(v >= low, v <= high + 1)", "one_too_large_broken",
    ),
    "a loop's counter may wrap": (
        "symbolic/walk.py", 'self.width("loop step", op.where, bits,',
        'self.width("loop step", op.where, 64,', "loop_counter",
    ),
    "an offset of 32 bits may wrap": (
        "symbolic/walk.py",
        "return value.type.is_pointer or BITS[value.element] == 64", "return True",
        "row_offset_broken",
    ),
    # bounds
    "an index may equal the length": (
        "asked/questions.py", "return z3.And(c >= 0, c < self.unknowns.formula(n))",
        "return z3.And(c >= 0, c <= self.unknowns.formula(n))", "last_row_broken",
    ),
    "an index may be negative": (
        "asked/questions.py", "return z3.And(c >= 0, c < self.unknowns.formula(n))",
        "return z3.And(c < self.unknowns.formula(n))", "gather_broken",
    ),
    "a mask is forgotten": (
        "asked/questions.py", "return [*access.path, *mask]", "return [*access.path]",
        "no_mask_fixed",
    ),
    "the other branch has the same condition": (
        "symbolic/walk.py", "sides = (condition, z3.Not(condition))",
        "sides = (condition, condition)", "other_branch_broken",
    ),
    "what no stride divides is left out": (
        "asked/questions.py", "if rest.terms else found", "if not rest.terms else found",
        "columns_left_over_broken",
    ),
    "an impossible access is called proved": (
        "asked/questions.py", "if reached.follows is False:", "if False:", "never_reached",
    ),
    "a contract that contradicts itself is taken": (
        "asked/questions.py", "if self.possible([]).follows is not True:", "if False:",
        "contradicted",
    ),
    "data lies where the contract says, read or not": (
        "symbolic/walk.py", "if reached else facts\n", "if False else facts\n",
        "nothing_read_broken",
    ),
    # loops
    "the last turn has one after it": (
        "symbolic/walk.py", "formula(count) < formula(high)", "formula(count) <= formula(high)",
        "nested_fixed",
    ),
    "what grows is taken at its start": (
        "symbolic/walk.py", "start.at(i) + turns * change.at(i)", "start.at(i)", "nested_broken",
    ),
    "what hangs on the turn counts as growing evenly": (
        "symbolic/walk.py", "if change.unknowns <= outside | mine:", "if True:",
        "moved_once_broken",
    ),
    "a while loop's condition does not hold within": (
        "symbolic/walk.py", "self.path.append(self.known[condition].number)",
        "self.path.append(z3.BoolVal(True))", "while_fixed",
    ),
    "all rows have their largest in one lane": (
        "symbolic/walk.py",
        'lane = self.unknowns.new("picked", 0, x.shape[axis] - 1)  # each row has its own',
        'lane = self.unknowns._made.setdefault("picked", None) or self.unknowns._made.__setitem__('
        '"picked", self.unknowns.new("picked", 0, x.shape[axis] - 1)) or '
        'self.unknowns._made["picked"]',
        "largest_of_each_row_broken",
    ),
    "an unknown operation touches no memory": (
        "symbolic/walk.py", 'return "pure = true" in op.text', "return True", "by_hand_broken",
    ),
    # tables of addresses
    "an element of any row is one of the first row's": (
        "asked/pointed.py", "self.problem.place_in(self.table, row, column)",
        "self.problem.place_in(self.table, row * 0, column)", "wrong_length_broken",
    ),
    "every column of a table holds addresses": (
        "asked/pointed.py", "if found is not None and self._holds_addresses(found[1]) and",
        "if found is not None and", "not_an_address_broken",
    ),
    "what holds before a loop holds after its turns": (
        "symbolic/invariants.py", "again = [guess for guess in kept if", "again = [guess for guess"
        " in kept if True or", "beyond_the_table_broken",
    ),
    "what a turn keeps need not hold before the first": (
        "symbolic/invariants.py", "kept = [guess for guess in guesses if", "kept = [guess for guess"
        " in guesses if True or", "copied_fixed",
    ),
    "any column of a table holds addresses": (
        "asked/pointed.py", "return bool(value(where.first) <= column < value(where.stop))",
        "return True", "a_number_as_address_broken",
    ),
    "a sum of two addresses is one": (
        "asked/pointed.py", " and not self._read_in(inside):", ":", "two_addresses_broken",
    ),
    "what is promised of one column holds of each": (
        "launches/contract.py", "and of_all and self.value(place.first) == column:", "and of_all:",
        "another_column_broken",
    ),
    "what is promised of one row holds of each": (
        "launches/contract.py", "of_all = place.row is None or place.row == row_number",
        "of_all = True", "another_row_broken",
    ),
    "numbers of any width are one tensor's elements": (
        "asked/questions.py", "pointed.column), width) == width", "pointed.column), width) > 0",
        "two_widths_broken",
    ),
    "what hangs on a turn's new value is the same in the next": (
        "symbolic/invariants.py", "unknowns.hangs_on(name, lasting)",
        "unknowns.hangs_on(name, lasting | new.unknowns)", "of_this_turn_broken",
    ),
    # races
    "two programs are always told apart": (
        "asked/races.py", "differ = z3.Or([formula(p) != self.other(formula(p))",
        "differ = z3.And(z3.BoolVal(False), *[formula(p) != self.other(formula(p))",
        "all_to_one_broken",
    ),
    "a load races with nobody": (
        "asked/races.py", BOTH_WAIT, 'kinds == {"store"}',
        "read_of_the_next_broken",
    ),
    "atomics race with each other": (
        "asked/races.py", BOTH_WAIT, 'kinds != {"load"}',
        "added_up_fixed",
    ),
    "steps of any length tell programs apart": (
        "asked/races.py", "steps = Poly({m: c // factor", "equal |= program.unknowns\n"
        "            steps = Poly({m: c // factor", "in_too_short_steps_broken",
    ),
    "steps as long as the grid tell nothing": (
        "asked/races.py", "self._walk_in_steps(place, known, equal)", "pass", "in_steps_fixed",
    ),
    "a quotient is below all that it might be below": (
        "asked/races.py", "if u.terms and self.solver.excludes(given, z3.Not(below)):",
        "if u.terms:", "shared_head_broken",
    ),
    "of two squares that are equal the roots are": (
        "asked/races.py", "single = [len(monomial) for monomial in x.terms] == [1]",
        "single = len(x.terms) == 1 and len(x.unknowns) == 1", "squared_broken",
    ),
    "of two numbers that differ the first is less": (
        "asked/races.py", "return [x < y, x > y]", "return [x < y]", "of_the_next_group_broken",
    ),
    "a compare-and-swap races with nobody": (
        "asked/races.py", BOTH_WAIT, BOTH_WAIT.replace("or", "or SWAP in kinds or"),
        "peeked_broken",
    ),
    "compare-and-swaps race with each other": (
        "asked/races.py", 'ATOMIC = {"atomic", SWAP}', 'ATOMIC = {"atomic"}', "claimed_fixed",
    ),
    # what a compare-and-swap finds, and what it writes
    "a compare-and-swap finds one of its own two numbers": (
        "symbolic/walk.py", "        access.loaded = read\n",
        "        if kind == SWAP:\n"
        "            two = [self.known[v] for v in op.operands[1:]]\n"
        "            read = self._either(result, self.unknowns.truth('expected'), *two)\n"
        "        access.loaded = read\n",
        "found_broken",
    ),
    "a compare-and-swap may write what nobody promised": (
        "asked/problem.py", "return all(solver.follows(access.path, one).follows for one in kept)",
        "return True", "swapped_ids_refused",
    ),
    "a compare-and-swap always writes": (
        "asked/written.py", "if access.kind != SWAP]", "if True]", "swapped_in_broken",
    ),
    # what is written
    "a minimum of anything keeps its name": (
        "asked/written.py", "if name in self.minima and self._is_of(name, chosen):",
        "if name in self.minima:", "another_half_broken",
    ),
    "what programs compute says that there is one": (
        "asked/written.py", "return any(problem.factors & unknowns.behind([v])[0]",
        "return False and any(problem.factors & unknowns.behind([v])[0]", "nobody_divides_broken",
    ),
    "what is likely true of digits is true": (
        "asked/written.py", "solver.follows(inside, hint, steps=LINEAR_STEPS).follows:", "True:",
        "a_row_left_out_broken",
    ),
    "a program beyond the grid may write": (
        "asked/written.py",
        "return all(solver.follows(inside, part).follows for part in way.exists) and all(",
        "return all(", "a_row_too_many_broken",
    ),
    "there is always a program": (
        "asked/written.py", "solver = questions.without_programs", "solver = questions.solver",
        "nobody_there_broken",
    ),
    "a store's mask need not hold": (
        "asked/written.py", "wanted = [\n            *premises,", "wanted = [\n",
        "unwritten_broken",
    ),
    "digits are read from the smallest": (
        "asked/written.py", "key=lambda n: _size(factors[n]), reverse=True",
        "key=lambda n: _size(factors[n]), reverse=False", "no_mask_fixed",
    ),
    # z3
    "what z3 gives up on is proved": (
        "symbolic/solver.py",
        "answer = Answer(None if answer.follows is None else not answer.follows, answer.model)",
        "answer = Answer(not answer.follows, answer.model)", "gives_up_broken",
    ),
    "what is at most another is multiplied as if it were less": (
        "symbolic/products.py", "if negated else -difference - strict",
        "if negated else -difference - 1", "up_to_n_broken",
    ),
    "what is unlike another is multiplied as if it were equal": (
        "symbolic/products.py", "if kind == z3.Z3_OP_EQ and not negated:",
        "if kind == z3.Z3_OP_EQ:", "unlike_n_broken",
    ),
    "what is not less is multiplied as if it were": (
        "symbolic/products.py", "negated = z3.is_not(formula)\n        inside = formula.arg(0) if "
        "negated else formula", "negated = False\n        inside = formula.arg(0) if "
        "z3.is_not(formula) else formula", "beyond_n_broken",
    ),
    "all products are one number": (
        "symbolic/solver.py", 'z3.Int("·".join(sorted(factor.sexpr() for factor in factors)))',
        'z3.Int("product")', "two_products_broken",
    ),
}  # fmt: skip


def wrong(kernel: str) -> str:
    """Prove a kernel, without running what is refuted; say what came out otherwise, if anything."""
    try:
        results = _proved(kernel)
    except ValueError:
        if kernel.endswith("_refused"):
            return ""
        raise
    open_kinds = {f.kind for r in results for f in r.findings if f.verdict != "proved"}
    verdicts = {f.verdict for r in results for f in r.findings}
    if kernel.endswith("_refused"):
        return "its contract was taken"
    if kernel == "contradicted":
        return "" if results[0].problem else "its contract was taken"
    if any(r.problem for r in results):
        raise ValueError(f"{kernel} was not followed: {results[0].problem}")
    if kernel == "never_reached":
        return "" if "never reached" in verdicts else "nothing was out of reach"
    if kernel.endswith("_fixed"):
        return f"not proved: {', '.join(sorted(open_kinds))}" if open_kinds else ""
    fault = (FAULTS | TRAPS | SLOW_TRAPS | OF_TABLES)[kernel]
    return "" if fault in open_kinds else f"its fault ({fault}) is called proved"


def _proved(kernel: str) -> list[Any]:
    from gptwin.lab.prove.safe.launches import compile as front_end
    from gptwin.lab.prove.safe.launches.calls import calls_of_file
    from gptwin.lab.prove.safe.launches.contract import read
    from gptwin.lab.prove.safe.prove import prove_variants

    with front_end.compiling():
        for file in FILES:
            module, variants = calls_of_file(str(HERE / file), "")
            own = [v for v in variants if v.kernel == kernel]
            if own:
                return list(prove_variants(own, read(module.CONTRACTS[kernel], kernel)))
    raise ValueError(f"{kernel}: expected a kernel of {', '.join(FILES)}")


def break_of(name: str) -> Break:
    """Return the change that a break is."""
    file, old, new, _ = BREAKS[name]
    return Break(f"{PACKAGE}/{file}", old, new)


def judge(name: str) -> str:
    """Say what became of a break: "noticed", "not noticed", or what went wrong in judging it."""
    return _verdict(in_fork(break_of(name), functools.partial(wrong, BREAKS[name][-1])))


def _verdict(ended: Ended) -> str:
    if ended.error or ended.signal:
        return ended.error or f"killed by signal {ended.signal}"
    return NOTICED if ended.said else "not noticed"


# --- what was found ------------------------------------------------------------------------------


def load() -> dict[str, dict[str, Any]]:
    """Read the verdicts that are stored, by the break's name."""
    from gptwin.lab.store import read_rows

    return {row["break"]: row for row in read_rows(STORED)["rows"]} if STORED.exists() else {}


def store(names: Iterable[str]) -> None:
    """Judge breaks, and keep each verdict as it comes."""
    from gptwin.lab.store import made_with, write_rows

    right: dict[str, str] = {}
    for name in names:
        kernel = BREAKS[name][-1]
        if kernel not in right:
            ended = in_fork(None, functools.partial(wrong, kernel))
            right[kernel] = ended.error or ended.said
        assert not right[kernel], (
            f"the prover as it stands is wrong about {kernel}: {right[kernel]}"
        )
        started = time.perf_counter()
        ended = in_fork(break_of(name), functools.partial(wrong, kernel))
        row = {
            "break": name, "file": BREAKS[name][0], "kernel": kernel, "verdict": _verdict(ended),
            "said": ended.said, "seconds": round(time.perf_counter() - started, 1),
        }  # fmt: skip
        print(json.dumps(row), flush=True)
        rows = load() | {name: row}
        write_rows(STORED, made_with(), [rows[known] for known in BREAKS if known in rows])


if __name__ == "__main__":
    for variable in ("TRITON_INTERPRET", "GPTWIN_BACKEND"):
        os.environ.pop(variable, None)
    # What takes long to import, and is the same in every fork.
    import hypothesis  # noqa: F401
    import numpy  # noqa: F401
    import torch  # noqa: F401
    import triton  # noqa: F401
    import z3  # noqa: F401

    assert "gptwin.lab.prove.safe" not in sys.modules
    if sys.argv[1:2] == ["--store"]:
        store(sys.argv[2:] or BREAKS)
    else:
        print(json.dumps({name: judge(name) for name in sys.argv[1:] or BREAKS}, indent=1))
