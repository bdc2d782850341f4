"""The pipeline's figures, measured anew: what README quotes comes from here.

    python -m gptwin.rl.studies.reproduce seeds      the chain of `make chatgpt` on three seeds
    python -m gptwin.rl.studies.reproduce ptx        PPO from their models, for several γ of PPO-ptx
    python -m gptwin.rl.studies.reproduce distance   PPO from their models for longer, without the
                                                     KL penalty: how far to trust the reward model

Runs go to a directory of their own and are not done twice: a study that was cut short goes on. The
figures and the pictures are stored in rl/studies/results/: a line that says what they were made
with (commit, machine, settings), and a line for each run.
"""

import argparse
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...records import json_lines, results_folder, write_whole
from ..configuration import Configuration, PPOSettings
from ..judging.plots import graded, over_optimisation
from ..pipeline import Pipeline
from ..training.run import Statistics
from .chatgpt import REPORT, SMALL, made_with, make_chatgpt

SEEDS = (0, 1, 2)
GAMMAS = (0.0, 0.1, 1.0)
RESULTS = results_folder("rl/studies/results")
# What PPO starts from.
SHARED = ("tokenizer", "pretrain", "sft", "reward")


def seeds(
    directory: Path, configuration: Configuration = SMALL, which: Sequence[int] = SEEDS
) -> list[dict[str, Any]]:
    """Run the chain on every seed.

    Parameters
    ----------
    directory : pathlib.Path
        Where the runs are: seed-0 and so on.
    configuration : Configuration
        Of each, but for its directory and seed.
    which : sequence of int
        The seeds.

    Returns
    -------
    list of dict
        The report of each.
    """
    for seed in which:
        if not (directory / f"seed-{seed}" / REPORT).exists():
            make_chatgpt(_placed(configuration, directory / f"seed-{seed}", seed), resume=True)
    reports = [json.loads((directory / f"seed-{seed}" / REPORT).read_text()) for seed in which]
    curves = {f"seed {report['seed']}": report["curve"] for report in reports}
    over_optimisation(curves, RESULTS / "chatgpt.png")
    return reports


def ptx(
    directory: Path, configuration: Configuration = SMALL, which: Sequence[int] = SEEDS
) -> list[dict[str, Any]]:
    """Improve the same SFT models with PPO-ptx for several γ.

    Parameters
    ----------
    directory, configuration, which
        As in `seeds`, whose runs must be there.

    Returns
    -------
    list of dict
        For each γ and seed the pretraining loss and gold reward, before and after.
    """
    rows: list[dict[str, Any]] = []
    for gamma in GAMMAS:
        changed = dataclasses.replace(configuration.ppo, ptx=gamma, ptx_ratio=1)
        name = f"ptx-{gamma:g}"
        for seed, curve in _improved(directory, name, configuration, changed, which).items():
            first, last = curve[0], curve[-1]
            rows.append({"gamma": gamma, "seed": seed, "before": first, "after": last})
            print(
                f"γ {gamma:<5g} seed {seed}: held-out pretraining loss "
                f"{first['validation_pretraining_loss']:.3f} -> "
                f"{last['validation_pretraining_loss']:.3f}, gold "
                f"{first['validation_gold']:.3f} -> {last['validation_gold']:.3f}"
            )
    return rows


def distance(
    directory: Path, configuration: Configuration = SMALL, which: Sequence[int] = SEEDS
) -> list[dict[str, Any]]:
    """Follow the reward model farther than is wise: no KL penalty, twice the episodes.

    Parameters
    ----------
    directory, configuration, which
        As in `seeds`, whose runs must be there.

    Returns
    -------
    list of dict
        Each seed's curve of proxy and gold reward.
    """
    episodes = 2 * configuration.ppo.episodes
    changed = dataclasses.replace(configuration.ppo, kl_coefficient=0.0, episodes=episodes)
    curves = _improved(directory, "distance", configuration, changed, which)
    over_optimisation({f"seed {s}": c for s, c in curves.items()}, RESULTS / "distance.png")
    return [{"seed": seed, "curve": curve} for seed, curve in curves.items()]


def _improved(
    directory: Path,
    name: str,
    configuration: Configuration,
    settings: PPOSettings,
    which: Sequence[int],
) -> Mapping[int, Sequence[Statistics]]:
    """Run PPO from each seed's SFT and reward model; return what was graded on the way."""
    curves = {}
    for seed in which:
        begun, root = directory / f"seed-{seed}", directory / name / f"seed-{seed}"
        changed = dataclasses.replace(_placed(configuration, root, seed), ppo=settings)
        pipeline = Pipeline(changed, resume=True)
        if not pipeline.ended("ppo"):
            for part in SHARED:
                shutil.copytree(
                    begun / part, root / part, dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("checkpoints"),
                )  # fmt: skip
            pipeline.ppo()
        curves[seed] = graded(pipeline.folder("ppo"))
    return curves


def _placed(configuration: Configuration, root: Path, seed: int) -> Configuration:
    run = dataclasses.replace(configuration.run, directory=str(root), seed=seed)
    return dataclasses.replace(configuration, run=run)


STUDIES: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "seeds": seeds,
    "ptx": ptx,
    "distance": distance,
}


def main(arguments: Iterable[str] | None = None) -> None:
    """Run the study that the command line names.

    Parameters
    ----------
    arguments : iterable of str, optional
        Instead of the command line's.
    """
    parser = argparse.ArgumentParser(prog="python -m gptwin.rl.studies.reproduce")
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--directory", default="runs/reproduce", help="of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, metavar="SEED")
    asked = parser.parse_args(None if arguments is None else list(arguments))
    RESULTS.mkdir(parents=True, exist_ok=True)
    found = STUDIES[asked.study](Path(asked.directory), which=asked.seeds)
    head = made_with() | {"settings": dataclasses.asdict(SMALL)}
    write_whole(RESULTS / f"{asked.study}.jsonl", json_lines([head, *found]))


if __name__ == "__main__":
    main()
