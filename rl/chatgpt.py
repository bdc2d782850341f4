"""`make chatgpt`: the whole chain at a small size, on what ships with Python, graded at its end.

A model of about a million parameters reads Python's documentation, learns from imperfect
demonstrations of `tasks.py`, is asked for several answers to each prompt that a noisy labeller
ranks, and is then improved against the reward model that learnt from those rankings. At the end
every stage is graded on exercises that none of them has seen, and held to a threshold.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from . import sources
from .configuration import (
    Configuration,
    ModelSettings,
    PPOSettings,
    PretrainSettings,
    RewardSettings,
    RunSettings,
    SFTSettings,
)
from .evaluation import Grades, grade
from .files import text_writer, write_together
from .pipeline import Pipeline
from .plots import learning_curves, over_optimisation
from .run import read_log
from .sampled_rankings import ceiling, sample_rankings

# What fits in ten minutes on two cores. Everything else is InstructGPT's; these rates are for a
# model a thousand times smaller than its smallest.
SMALL = Configuration(
    model=ModelSettings(n_ctx=128, n_layer=4, n_head=4, d_model=128, vocab_size=640),
    run=RunSettings(directory="runs/chatgpt", checkpoint_every=500, evaluate_every=250),
    pretrain=PretrainSettings(steps=300, batch=16, time=64, lr=2e-3, warmup=50),
    sft=SFTSettings(
        examples=12_000, epochs=3, batch=32, lr=2e-3, warmup=50, dropout=0.0, carelessness=0.3
    ),
    reward=RewardSettings(prompts=1200, epochs=2, batch=32, lr=5e-4, warmup=10, k_max=6),
    ppo=PPOSettings(
        episodes=4096, batch=128, minibatches=4, max_response=16, lr=2e-4, value_lr=5e-4, ptx=0.0
    ),
)
HELD_OUT_PROMPTS = 400
# Above chance of what the exercises allow, and what each stage must add to the one before.
SFT_GOLD = 0.5
REWARD_BELOW_CEILING = 0.05


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One stage held to its threshold.

    Attributes
    ----------
    stage : str
    loss : float
        On held-out data.
    grades : Grades or None
        Of the stage's model; the reward model does not talk.
    threshold : str
        What is asked, in words and numbers.
    passed : bool
    """

    stage: str
    loss: float
    grades: Grades | None
    threshold: str
    passed: bool


def make_chatgpt(configuration: Configuration, *, resume: bool = False, quiet: bool = False) -> int:
    """Run the chain, print the table, draw the plots.

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
    started = time.monotonic()
    pipeline = Pipeline(configuration, resume=resume, quiet=quiet)
    pipeline.all()
    verdicts = judge(pipeline)
    console = Console()
    console.print(_table(verdicts))
    for stage in ("pretrain", "sft", "reward", "ppo"):
        learning_curves(pipeline.folder(stage))
    over_optimisation(pipeline.folder("ppo"))
    root = Path(configuration.run.directory)
    write_together(root, {"report.md": text_writer(_markdown(verdicts))})
    minutes = (time.monotonic() - started) / 60
    console.print(
        f"{minutes:.1f} minutes. Report and plots: {root}. Talk to it: gptwin chat {root}"
    )
    return 0 if all(verdict.passed for verdict in verdicts) else 1


def judge(pipeline: Pipeline) -> list[Verdict]:
    """Grade each stage on exercises that none has seen, and hold it to its threshold.

    Parameters
    ----------
    pipeline : Pipeline
        Whose stages have ended.

    Returns
    -------
    list of Verdict
        In the order of the stages.
    """
    pretrained, tuned, improved = (_grades(pipeline, s) for s in ("pretrain", "sft", "ppo"))
    noise = (tuned.interval**2 + improved.interval**2) ** 0.5
    best, reached = _reward_accuracy(pipeline)
    first = read_log(pipeline.folder("pretrain"))[0]["loss"]
    return [
        Verdict(
            "pretrain", _loss(pipeline, "pretrain"), pretrained,
            f"loss below half of the first step's {first:.2f}",
            _loss(pipeline, "pretrain") < first / 2,
        ),
        Verdict(
            "sft", _loss(pipeline, "sft"), tuned,
            f"gold above {SFT_GOLD}, and above pretraining's {pretrained.mean:.2f}",
            tuned.mean > max(SFT_GOLD, pretrained.mean + pretrained.interval + tuned.interval),
        ),
        Verdict(
            "reward", _loss(pipeline, "reward"), None,
            f"accuracy {reached:.3f}, at most {REWARD_BELOW_CEILING} below the ceiling {best:.3f}",
            reached >= best - REWARD_BELOW_CEILING,
        ),
        Verdict(
            "ppo", read_log(pipeline.folder("ppo"))[-1]["loss"], improved,
            f"gold above SFT's {tuned.mean:.3f} by more than the noise, {noise:.3f}",
            improved.mean - tuned.mean > noise,
        ),
    ]  # fmt: skip


def _grades(pipeline: Pipeline, stage: str) -> Grades:
    held_out = sources.drawn(1, HELD_OUT_PROMPTS, held_out=True)
    prompts = sources.exercise_prompts(pipeline.template, held_out)
    with torch.no_grad():
        limit = pipeline.configuration.ppo.max_response
        return grade(pipeline.model_of(stage), pipeline.template, prompts, max_response=limit)


def _reward_accuracy(pipeline: Pipeline) -> tuple[float, float]:
    """Return Bradley and Terry's ceiling on held-out pairs, and what the reward model reached."""
    c = pipeline.configuration
    validation = sample_rankings(
        pipeline.model_of("sft"), pipeline.template, c.reward, c.ppo.max_response, c.run.seed,
        held_out=True,
    )  # fmt: skip
    return ceiling(validation, c.reward.noise), _last(pipeline, "reward", "validation_accuracy")


def _loss(pipeline: Pipeline, stage: str) -> float:
    return _last(pipeline, stage, "validation_loss")


def _last(pipeline: Pipeline, stage: str, name: str) -> float:
    return next(r[name] for r in reversed(read_log(pipeline.folder(stage))) if name in r)


HEADER = ("stage", "loss", "gold ± 95%", "pass rate", "threshold", "")


def _cells(verdict: Verdict) -> tuple[str, ...]:
    grades = verdict.grades
    return (
        verdict.stage,
        f"{verdict.loss:.3f}",
        f"{grades.mean:.3f} ± {grades.interval:.3f}" if grades else "",
        f"{grades.pass_rate:.0%}" if grades else "",
        verdict.threshold,
        "pass" if verdict.passed else "FAIL",
    )


def _table(verdicts: Sequence[Verdict]) -> Table:
    table = Table(*HEADER)
    for verdict in verdicts:
        table.add_row(*_cells(verdict))
    return table


def _markdown(verdicts: Sequence[Verdict]) -> str:
    rows = [HEADER, ("---",) * len(HEADER), *(_cells(verdict) for verdict in verdicts)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
