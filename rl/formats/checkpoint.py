"""Checkpoints that a kill at any moment leaves whole.

    checkpoints/
      step-00000200/          a complete checkpoint: the name says so
        state.json            everything that is no tensor, and where each tensor belongs
        checksums.json        of all other files
        tensors.safetensors   every tensor that one rank holds whole, never pickled
        shards/               the others, written by every rank through torch.distributed.checkpoint
                              (also safetensors); any number of ranks can read them back
      step-00000400.writing/  one that a killed process left: never read, removed by the next
      step-00000600.damaged/  one that its checksums did not fit: set aside, never read or removed

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
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ...core.checks import refuse
from ...kernels.optimizer.sharded import is_sharded
from ...records import flush, naming
from ..ranks.group import ALONE, Group
from .checksums import checksums, damaged
from .tensors import save_tensors

STATE, TENSORS, SHARDS = "state.json", "tensors.safetensors", "shards"
SUMS = "checksums.json"


def save(
    directory: Path,
    step: int,
    state: Any,
    keep_last: int,
    group: Group = ALONE,
    notes: dict[str, Any] | None = None,
) -> Path:
    """Write a checkpoint, and remove those that are too old. Every rank calls it.

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
    group : Group
        The ranks: the first one writes, and each its part of what is sharded.
    notes : dict, optional
        What `read_notes` shall return, ready for JSON: what the run is made from, say.

    Returns
    -------
    pathlib.Path
        The checkpoint.

    Raises
    ------
    TypeError
        If `state` holds something that cannot be kept; nothing is written.
    OSError
        If the disk is full, say: names the checkpoint. Nothing is left of it.
    """
    if keep_last < 1:
        refuse("keep_last", "at least 1", str(keep_last))
    tensors: dict[str, torch.Tensor] = {}
    skeleton = _pack(state, "state", tensors)
    shards = {name: tensors.pop(name) for name in list(tensors) if is_sharded(tensors[name])}
    target = directory / f"step-{step:08d}"
    writing = target.with_suffix(".writing")
    if group.is_main:
        directory.mkdir(parents=True, exist_ok=True)
        for left_over in directory.glob("step-*.*ing"):
            shutil.rmtree(left_over)
        writing.mkdir()
    if shards:
        group.wait()  # until the folder is there
        _write_shards(writing / SHARDS, shards)
        group.wait()  # until every rank's part is
    if not group.is_main:
        return target
    try:
        with naming(target):
            _write_files(writing, tensors, {"step": step, "notes": notes or {}, "state": skeleton})
            _rename(writing, target)
    except OSError:
        shutil.rmtree(writing, ignore_errors=True)
        raise
    for old in complete(directory)[:-keep_last]:
        _remove(old)
    return target


def _write_files(writing: Path, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    """Write what one rank writes, the checksums last, and put all of it on the disk."""
    save_tensors(tensors, writing / TENSORS)
    (writing / STATE).write_text(json.dumps(state), encoding="utf-8")
    sums = checksums(writing, (path for path in writing.rglob("*") if path.is_file()))
    (writing / SUMS).write_text(json.dumps(sums, indent=1), encoding="utf-8")
    for path in (*writing.rglob("*"), writing):
        flush(path)


def _rename(writing: Path, target: Path) -> None:
    """Let a checkpoint that was written be found."""
    if target.exists():
        if damage(target) is None:  # a resumed run repeats a step: the old one is as good
            shutil.rmtree(writing)
            return
        _remove(target)
    os.replace(writing, target)
    flush(target.parent)


def _remove(old: Path) -> None:
    # We rename it first: a kill in the middle of its removal must not leave half a checkpoint.
    shutil.rmtree(old.rename(old.with_suffix(".removing")))


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


def damage(checkpoint: Path) -> str | None:
    """Say which file of a checkpoint is damaged, None if every one is as it was written.

    Parameters
    ----------
    checkpoint : pathlib.Path

    Returns
    -------
    str or None
    """
    try:
        sums = json.loads((checkpoint / SUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return SUMS
    if not isinstance(sums, dict) or not {STATE, TENSORS} <= sums.keys():
        return SUMS
    return next(iter(damaged(checkpoint, sums)), None)


def newest_whole(directory: Path, group: Group = ALONE) -> Path | None:
    """Find the checkpoint to go on from, and set aside those after it that are damaged.

    Parameters
    ----------
    directory : pathlib.Path
        Of the run's checkpoints; need not exist.
    group : Group
        The ranks, of which the first one looks.

    Returns
    -------
    pathlib.Path or None
        None if there is no checkpoint.

    Raises
    ------
    ValueError
        If all are damaged; all stay where they are.
    """
    found = _newest_whole(directory) if group.is_main else None
    return group.gathered(found)[0]


def _newest_whole(directory: Path) -> Path | None:
    bad: dict[Path, str] = {}
    for checkpoint in reversed(complete(directory)):
        file = damage(checkpoint)
        if file is None:
            for other, name in bad.items():
                aside = _aside(other)
                other.rename(aside)
                print(
                    f"Warning: {other / name} is damaged: going on from {checkpoint.name}, the "
                    f"one before; the damaged one is now {aside.name}",
                    file=sys.stderr,
                )
            return checkpoint
        bad[checkpoint] = file
    if bad:
        named = ", ".join(f"{path.name}/{name}" for path, name in bad.items())
        cause = "a damaged disk, or one written by another version; all stay as they are"
        refuse(str(directory), "a whole checkpoint", f"damaged ones: {named}", cause)
    return None


def _aside(checkpoint: Path) -> Path:
    """Return a name for a damaged checkpoint that is not taken."""
    aside, n = checkpoint.with_suffix(".damaged"), 1
    while aside.exists():
        n += 1
        aside = checkpoint.with_suffix(f".damaged-{n}")
    return aside


def read_notes(checkpoint: Path) -> dict[str, Any]:
    """Return the notes of a checkpoint that is whole.

    Parameters
    ----------
    checkpoint : pathlib.Path
        From `newest_whole`.

    Returns
    -------
    dict
    """
    return json.loads((checkpoint / STATE).read_text(encoding="utf-8"))["notes"]


def load(checkpoint: Path, into: Any = None) -> tuple[int, Any]:
    """Read a checkpoint.

    Parameters
    ----------
    checkpoint : pathlib.Path
        A folder that `save` made.
    into : object, optional
        A state of the same form, of which the sharded tensors are overwritten: each rank reads its
        part of them alone. Needed where the checkpoint has such.

    Returns
    -------
    step : int
        Steps that were done.
    state : object
        What was given to `save`; tensors on the CPU, except for the sharded ones of `into`.

    Raises
    ------
    ValueError
        If it is no checkpoint, or is damaged.
    """
    found: dict[str, torch.Tensor] = {}
    _pack(into, "state", found)
    shards = {name: tensor for name, tensor in found.items() if is_sharded(tensor)}
    if (checkpoint / SHARDS).exists() and not shards:
        got = f"false; {checkpoint} was written with it"
        refuse("run.fsdp", "true, to go on from a sharded checkpoint", got)
    file = damage(checkpoint)
    if file is not None:
        refuse("checkpoint", "a whole one", f"{checkpoint}: {file} is damaged", "a damaged disk")
    try:
        kept = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        tensors = load_file(checkpoint / TENSORS)
        if shards:
            tensors |= _read_shards(checkpoint / SHARDS, shards)
        return kept["step"], _unpack(kept["state"], tensors)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        refuse("checkpoint", "a checkpoint of gptwin", f"{checkpoint}: {error}", "a damaged disk")


def _write_shards(folder: Path, shards: dict[str, torch.Tensor]) -> None:
    # Imported here: it takes a second, and few runs are sharded.
    from torch.distributed import checkpoint as distributed

    writer = distributed.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    distributed.save(dict(shards), storage_writer=writer)


def _read_shards(folder: Path, shards: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Overwrite each rank's part of the tensors, whatever number of ranks wrote them."""
    from torch.distributed import checkpoint as distributed

    reader = distributed.HuggingFaceStorageReader(str(folder))
    distributed.load(shards, storage_reader=reader)
    return shards


def random_state() -> dict[str, Any]:
    """Return the state of PyTorch's global generators.

    Returns
    -------
    dict
        Of the CPU, and of the GPU that this process computes on.
    """
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put PyTorch's global generators back.

    Parameters
    ----------
    state : dict
        From `random_state`; a GPU that is not here is passed over.
    """
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _pack(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Return `value` as JSON, with its tensors moved to `tensors` under their places' names."""
    if is_sharded(value):
        tensors[name] = value.detach()
        return {"tensor": name}
    if isinstance(value, torch.Tensor):
        # We copy: safetensors refuses two names of one memory, such as a tied head's.
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
