"""Each stage of `make chatgpt` held to a threshold, on exercises that no stage has seen.

Gold rewards of two stages are compared prompt by prompt: both answer the same ones, and the mean of
the differences has an interval of its own, narrower than those of the two means, because a hard
prompt is hard for both.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

from ..data import sources
from ..judging.evaluation import Grades, gain, grade
from ..judging.sampled_rankings import ceiling, sample_rankings
from ..pipeline import Pipeline
from ..training.run import read_log

HELD_OUT_PROMPTS = 800
# What is asked: a nat a token below a model that knows only how frequent each token is; half of the
# gold reward that can be had; and Bradley and Terry's ceiling, less this.
NATS_BELOW_UNIGRAMS = 1.0
SFT_GOLD = 0.5
REWARD_BELOW_CEILING = 0.05
HEADER = ("stage", "held-out loss", "gold ± 95%", "pass rate", "threshold", "")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One stage held to its threshold.

    Attributes
    ----------
    stage : str
    loss : float
        On held-out data; PPO's is its last step's objective.
    grades : Grades or None
        Of the stage's model; the reward model does not talk.
    threshold : str
        What is asked and what was reached, in words and numbers.
    passed : bool
    """

    stage: str
    loss: float
    grades: Grades | None
    threshold: str
    passed: bool

    def cells(self) -> tuple[str, ...]:
        """Return the table's row, under `HEADER`."""
        grades = self.grades
        return (
            self.stage,
            f"{self.loss:.3f}",
            f"{grades.mean:.3f} ± {grades.interval:.3f}" if grades else "",
            f"{grades.pass_rate:.0%}" if grades else "",
            self.threshold,
            "pass" if self.passed else "FAIL",
        )

    def record(self) -> dict[str, Any]:
        """Return the same for a file, and the gold reward of each family of exercises."""
        found: dict[str, Any] = {"stage": self.stage, "loss": self.loss}
        if self.grades:
            found |= {
                "gold": self.grades.mean,
                "interval": self.grades.interval,
                "pass_rate": self.grades.pass_rate,
                "families": self.grades.by_family(),
            }
        return found | {"threshold": self.threshold, "passed": self.passed}


def judge(pipeline: Pipeline) -> list[Verdict]:
    """Hold every stage to its threshold.

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
    from_pretraining, from_sft = gain(tuned, pretrained), gain(improved, tuned)
    best, reached = _reward_accuracy(pipeline)
    loss = {s: _last(pipeline, s, "validation_loss") for s in ("pretrain", "sft", "reward")}
    unigrams = unigram_loss(pipeline)
    return [
        Verdict(
            "pretrain", loss["pretrain"], pretrained,
            f"loss at least {NATS_BELOW_UNIGRAMS:g} below the {unigrams:.2f} of token frequencies",
            loss["pretrain"] < unigrams - NATS_BELOW_UNIGRAMS,
        ),
        Verdict(
            "sft", loss["sft"], tuned,
            f"gold above {SFT_GOLD}, and above pretraining's: gain {_shown(from_pretraining)}",
            tuned.mean > SFT_GOLD and from_pretraining[0] > from_pretraining[1],
        ),
        Verdict(
            "reward", loss["reward"], None,
            f"accuracy {reached:.3f}, at most {REWARD_BELOW_CEILING} below the ceiling {best:.3f}",
            reached >= best - REWARD_BELOW_CEILING,
        ),
        Verdict(
            "ppo", _last(pipeline, "ppo", "loss"), improved,
            f"gold above SFT's: gain {_shown(from_sft)}, the interval above 0",
            from_sft[0] > from_sft[1],
        ),
    ]  # fmt: skip


def unigram_loss(pipeline: Pipeline) -> float:
    """Return what text costs a model that knows each token's frequency, and nothing before it.

    Parameters
    ----------
    pipeline : Pipeline
        Its pretraining text is counted, and its held-out windows are measured.

    Returns
    -------
    float
        In nats a token.
    """
    training, windows = pipeline.pretraining_text
    n_tokens = pipeline.tokenizer.vocab_size
    counts = np.bincount(training, minlength=n_tokens) + 1
    said = np.concatenate([window.tokens[1:] for window in windows])
    return float(-np.log(counts[said] / counts.sum()).mean())


def table(verdicts: Sequence[Verdict]) -> Table:
    """Lay verdicts out for a terminal."""
    shown = Table(*HEADER)
    for verdict in verdicts:
        shown.add_row(*verdict.cells())
    return shown


def markdown(verdicts: Sequence[Verdict]) -> str:
    """Lay verdicts out for a file."""
    rows = [HEADER, ("---",) * len(HEADER), *(verdict.cells() for verdict in verdicts)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _grades(pipeline: Pipeline, stage: str) -> Grades:
    held_out = sources.drawn(1, HELD_OUT_PROMPTS, held_out=True)
    prompts = sources.exercise_prompts(pipeline.template, held_out)
    limit = pipeline.configuration.ppo.max_response
    return grade(pipeline.model_of(stage), pipeline.template, prompts, max_response=limit)


def _shown(gained: tuple[float, float]) -> str:
    return f"{gained[0]:.3f} ± {gained[1]:.3f}"


def _reward_accuracy(pipeline: Pipeline) -> tuple[float, float]:
    """Return Bradley and Terry's ceiling on held-out pairs, and what the reward model reached."""
    c = pipeline.configuration
    validation = sample_rankings(
        pipeline.model_of("sft"), pipeline.template, c.reward, c.ppo.max_response, c.run.seed,
        held_out=True,
    )  # fmt: skip
    return ceiling(validation, c.reward.noise), _last(pipeline, "reward", "validation_accuracy")


def _last(pipeline: Pipeline, stage: str, name: str) -> float:
    return next(r[name] for r in reversed(read_log(pipeline.folder(stage))) if name in r)
