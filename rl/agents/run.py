"""One stage of an agent's run: trained, written and noted as the stages of `gptwin train` are.

runs/lamda/
  agent.json        which agent, with which settings
  base/             the model that it begins from, unless one is shared
  raters/           a stage's folder (rl/training/run.py): log, checkpoints, ended.json
    model/            what the stage left
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ...core.checks import refuse
from ...kernels.cpu import speed_up
from ...kernels.model.gpt import GPT
from ..configuration import Configuration, RunSettings
from ..data.dialogue import Template
from ..formats.checksums import checksums
from ..formats.tokenizer import Tokenizer
from ..formats.weights import load_gpt2, save_gpt2
from ..training.inputs import Inputs, expect_same_inputs, read_ended, write_ended
from ..training.lock import only_writer
from ..training.run import LOG, SETTINGS, Stage, train

MODEL = "model"
CHECKPOINT_EVERY = 500
SomeStage = TypeVar("SomeStage", bound=Stage)


def run_stage(
    folder: Path,
    inputs: Inputs,
    stage: Callable[[], SomeStage],
    save: Callable[[SomeStage, Path], None],
    *,
    name: str,
    left: tuple[str, ...] = (MODEL,),
    seed: int = 0,
    shared: bool = False,
    quiet: bool = False,
) -> None:
    """Train a stage to its end unless it has ended, going on from its last checkpoint.

    Parameters
    ----------
    folder : pathlib.Path
        The run's; the stage's is below it.
    inputs : dict
        What the stage computes from (rl/training/inputs.py): settings, checksums. A run that began
        from others is refused, not overwritten.
    stage : callable
        Returns the stage; called only if there is something to do.
    save : callable
        `(stage, its folder) -> None`, after the last step.
    name : str
        Of the stage, and its folder.
    left : tuple of str
        What `save` leaves in it.
    seed : int
    shared : bool
        Others may want the same stage at the same time: who comes second waits for the first.
    quiet : bool
        No progress bar.
    """
    there = folder / name
    if _has_ended(there, inputs):
        return
    run = RunSettings(
        directory=str(folder), seed=seed, checkpoint_every=CHECKPOINT_EVERY, keep_last=1,
        evaluate_every=0,
    )  # fmt: skip

    def waits(holder: str) -> None:
        print(f"{there}: {holder} trains it, and this run waits for that", file=sys.stderr)

    with only_writer(folder, waits=waits if shared else None):
        if _has_ended(there, inputs):  # while this process waited
            return
        made = stage()
        if made.name != name:
            refuse("stage", f"the name {name!r}", repr(made.name))
        train(made, Configuration(run=run), inputs=inputs, resume=True, quiet=quiet)
        save(made, there)
        write_ended(there, inputs, made.steps, [*left, SETTINGS, LOG])


def _has_ended(there: Path, inputs: Inputs) -> bool:
    """Say whether a stage has left what it was to leave; refuse one that began from others."""
    ended = read_ended(there)
    if ended is None or ended.damaged(there):
        return False
    expect_same_inputs(ended.inputs, inputs, there)
    return True


def save_model(folder: Path, model: GPT, template: Template, name: str = MODEL) -> None:
    """Write a model that chats by a template."""
    state: Any = model.state_dict()
    save_gpt2(folder / name, model.config, state, template.tokenizer, template.exported)


def load_model(folder: Path, name: str = MODEL) -> tuple[GPT, Template]:
    """Read what `save_model` wrote, in evaluation mode.

    Parameters
    ----------
    folder : pathlib.Path
        A stage's.
    name : str

    Returns
    -------
    model, template : GPT, Template

    Raises
    ------
    ValueError
        If a file is missing or damaged.
    """
    config, parameters = load_gpt2(folder / name, framework="torch")
    model = GPT(config)
    model.load_state_dict(parameters)
    return speed_up(model).eval(), Template(Tokenizer.load(folder / name))


def files_of(folder: Path, name: str) -> Inputs:
    """Return the checksums of a folder's files as inputs of the stage that reads them."""
    found = checksums(folder, (file for file in folder.iterdir() if file.is_file()))
    return {f"{name}/{file}": f"sha256 {sum_}" for file, sum_ in found.items()}
