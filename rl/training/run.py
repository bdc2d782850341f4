"""One run of one stage: its folder, its log, its progress, and how it stops and goes on.

    runs/chat/ppo/
      settings.toml     the resolved settings: `gptwin train ppo --config` takes it
      log.jsonl         every statistic of every step: see log.py
      checkpoints/      see checkpoint.py
      ended.json        once the stage has ended: from what, and what it left (inputs.py)
      plots/            learning curves
      tensorboard/      the same numbers, if `run.tensorboard`

A stage (`Stage`) says what one step does and what its state is; `train` does the rest, alike for
all stages: progress with tokens per second and time left, the log, evaluations, checkpoints,
resuming bit for bit, a clean end on Ctrl-C, and a stop that names the statistic on the first number
that is not finite, before it reaches a checkpoint.
"""

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ...core.checks import refuse
from ...kernels.common import launch
from ...records import write_whole
from ..configuration import Configuration, dump
from ..formats import checkpoint
from ..ranks.group import ALONE, SEED_STRIDE, Group
from .inputs import ENDED, Inputs, expect_same_inputs, settings_of
from .log import LOG, Log, read_log

__all__ = [
    "CHECKPOINTS", "LOG", "SETTINGS", "Interrupted", "Stage", "Statistics", "read_log", "train",
]  # fmt: skip
SETTINGS, CHECKPOINTS = "settings.toml", "checkpoints"
Statistics = dict[str, float]
EVALUATIONS = 10  # of a stage, if nothing else is asked for


class Stage(Protocol):
    """What a training stage must say of itself.

    Attributes
    ----------
    name : str
        Of its folder: "pretrain", "sft", "reward", "ppo".
    steps : int
        Steps in all.
    """

    name: str
    steps: int

    def step(self, index: int) -> Statistics:
        """Do step `index`, from 0, and return its statistics; "tokens" counts those processed."""

    def evaluate(self) -> Statistics:
        """Measure on held-out data."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state."""


class Interrupted(Exception):
    """The run was asked to stop; its last checkpoint holds every step done."""


