"""What docs/sanitize.md says of our own kernels is what is stored of them."""

from pathlib import Path

from gptwin.lab.sanitize.own_twins import IN_PLACE
from gptwin.lab.store import read_rows
from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.twins.twin import DTYPES

ROOT = Path(__file__).resolve().parents[3]
STORED = read_rows(ROOT / "benchmarks/results/sanitize.jsonl")
ROWS = STORED["rows"]


def test_every_twin_was_run_in_every_configuration_and_nothing_found() -> None:
    assert {row["name"] for row in ROWS} == {*TWINS, *IN_PLACE}
    assert STORED["tiles"] == "every" and set(STORED["dtypes"]) == set(DTYPES)
    assert not any(row["unreached"] or row["findings"] or row["problem"] for row in ROWS)
    assert STORED["passed"]


def test_the_page_says_what_is_stored() -> None:
    page = (ROOT / "docs/sanitize.md").read_text(encoding="utf-8")
    cases, launches, accesses = (
        sum(row[key] for row in ROWS) for key in ("cases", "launches", "accesses")
    )
    told = f"{cases:,} cases, {launches:,} launches, {accesses:,} accesses, nothing\nfound"
    assert told in page and f"({STORED['date'][:10]}, commit {STORED['commit'][:7]})" in page
