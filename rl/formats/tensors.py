"""Reading tensors from files that other people made: nothing is run, and nothing is guessed.

A safetensors file is a table of names, types and shapes followed by the numbers. Reading it runs no
code. A pickle (.bin, .pt, .pth, .ckpt, NumPy's arrays of objects) is a program that makes the
tensors, or does anything else, on the machine that loads it: it is refused.

What is read must be what the model's configuration asks for, name by name and shape by shape. A
difference is an error that names the tensor, what was expected and found, and the likely cause,
before any number is read.
"""

import errno
import functools
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ...core.checks import refuse

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
PICKLE_REASON = (
    "a pickle is a program, which can do anything on the machine that loads it. Convert it where "
    "you trust it: safetensors.torch.save_file(torch.load(file, weights_only=True), "
    "'model.safetensors')"
)
DTYPES = ("float32", "float64", "float16", "bfloat16")
FRAMEWORKS = ("numpy", "torch")
PREFIXES = {
    "_orig_mod.": "saved from a compiled model: strip _orig_mod. from the names",
    "module.": "saved from a data-parallel model: strip module. from the names",
    "model.": "the weights of another architecture, or of a wrapper around GPT-2",
}


class Stored(NamedTuple):
    """A tensor in a file that has not been read yet."""

    file: Path
    shape: tuple[int, ...]
    read: Callable[[], torch.Tensor]


def read_safetensors(path: Path) -> dict[str, Stored]:
    """List the tensors of a safetensors file.

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    dict of str to Stored

    Raises
    ------
    ValueError
        If it is not there, or not a whole safetensors file.
    """
    if not path.is_file():
        refuse(str(path), "a file", "nothing there", "a download that was not finished")
    try:
        file = safe_open(path, framework="pt")
        return {
            name: Stored(
                path,
                tuple(file.get_slice(name).get_shape()),
                functools.partial(file.get_tensor, name),
            )
            for name in file.keys()  # noqa: SIM118 (it is no dict)
        }
    except (SafetensorError, OSError) as error:
        refuse_damaged(path, "a whole safetensors file", str(error))


def refuse_damaged(path: Path, expected: str, problem: str) -> NoReturn:
    """Refuse a file that cannot be read, with the cause that its first bytes tell.

    Parameters
    ----------
    path : pathlib.Path
    expected : str
        What it should have been.
    problem : str
        What its reader said.

    Raises
    ------
    ValueError
        Always.
    """
    with path.open("rb") as file:
        start = file.read(64)
    cause = "the download or copy was cut short"
    if start.startswith(b"version https://git-lfs"):
        cause = "a Git LFS pointer, not the file itself: git lfs pull"
    elif start.startswith(b"\x80") or (start.startswith(b"PK") and path.suffix != ".npz"):
        cause = f"a pickle under another name; {PICKLE_REASON}"
    elif start.lstrip().startswith(b"<"):
        cause = "a web page saved instead of the file"
    refuse(str(path), expected, f"{path.stat().st_size} bytes ({problem})", cause)


def check_tensors(
    found: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], where: str
) -> None:
    """Refuse tensors that are not exactly those of a model.

    Parameters
    ----------
    found : mapping of str to anything with a shape
    shapes : mapping of str to tuple of int
        `parameter_shapes` of the configuration.
    where : str
        The file or argument they are from, for the message.

    Raises
    ------
    ValueError
        Naming the first tensor that is missing, has another shape, or should not be there.
    """
    unexpected = [name for name in found if name not in shapes]
    for name, expected in shapes.items():
        if name not in found:
            named = f", but {unexpected[0]!r}, which the model has not" if unexpected else ""
            cause = _cause_of_missing(name, unexpected)
            refuse(f"{where}: {name}", f"shape {expected}", f"no such tensor{named}", cause)
        shape = tuple(found[name].shape)
        if shape != expected:
            cause = _cause_of_shape(name, shape, expected)
            refuse(f"{where}: {name}", f"shape {expected}", f"shape {shape}", cause)
    if unexpected:
        deeper = re.match(r"h\.(\d+)\.", unexpected[0])
        cause = "the weights of a model with a further head, or of another architecture"
        if deeper:
            cause = "config.json says fewer layers than the weights have: one is another model's"
        got = f"{len(unexpected)} more, such as {unexpected[0]!r}"
        refuse(where, f"the {len(shapes)} tensors of the model", got, cause)


