"""python -m gptwin.rl.studies.gpt NAME: measure a study anew, and store its figures and picture."""

import argparse
import time

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
    """Run the study that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m gptwin.rl.studies.gpt", description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", type=int, nargs="+", default=world.SEEDS, metavar="SEED")
    asked = parser.parse_args()
    study = STUDIES[asked.study]
    results = results_folder("rl/studies/results")
    results.mkdir(parents=True, exist_ok=True)
    head, before = made_with(), time.process_time()
    rows = study.run(tuple(asked.seeds))
    head |= {"study": asked.study, "cpu_seconds": time.process_time() - before}
    name = f"gpt-{asked.study}"
    write_whole(results / f"{name}.jsonl", json_lines([head, *rows]))
    print(f"{study.draw(rows, results / f'{name}.png')}: {head['cpu_seconds']:.0f} s of CPU")


if __name__ == "__main__":
    main()
