"""python -m gptwin.rl.studies.agents NAME...: measure claims anew, and store figures and pictures.

A study is a module beside this one with `run(seed)`, which returns rows for JSON, and
`draw(rows, folder)`, which draws the stored rows and returns the paths of its pictures.
"""

import argparse
import importlib
import time
from typing import Any

from ....records import json_lines, read_json_lines, results_folder, write_whole
from ..chatgpt import made_with

STUDIES = ("lamda", "lamda_tools", "sparrow", "hh", "director", "feedback")
SEEDS = (0, 1, 2)


def main() -> None:
    """Run the studies that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m gptwin.rl.studies.agents")
    parser.add_argument("studies", choices=STUDIES, nargs="+", metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, metavar="SEED")
    parser.add_argument("--keep", action="store_true", help="Keep the stored rows of other seeds.")
    asked = parser.parse_args()
    for name in asked.studies:
        measure(name, tuple(asked.seeds), keep=asked.keep)


def measure(name: str, seeds: tuple[int, ...], *, keep: bool = False) -> None:
    """Run a study seed by seed, and store what it found, beside other seeds' rows or instead."""
    study = importlib.import_module(f".{name}", __package__)
    results = results_folder("rl/studies/results")
    results.mkdir(parents=True, exist_ok=True)
    stored = results / f"agents-{name}.jsonl"
    rows: list[dict[str, Any]] = []
    earlier = 0.0  # seconds
    if keep:
        old, *kept = read_json_lines(stored)
        rows, earlier = [row for row in kept if row["seed"] not in seeds], old["cpu_seconds"]
    head, before = made_with(), time.process_time() - earlier
    for seed in seeds:  # stored after each: a study that is cut short keeps whole seeds
        rows += study.run(seed)
        head |= {"study": f"agents-{name}", "cpu_seconds": time.process_time() - before}
        write_whole(stored, json_lines([head, *rows]))
        print(f"{name}: seed {seed}, {head['cpu_seconds']:.0f} s of CPU", flush=True)
    for picture in study.draw(rows, results):
        print(picture)


if __name__ == "__main__":
    main()
