"""python -m gptwin.rl.studies.gpt NAME...: measure studies anew, and store figures and pictures.

Those that are asked for together share the models that have read the world.
"""

import argparse
import time
from typing import Any

from ....records import json_lines, results_folder, write_whole
from ..chatgpt import made_with
from . import fine_tuning, leaks, mixing, scoring, world

STUDIES = {
    "fine-tuning": fine_tuning,
    "scoring": scoring,
    "mixing": mixing,
    "leaks": leaks,
}


def main() -> None:
    """Run the studies that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m gptwin.rl.studies.gpt")
    parser.add_argument("studies", choices=STUDIES, nargs="+", metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=world.SEEDS, metavar="SEED")
    asked = parser.parse_args()
    for name in asked.studies:
        measure(name, tuple(asked.seeds))


def measure(name: str, seeds: tuple[int, ...]) -> None:
    """Run a study, and store what it found."""
    results = results_folder("rl/studies/results")
    results.mkdir(parents=True, exist_ok=True)
    head, before = made_with(), time.process_time()
    rows: list[dict[str, Any]] = []
    for seed in seeds:  # stored after each: a study that is cut short keeps whole seeds
        rows += STUDIES[name].run((seed,))
        head |= {"study": name, "cpu_seconds": time.process_time() - before}
        write_whole(results / f"gpt-{name}.jsonl", json_lines([head, *rows]))
        picture = STUDIES[name].draw(rows, results / f"gpt-{name}.png")
        print(f"{picture}: seed {seed}, {head['cpu_seconds']:.0f} s of CPU", flush=True)


if __name__ == "__main__":
    main()
