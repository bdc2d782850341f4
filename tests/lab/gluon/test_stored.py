"""What is stored of mutants: the page says what the file does, and each is found or harmless."""

import re
from collections import Counter
from pathlib import Path

from gptwin.records import read_json_lines

ROOT = Path(__file__).resolve().parents[3]
ROWS = read_json_lines(ROOT / "benchmarks/results/barriers.jsonl")[1:]


def test_every_stored_mutant_is_found_or_harmless() -> None:
    assert all(bool(row["found"]) != bool(row["why_harmless"]) for row in ROWS)


def test_the_page_says_what_is_stored() -> None:
    page = (ROOT / "docs/barriers.md").read_text(encoding="utf-8")
    said = re.findall(r"^\| .* \| (\d+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    groups = Counter(row["what"].partition(" ")[0] for row in ROWS)
    found = Counter(row["what"].partition(" ")[0] for row in ROWS if row["found"])
    counts = [(n, found[what], n - found[what]) for what, n in groups.items()]
    counts.append((len(ROWS), found.total(), len(ROWS) - found.total()))
    assert [tuple(map(int, row)) for row in said] == counts
    for kernel in {row["kernel"] for row in ROWS}:
        own = [row for row in ROWS if row["kernel"] == kernel]
        assert f"{sum(bool(row['found']) for row in own)} of {len(own)} found" in page