def train(
    stage: Stage,
    configuration: Configuration,
    *,
    inputs: Inputs | None = None,
    resume: bool = False,
    group: Group = ALONE,
    quiet: bool = False,
) -> None:
    """Run a stage to its end, from its beginning or from its last checkpoint.

    Parameters
    ----------
    stage : Stage
        What to train.
    configuration : Configuration
        The resolved settings; `configuration.run` says where and how often.
    inputs : dict, optional
        What the stage computes from (inputs.py); default: its settings.
    resume : bool
        Go on from the last whole checkpoint of the folder, if there is one.
    group : Group
        The ranks, of which the first one writes.
    quiet : bool
        No progress bar.

    Raises
    ------
    ValueError
        If the folder holds another run and `resume` is not asked for, or if what the run began
        with is damaged or another than now.
    FloatingPointError
        If a statistic is not finite; the last checkpoint stays as it was.
    Interrupted
        After Ctrl-C or SIGTERM, once the step is done and kept.
    """
    run, main = configuration.run, group.is_main
    folder = Path(run.directory) / stage.name
    inputs = settings_of(configuration, stage.name) if inputs is None else inputs
    done, log = _begin(stage, folder, configuration, inputs, resume, group)
    every = run.evaluate_every or max(1, stage.steps // EVALUATIONS)
    if run.evaluate_first and done == 0:
        before = _validation(stage)
        if log:
            log.add({"step": 0, "seconds": 0.0, **before})
    with (
        _stop_asked() as asked,
        _progress(stage, done, quiet or not main) as show,
        _tensorboard(folder, run.tensorboard and main) as board,
        _bits(run.batch_invariant, group),
    ):
        for index in range(done, stage.steps):
            started = time.perf_counter()
            with _saying_what_is_kept(stage.name, index, folder):
                statistics = stage.step(index)
                _expect_finite(statistics)
            seconds = time.perf_counter() - started
            if "tokens" in statistics:
                statistics["tokens_per_second"] = statistics["tokens"] / max(seconds, 1e-9)
            step = index + 1
            last = step == stage.steps
            if last or step % every == 0:
                with _saying_what_is_kept(stage.name, index, folder):
                    statistics |= _validation(stage)
            if log:
                log.add({"step": step, "seconds": seconds, **statistics})
                board(step, statistics)
            stop = group.total(len(asked)) > 0  # a signal need not reach all ranks in one step
            if last or stop or step % run.checkpoint_every == 0:
                _keep(stage, folder, step, run.keep_last, group, inputs, log)
            show(step, statistics)
            if stop and not last:
                raise Interrupted(f"{stage.name}: stopped after step {step}, which is kept")


def _begin(
    stage: Stage,
    folder: Path,
    configuration: Configuration,
    inputs: Inputs,
    resume: bool,
    group: Group,
) -> tuple[int, Log | None]:
    """Prepare the folder and the stage; return how many steps are done, and the main rank's log."""
    kept = expect_resumable(folder, inputs, resume, group)
    done, notes = 0, {}
    torch.manual_seed(configuration.run.seed + SEED_STRIDE * group.rank)
    if kept:
        notes = checkpoint.read_notes(kept)
        done, state = checkpoint.load(kept, {"stage": stage.state_dict()})
        if done > stage.steps:
            cause = "fewer ppo.episodes, or steps, than the run has done"
            refuse(stage.name, f"at least the {done} steps that are done", f"{stage.steps}", cause)
        stage.load_state_dict(state["stage"])
        if group.rank < len(state["random"]):  # a rank that was not there before draws anew
            checkpoint.set_random_state(state["random"][group.rank])
    if not group.is_main:
        return done, None
    folder.mkdir(parents=True, exist_ok=True)
    log = Log(folder, notes.get("log"))
    if done < stage.steps:
        (folder / ENDED).unlink(missing_ok=True)
    write_whole(folder / SETTINGS, dump(configuration))
    return done, log


def expect_resumable(folder: Path, inputs: Inputs, resume: bool, group: Group) -> Path | None:
    """Return the checkpoint that a stage is to go on from, or refuse to touch the folder.

    Parameters
    ----------
    folder : pathlib.Path
        The stage's.
    inputs : dict
        What the stage would compute from now.
    resume : bool
        Whether to go on with what is there.
    group : Group
        The ranks.

    Returns
    -------
    pathlib.Path or None
        None if the stage is to begin.

    Raises
    ------
    ValueError
        If there is a run and `resume` is false; if the run began from other inputs, naming the
        first; or if all its checkpoints are damaged.
    """
    kept = checkpoint.complete(folder / CHECKPOINTS)
    there = kept[-1].name if kept else ENDED if (folder / ENDED).exists() else ""
    if there and not resume:
        refuse(
            "run.directory",
            "a folder without a run in it",
            f"{folder}, which holds {there}",
            "an earlier run: go on with --resume, or name another folder",
        )
    whole = checkpoint.newest_whole(folder / CHECKPOINTS, group) if kept else None
    if whole:
        expect_same_inputs(checkpoint.read_notes(whole)["inputs"], inputs, folder)
    return whole


def _validation(stage: Stage) -> Statistics:
    found = {f"validation_{k}": v for k, v in stage.evaluate().items()}
    _expect_finite(found)
    return found


def _keep(
    stage: Stage,
    folder: Path,
    step: int,
    keep_last: int,
    group: Group,
    inputs: Inputs,
    log: Log | None,
) -> None:
    random = group.gathered(checkpoint.random_state())
    state = {"stage": stage.state_dict(), "random": random}
    notes = {"inputs": inputs, "log": log.mark()} if log else None
    checkpoint.save(folder / CHECKPOINTS, step, state, keep_last, group, notes)
    group.wait()  # no rank goes on to what the checkpoint is to be found by


def _expect_finite(statistics: Statistics) -> None:
    wrong = {key: value for key, value in statistics.items() if not math.isfinite(value)}
    if wrong:
        raise FloatingPointError(
            f"{', '.join(wrong)} is not finite: {', '.join(map(str, wrong.values()))} "
            "(likely cause: a learning rate that is too high)"
        )


@contextlib.contextmanager
def _bits(batch_invariant: bool, group: Group) -> Iterator[None]:
    """Compute rows to the same bits in every batch, if asked to; refuse where kernels do not run.

    That is asked here, since a thread that takes half of a batch asks for itself.
    """
    if not batch_invariant:
        yield
        return
    with launch.batch_invariant():
        launch.runs_on_triton("run.batch_invariant", x=torch.empty(0, device=group.device))
        yield


@contextlib.contextmanager
def _saying_what_is_kept(name: str, index: int, folder: Path) -> Iterator[None]:
    """Add to the error of a step which step it was, and which checkpoint there is."""
    try:
        yield
    except (FloatingPointError, ValueError) as error:
        kept = checkpoint.complete(folder / CHECKPOINTS)
        stays = f"{kept[-1]} is the last checkpoint" if kept else "there is no checkpoint yet"
        kind = FloatingPointError if isinstance(error, FloatingPointError) else ValueError
        raise kind(f"{name}, step {index + 1}: {error}. {stays}") from error


@contextlib.contextmanager
def _stop_asked() -> Iterator[list[int]]:
    """Yield a list that becomes non-empty when the process is asked to stop.

    The first Ctrl-C or SIGTERM lets the step end; a second one stops at once. Under torchrun the
    second one is no impatience: a terminal's Ctrl-C reaches each rank by itself and once more
    through torchrun, which ends what is still there after half a minute.
    """
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            signal.signal(number, before[signal.Signals(number)])

    try:
        before = {n: signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever started it decides
        yield asked
        return
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _progress(stage: Stage, done: int, quiet: bool) -> Iterator[Any]:
    """Yield a function that shows a step's statistics beside a bar."""
    columns = (
        TextColumn("{task.description:>9}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[news]}"),
    )
    with Progress(*columns, disable=quiet) as progress:
        task = progress.add_task(stage.name, total=stage.steps, completed=done, news="")

        def show(step: int, statistics: Statistics) -> None:
            shown = [f"{k} {statistics[k]:.3g}" for k in ("loss", "score", "kl") if k in statistics]
            if "tokens_per_second" in statistics:
                shown.append(f"{statistics['tokens_per_second']:,.0f} tokens/s")
            progress.update(task, completed=step, news=", ".join(shown))

        yield show


@contextlib.contextmanager
def _tensorboard(folder: Path, wanted: bool) -> Iterator[Callable[[int, Statistics], None]]:
    """Yield a function that writes a step's statistics for TensorBoard, if it is wanted."""
    if not wanted:
        yield lambda step, statistics: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        cause = "it is an extra: pip install tensorboard"
        refuse("run.tensorboard", "the package tensorboard", "none", cause)
    with SummaryWriter(folder / "tensorboard") as writer:

        def board(step: int, statistics: Statistics) -> None:
            for name, value in statistics.items():
                writer.add_scalar(name, value, step)

        yield board
