"""What docs/hopper.md says of predicted times is what is stored of them."""

import re
from pathlib import Path

from gptwin.records import read_json_lines

ROOT = Path(__file__).resolve().parents[3]
NAMES = {"forward": "forward", "key_value": "d_key, d_value", "query": "d_query"}


def test_the_table_is_the_stored_estimates():
    _, *stored = read_json_lines(ROOT / "benchmarks/results/predict-hopper.jsonl")
    expected: dict[tuple[str, str], list[dict]] = {}
    for row in stored:
        kernel = re.sub(r".*attention_(backward_)?(.*)_kernel", r"\2", row["kernel"])
        expected.setdefault((row["shape"], NAMES[kernel]), []).append(row)
    shape, seen = "", 0
    for line in (ROOT / "docs/hopper.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) < 6 or cells[1] not in NAMES.values():
            continue
        shape = cells[0].partition(" (4k")[0] or shape
        plain, ours = expected[shape, cells[1]]
        assert (plain["kernels"], ours["kernels"]) == ("plain", "for Hopper")
        times = [row["microseconds"][0] for row in (plain, ours)]
        assert [float(cell.replace(",", "")) for cell in cells[2:4]] == [
            round(t, 1) if t < 100 else round(t) for t in times
        ]
        assert float(cells[4].partition("x")[0]) == round(times[0] / times[1], 2)
        # Rankings closer than the model's error mean nothing.
        assert ("says nothing" in cells[4]) is (1 / 1.2 < times[0] / times[1] < 1.2)
        assert cells[5] == f"{plain['tflops_per_s']}, {ours['tflops_per_s']}"
        seen += 1
    assert seen == len(expected) == 15
