"""What the pages say of mutants is what is stored."""

from pathlib import Path

from gptwin.lab.mutate import console, equivalent
from gptwin.lab.report.claims import MUTANTS
from gptwin.lab.store import read_rows
from gptwin.lab.twins.catalogue import TWINS

DOCS = Path(__file__).parents[3] / "docs"
ROWS = read_rows(MUTANTS)["rows"]


def test_the_table_of_scores_is_the_stored_one() -> None:
    assert (DOCS / "mutation.md").read_text(encoding="utf-8") == console._markdown(ROWS)


def test_of_every_twin_25_mutants_are_stored_and_of_adamw_60() -> None:
    least = dict.fromkeys(TWINS, 25) | {"adamw": 60}
    assert {row["twin"]: min(row["run"], least[row["twin"]]) for row in ROWS} == least
    assert all(row["score"] >= console.REQUIRED_SCORE for row in ROWS)


def test_the_page_has_a_row_for_every_survivor() -> None:
    stay = (DOCS / "mutate.md").read_text(encoding="utf-8").partition("Survivors that stay")[2]
    for row in ROWS:
        for name in row["survived"]:
            function = name.split()[1]
            assert f"| `{function}`: " in stay, name


def test_the_page_counts_what_is_listed_as_equivalent() -> None:
    said = [
        row["said"] for row in read_rows(equivalent.EQUIVALENT_FILE.with_suffix(".jsonl"))["rows"]
    ]
    told = f"Of the {len(said)} that are listed {said.count('equivalent')} are proved"
    assert told in (DOCS / "mutate.md").read_text(encoding="utf-8")
