"""Every barrier operation, left out, done wrong or swapped with its neighbour, is found."""

import functools
from collections.abc import Iterable

import pytest

from gptwin.lab.gluon.harmless import HARMLESS, why_harmless
from gptwin.lab.gluon.machine.findings import KINDS
from gptwin.lab.gluon.mutants import Verdict, mutants
from gptwin.lab.gluon.own import OWN

from .launches import LAUNCHES

LAUNCHED = OWN | LAUNCHES


@functools.cache
def verdicts(name: str) -> list[Verdict]:
    return [*mutants(LAUNCHED[name])]


@pytest.mark.parametrize("name", LAUNCHED)
def test_every_mutant_is_found_or_known_to_be_harmless(name: str) -> None:
    missed = [v for v in verdicts(name) if not v.found and not why_harmless(v)]
    assert not missed, "\n".join(map(str, missed))


@pytest.mark.parametrize("name", LAUNCHED)
def test_what_is_found_is_named(name: str) -> None:
    """Nothing is found by its numbers alone, or because the model fails."""
    unnamed = [v for v in verdicts(name) if v.found in ("other results", "failure")]
    assert not unnamed, "\n".join(map(str, unnamed))


@pytest.mark.parametrize(
    ("name", "schedule"), [("double", "ahead"), ("double", "7"), ("attend", "ahead")]
)
def test_what_one_order_shows_every_order_shows(name: str, schedule: str) -> None:
    """The model says so of all orders: here of the most distant ones, mutant by mutant."""

    def noticed(judged: Iterable[Verdict]) -> dict[tuple[str, ...], bool]:
        return {(v.what, v.kind, v.at, v.text): bool(v.found) for v in judged}

    others = mutants(LAUNCHED[name], schedule=schedule)
    assert noticed(verdicts(name)) == noticed(others)


def test_every_kind_of_finding_is_some_mutants() -> None:
    found = {v.found for name in LAUNCHED for v in verdicts(name)}
    assert set(KINDS) - found == {
        "failure", "out of bounds",  # no barrier's; test_play.py has them
        "wait passes early",  # test_barrier.py
        "unordered writes",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "n"), [("double", 4), ("attend", 13)])
def test_no_more_is_harmless_than_was_looked_at(name: str, n: int) -> None:
    """A model that found less would call more harmless."""
    assert sum(not v.found for v in verdicts(name)) == n


def test_every_reason_is_some_mutants() -> None:
    reasons = {why_harmless(v) for name in LAUNCHED for v in verdicts(name) if not v.found}
    assert {reason for *_, reason in HARMLESS} == reasons
