"""What a stage computes from, and what it left: compared before anything goes on.

The inputs of a stage are the settings that it reads (its own and others'), a checksum of every data
file, and one of every file of the models and the tokenizer that it begins from. They are noted in
each checkpoint, and once more in the stage's `ended.json`, which is written last of all. So a stage
goes on only from what it began from, and it has ended when `ended.json` says so.

Where a run is kept, how often it is looked at, how fast it computes and how long it goes on change
nothing that was computed: these settings are no inputs.
"""

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.checks import refuse
from ...records import write_whole
from ..configuration import Configuration
from ..formats.checksums import checksum, checksums, damaged

ENDED = "ended.json"
Inputs = dict[str, Any]  # by name: what JSON can hold
RUN = ("seed", "fsdp", "dtype", "batch_invariant")
NO_INPUTS = {"ppo": ("episodes",)}
DOCUMENTATION = f"the documentation of Python {platform.python_version()}"
EXERCISES = "the exercises of tasks.py"


def settings_of(configuration: Configuration, stage: str) -> Inputs:
    """Return the settings that are inputs of a stage: the model's, the run's and its own.

    Parameters
    ----------
    configuration : Configuration
    stage : str

    Returns
    -------
    dict
        By table.key. Of a file the checksum is told instead of its path.

    Raises
    ------
    ValueError
        If a data file cannot be read.
    """
    own = getattr(configuration, stage, None)
    names = [f"model.{field.name}" for field in dataclasses.fields(configuration.model)]
    names += [f"run.{name}" for name in RUN]
    if own is not None:
        fields = (field.name for field in dataclasses.fields(own))
        names += [f"{stage}.{name}" for name in fields if name not in NO_INPUTS.get(stage, ())]
    return read_by(configuration, names)


def read_by(configuration: Configuration, names: list[str]) -> Inputs:
    """Return settings by their names, data files as checksums.

    Parameters
    ----------
    configuration : Configuration
    names : list of str
        Such as "pretrain.time".

    Returns
    -------
    dict
    """
    found: Inputs = {}
    for name in names:
        table, _, key = name.partition(".")
        value = getattr(getattr(configuration, table), key)
        if key.endswith("data"):
            text = name in ("pretrain.data", "ppo.pretraining_data")
            value = data_file(name, value) or (DOCUMENTATION if text else EXERCISES)
        if name == "model.weights":
            value = bool(value)  # the checksums of the folder's files say which
        found[name] = list(value) if isinstance(value, tuple) else value
    return found


def data_file(name: str, path: str) -> str:
    """Return the checksum of the file that a setting names; "" if it names none.

    Parameters
    ----------
    name : str
        The setting, for the error.
    path : str

    Returns
    -------
    str
    """
    if not path:
        return ""
    try:
        return f"sha256 {checksum(Path(path))}"
    except OSError as error:
        refuse(name, "a file that can be read", f"{path}: {error.strerror}", "a wrong path")


def expect_same_inputs(before: Mapping[str, Any], now: Mapping[str, Any], where: Path) -> None:
    """Refuse to go on from other inputs than a stage began from.

    Parameters
    ----------
    before, now : dict
        What the stage began from, and what it would go on from.
    where : pathlib.Path
        The stage's folder.

    Raises
    ------
    ValueError
        Naming the first input that differs.
    """
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            cause = f"another {_kind(name)} than the run in {where} began with"
            refuse(name, _shown(before.get(name)), _shown(now.get(name)), cause)


def _kind(name: str) -> str:
    if name.endswith("data"):
        return "content of the file"
    return "setting" if "." in name.partition("/")[0] else "file"


def _shown(value: Any) -> str:
    """Return a value for an error; of a checksum its beginning."""
    if isinstance(value, str) and value.startswith("sha256 "):
        return value[:19] + "…"
    return "none" if value is None else repr(value)


@dataclasses.dataclass(frozen=True)
class Ended:
    """What `ended.json` says.

    Attributes
    ----------
    inputs : dict
        As above.
    steps : int
        Optimizer steps done.
    outputs : dict of str to str
        The checksum of each file that the stage left, but for its checkpoints.
    """

    inputs: Inputs
    steps: int
    outputs: dict[str, str]

    def damaged(self, folder: Path) -> list[str]:
        """List the outputs that are not as the stage left them."""
        return damaged(folder, self.outputs)


def write_ended(folder: Path, inputs: Inputs, steps: int, files: list[str]) -> None:
    """Say that a stage has ended.

    Parameters
    ----------
    folder : pathlib.Path
        The stage's.
    inputs : dict
    steps : int
    files : list of str
        What it left: files in its folder, or folders of them; those that are there.
    """
    paths = [folder / name for name in files]
    left = [p for path in paths for p in (path.iterdir() if path.is_dir() else [path])]
    ended = Ended(inputs, steps, checksums(folder, (path for path in left if path.is_file())))
    said = dataclasses.asdict(ended)
    write_whole(folder / ENDED, json.dumps(said | {"checksum": _checksum(said)}, indent=1) + "\n")


def _checksum(said: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def read_ended(folder: Path) -> Ended | None:
    """Return what a stage said at its end.

    Parameters
    ----------
    folder : pathlib.Path
        The stage's.

    Returns
    -------
    Ended or None
        None if it has not ended, or if what it said is damaged: its end is then done once more.
    """
    try:
        said = json.loads((folder / ENDED).read_text(encoding="utf-8"))
        return Ended(**said) if said.pop("checksum") == _checksum(said) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