def _cause_of_missing(name: str, unexpected: list[str]) -> str:
    if name == "lm_head.weight":
        return "config.json says tie_word_embeddings false, but the head is the token table"
    for other in unexpected:
        for prefix, cause in PREFIXES.items():
            if other.startswith(prefix):
                return cause
    if unexpected:
        return "names of another library or architecture, or a tensor renamed"
    return "a file cut out of a larger one, or config.json of a larger model or one with biases"


def _cause_of_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> str:
    if len(shape) == 2 and shape == expected[::-1]:
        return "stored (out, in), as torch.nn.Linear does; GPT-2's files hold (in, out): transpose"
    if len(shape) == len(expected) and shape[1:] == expected[1:]:
        if name in ("wte.weight", "lm_head.weight"):
            return "vocab_size in the configuration is another: the table may be padded"
        if name == "wpe.weight":
            return "n_positions in the configuration is another"
    return "weights and configuration of different models"


def convert(name: str, stored: Stored, framework: str, dtype: str) -> Any:
    """Read a tensor and make it what the caller wants.

    Parameters
    ----------
    name : str
        For the message.
    stored : Stored
    framework : str
        "numpy" or "torch".
    dtype : str
        One of `DTYPES`.

    Returns
    -------
    numpy.ndarray or torch.Tensor
        Its own memory: the file may go.

    Raises
    ------
    ValueError
        If it holds no floating-point numbers, or some that are not finite in this dtype.
    """
    tensor = stored.read()
    where = f"{stored.file}: {name}"
    if not tensor.is_floating_point():
        refuse(where, "floating-point numbers", str(tensor.dtype), "quantised weights")
    converted = tensor.to(getattr(torch, dtype), copy=True).contiguous()
    # One addition per number finds what isfinite, which is several times slower, then counts.
    if not math.isfinite(converted.sum()) and not bool(torch.isfinite(converted).all()):
        n_wrong = int((~torch.isfinite(converted)).sum())
        cause = f"they are too large for {dtype}"
        if not bool(torch.isfinite(tensor.float()).all()):
            cause = "the training run that saved it had diverged"
        refuse(where, "finite numbers", f"{n_wrong} infinities or NaN", cause)
    return converted.numpy() if framework == "numpy" else converted


def check_target(framework: str, dtype: str) -> None:
    """Refuse a framework or dtype there is not.

    Parameters
    ----------
    framework, dtype : str
        As in `convert`.

    Raises
    ------
    ValueError
        If one is unknown, or NumPy is asked for bfloat16.
    """
    if framework not in FRAMEWORKS:
        refuse("framework", f"one of {', '.join(FRAMEWORKS)}", repr(framework))
    if dtype not in DTYPES:
        refuse("dtype", f"one of {', '.join(DTYPES)}", repr(dtype))
    if framework == "numpy" and dtype == "bfloat16":
        refuse("dtype", "one that NumPy has", "'bfloat16'", 'framework="torch" was meant')


def save_tensors(
    tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file.

    Parameters
    ----------
    tensors : dict of str to torch.Tensor
        Contiguous, no two of one memory.
    path : pathlib.Path
    metadata : dict of str to str, optional
        Entries of its header.

    Raises
    ------
    OSError
        If the disk is full, say: the library's own error of it is no OSError.
    """
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        full = re.search(r"os error (\d+)", str(error))
        number = int(full[1]) if full else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error


def own_memory(arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return contiguous tensors on the CPU, no two of which share memory.

    safetensors refuses to write one memory twice, such as a table that is also an untied head.

    Parameters
    ----------
    arrays : mapping of str to numpy.ndarray or torch.Tensor

    Returns
    -------
    dict of str to torch.Tensor
        Those that could be taken as they were share the memory of `arrays`.
    """
    tensors: dict[str, torch.Tensor] = {}
    seen = set()
    for name, array in arrays.items():
        tensor = array if isinstance(array, torch.Tensor) else torch.from_numpy(np.array(array))
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()  # of all views of it, which may overlap
        tensors[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return tensors
