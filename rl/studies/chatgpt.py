"""`make chatgpt`: the whole chain at a small size, on what ships with Python, graded at its end.

A model of less than a million parameters reads Python's documentation, learns from imperfect
demonstrations of `tasks.py`, is asked for several answers to each prompt that a noisy labeller
ranks, and is then improved against the reward model that learnt from those rankings. At the end
every stage is graded on exercises that none of them has seen, and held to a threshold
(verdicts.py).
"""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ...records import provenance, write_together
from ..configuration import (
    Configuration,
    ModelSettings,
    PPOSettings,
    PretrainSettings,
    RewardSettings,
    RunSettings,
    SFTSettings,
)
from ..judging.plots import CURVE, graded, learning_curves, over_optimisation
from ..pipeline import STAGES, Pipeline
from .verdicts import judge, markdown, table

# What fits in ten minutes on two cores. Everything else is InstructGPT's; these rates are for a
# model a thousand times smaller than its smallest.
SMALL = Configuration(
    model=ModelSettings(n_ctx=128, n_layer=3, n_head=4, d_model=128, vocab_size=1024),
    run=RunSettings(
        directory="runs/chatgpt", checkpoint_every=500, evaluate_every=0, evaluate_first=True
    ),
    pretrain=PretrainSettings(steps=300, batch=16, time=64, lr=4e-3, warmup=50),
    sft=SFTSettings(
        examples=56_000, epochs=1, batch=32, accumulate=4, lr=4e-3, warmup=50, dropout=0.0,
        carelessness=0.3, pretraining_share=0.1,
    ),
    # The rate is low: the SFT model can already copy, and the first steps of a head that starts
    # from noise must not undo that. At 1.5e-3 the same data end twice as far from the ceiling.
    reward=RewardSettings(prompts=48_000, k_max=6, epochs=1, batch=8, lr=5e-4, warmup=20),
    ppo=PPOSettings(
        episodes=3072, batch=128, minibatches=4, max_response=20, lr=3e-4, value_lr=1e-3, ptx=0.0
    ),
)  # fmt: skip
REPORT = "report.json"


def make_chatgpt(configuration: Configuration, *, resume: bool = False, quiet: bool = False) -> int:
    """Run the chain, print the table, draw the plots, and store all of it.

    Parameters
    ----------
    configuration : Configuration
        `SMALL`, perhaps changed.
    resume, quiet : bool
        As in `Pipeline`.

    Returns
    -------
    int
        0 if every stage passed, else 1.
    """
    pipeline = Pipeline(configuration, resume=resume, quiet=quiet)
    pipeline.all()
    started = time.monotonic()
    verdicts = judge(pipeline)
    console = Console()
    console.print(table(verdicts))
    for stage in STAGES:
        learning_curves(pipeline.folder(stage))
    curve = graded(pipeline.folder("ppo"))
    over_optimisation({"PPO": curve}, pipeline.folder("ppo") / CURVE)
    seconds = pipeline.seconds | {"judge": time.monotonic() - started}
    root = Path(configuration.run.directory)
    report: dict[str, Any] = made_with() | {
        "seed": configuration.run.seed,
        "seconds": seconds,
        "verdicts": [verdict.record() for verdict in verdicts],
        "curve": curve,
        "settings": dataclasses.asdict(configuration),
    }
    files = {"report.md": markdown(verdicts), REPORT: json.dumps(report, indent=1) + "\n"}
    write_together(root, files)
    console.print(
        f"{sum(seconds.values()) / 60:.1f} minutes. Report and plots: {root}. "
        f"Talk to it: gptwin chat {root}"
    )
    return 0 if all(verdict.passed for verdict in verdicts) else 1


def made_with() -> dict[str, Any]:
    """Say what the figures were made with: commit, versions, machine, threads and date."""
    return provenance("torch") | {"threads": torch.get_num_threads()}
