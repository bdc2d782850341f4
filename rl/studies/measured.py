"""The figures of docs/prompting.md, measured anew on three seeds.

    python -m gptwin.rl.studies.measured in_context     few-shot learning beside its ceiling
    python -m gptwin.rl.studies.measured techniques     every technique of `gptwin prompt`
    python -m gptwin.rl.studies.measured lineage        the five models of `gptwin train lineage`

What a seed found is kept in the directory of the runs, so that a study that was cut short goes on.
All of it is stored in rl/studies/results/: a line that says what it was made with, a line for each
count, and a picture.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...records import json_lines, read_json_lines, results_folder, write_whole
from . import in_context, lineage, technique_study
from .chatgpt import made_with

SEEDS = (0, 1, 2)
RESULTS = results_folder("rl/studies/results")
Rows = list[dict[str, Any]]


class Study(NamedTuple):
    """How one is made: a seed's rows, the settings to be stored, and the picture."""

    measure: Callable[[int, Path], Rows]
    settings: Callable[[], dict[str, Any]]
    draw: Callable[[Sequence[dict[str, Any]], Path], None]


STUDIES = {
    "in_context": Study(
        lambda seed, _: in_context.measure(seed),
        lambda: dataclasses.asdict(in_context.SETTINGS), in_context.draw,
    ),
    "techniques": Study(technique_study.measure, technique_study.about, technique_study.draw),
    "lineage": Study(
        lineage.measure_seed, lambda: dataclasses.asdict(lineage.SMALL), lineage.draw
    ),
}  # fmt: skip


def main(arguments: Iterable[str] | None = None) -> None:
    """Run the study that the command line names.

    Parameters
    ----------
    arguments : iterable of str, optional
        Instead of the command line's.
    """
    parser = argparse.ArgumentParser(prog="python -m gptwin.rl.studies.measured")
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--directory", default="runs/measured", help="of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, metavar="SEED")
    asked = parser.parse_args(None if arguments is None else list(arguments))
    study, directory = STUDIES[asked.study], Path(asked.directory)
    directory.mkdir(parents=True, exist_ok=True)
    rows: Rows = []
    for seed in asked.seeds:
        kept = directory / f"{asked.study}-{seed}.jsonl"
        if not kept.exists():
            write_whole(kept, json_lines(study.measure(seed, directory)))
        rows += read_json_lines(kept)
    RESULTS.mkdir(parents=True, exist_ok=True)
    head = made_with() | {"seeds": list(asked.seeds), "settings": study.settings()}
    write_whole(RESULTS / f"{asked.study}.jsonl", json_lines([head, *rows]))
    study.draw(rows, RESULTS / f"{asked.study}.png")


if __name__ == "__main__":
    main()
