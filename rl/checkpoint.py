"""Checkpoints that a kill at any moment leaves whole.

    checkpoints/
      step-00000200/          a complete checkpoint: the name says so
        state.json            everything that is no tensor, and where each tensor belongs
        tensors.safetensors   every tensor, never pickled
      step-00000400.writing/  one that a killed process left: never read, removed by the next

A checkpoint is written under another name, put on the disk, and then renamed, which is a single
step: a reader finds it whole or not at all. One that is too old is renamed before it is removed. A
state is anything made of dicts, lists, tuples, tensors, numbers, text, booleans and None, so a
stage simply returns what `state_dict` methods give it: weights, moments, schedulers, random number
generators, β, the data cursor.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..core.checks import refuse
from .files import flush

STATE, TENSORS = "state.json", "tensors.safetensors"


def save(directory: Path, step: int, state: Any, keep_last: int) -> Path:
    """Write a checkpoint, and remove those that are too old.

    Parameters
    ----------
    directory : pathlib.Path
        Of the run's checkpoints; made if it is not there.
    step : int
        Steps done.
    state : object
        What to keep: see above.
    keep_last : int
        Checkpoints that stay, this one among them; at least 1.

    Returns
    -------
    pathlib.Path
        The checkpoint.

    Raises
    ------
    TypeError
        If `state` holds something that cannot be kept; nothing is written.
    """
    if keep_last < 1:
        refuse("keep_last", "at least 1", str(keep_last))
    tensors: dict[str, torch.Tensor] = {}
    skeleton = _pack(state, "state", tensors)
    directory.mkdir(parents=True, exist_ok=True)
    for left_over in directory.glob("step-*.*ing"):
        shutil.rmtree(left_over)
    target = directory / f"step-{step:08d}"
    writing = target.with_suffix(".writing")
    writing.mkdir()
    save_file(tensors, writing / TENSORS)
    (writing / STATE).write_text(json.dumps({"step": step, "state": skeleton}))
    for path in (writing / TENSORS, writing / STATE, writing):
        flush(path)
    if target.exists():  # the same step again, after a resume: the old one is as good
        shutil.rmtree(writing)
    else:
        os.replace(writing, target)
        flush(directory)
    for old in complete(directory)[:-keep_last]:
        # Renamed first: a kill in the middle of its removal must not leave half a checkpoint.
        shutil.rmtree(old.rename(old.with_suffix(".removing")))
    return target


def complete(directory: Path) -> list[Path]:
    """List the complete checkpoints, oldest first.

    Parameters
    ----------
    directory : pathlib.Path
        Of the run's checkpoints; need not exist.

    Returns
    -------
    list of pathlib.Path
    """
    return sorted(p for p in directory.glob("step-*") if re.fullmatch(r"step-\d{8,}", p.name))


def load(checkpoint: Path) -> tuple[int, Any]:
    """Read a checkpoint.

    Parameters
    ----------
    checkpoint : pathlib.Path
        A folder that `save` made.

    Returns
    -------
    step : int
        Steps that were done.
    state : object
        What was given to `save`; tensors on the CPU.

    Raises
    ------
    ValueError
        If it is no checkpoint, or was damaged.
    """
    try:
        kept = json.loads((checkpoint / STATE).read_text())
        tensors = load_file(checkpoint / TENSORS)
        return kept["step"], _unpack(kept["state"], tensors)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        refuse("checkpoint", "a checkpoint of gptwin", f"{checkpoint}: {error}", "a damaged disk")


def random_state() -> dict[str, Any]:
    """Return the state of PyTorch's global generators.

    Returns
    -------
    dict
        Of the CPU and of each GPU.
    """
    state = {"cpu": torch.get_rng_state()}
    for i in range(torch.cuda.device_count()):
        state[f"cuda:{i}"] = torch.cuda.get_rng_state(i)
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put PyTorch's global generators back.

    Parameters
    ----------
    state : dict
        From `random_state`; a GPU that is not here is passed over.
    """
    torch.set_rng_state(state["cpu"])
    for i in range(torch.cuda.device_count()):
        if f"cuda:{i}" in state:
            torch.cuda.set_rng_state(state[f"cuda:{i}"], i)


def _pack(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Return `value` as JSON, with its tensors moved to `tensors` under their places' names."""
    if isinstance(value, torch.Tensor):
        # A copy: two names of one memory, a tied head say, may not share a safetensors file.
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, dict):  # as pairs: keys may be numbers, which JSON would turn into text
        return {"dict": [[k, _pack(v, f"{name}/{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        items = [_pack(v, f"{name}/{i}", tensors) for i, v in enumerate(value)]
        return {type(value).__name__: items}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise TypeError(f"{name}: a checkpoint cannot keep a {type(value).__name__}")


def _unpack(packed: Any, tensors: dict[str, torch.Tensor]) -> Any:
    ((kind, value),) = packed.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {k: _unpack(v, tensors) for k, v in value}
    if kind == "value":
        return value
    items = [_unpack(v, tensors) for v in value]
    return tuple(items) if kind == "tuple" else items
