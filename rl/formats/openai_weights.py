"""OpenAI's release of GPT-2: TensorFlow's names, in an .npz.

    model/wte, model/wpe               [vocab, C], [context, C]
    model/h0/ln_1/g, …/b               gain and bias of a norm, [C]
    model/h0/attn/c_attn/w, …/b        a convolution of width 1, [1, in, out], and its bias
    model/ln_f/g, …/b

OpenAI wrote a TensorFlow checkpoint (model.ckpt.*), which needs TensorFlow to be read. Where it is
installed, this makes the .npz, to be put beside hparams.json:

    reader = tf.train.load_checkpoint("model.ckpt")
    np.savez("model.npz", **{n: reader.get_tensor(n) for n in reader.get_variable_to_shape_map()})
"""

import functools
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...core.checks import refuse
from ...core.model.presets import GPTConfig, parameter_shapes
from .hf_config import read_json
from .tensors import (
    PICKLE_REASON,
    Stored,
    check_target,
    check_tensors,
    convert,
    refuse_damaged,
)

HPARAMS = "hparams.json"
NAME = re.compile(r"model/(?:(h)(\d+)/)?(.+?)(?:/([wgb]))?")


def load_openai(
    path: str | Path,
    *,
    config: GPTConfig | None = None,
    framework: str = "numpy",
    dtype: str = "float32",
) -> tuple[GPTConfig, dict[str, Any]]:
    """Read GPT-2 from an .npz with OpenAI's names.

    Parameters
    ----------
    path : str or pathlib.Path
    config : GPTConfig, optional
        Read from hparams.json beside the file if left out. (How many heads there are, no shape
        tells.)
    framework, dtype : str
        As in `load_gpt2`.

    Returns
    -------
    config : GPTConfig
    parameters : dict of str to numpy.ndarray or torch.Tensor
        With Hugging Face's names, as `load_gpt2` returns them.

    Raises
    ------
    ValueError
        If a file is missing or damaged, holds pickled objects, or its tensors are not those of
        the model.
    """
    path = Path(path)
    check_target(framework, dtype)
    if not path.is_file():
        refuse(str(path), "a file", "nothing there", "a wrong path")
    if config is None:
        config = _read_hparams(path.with_name(HPARAMS))
    stored = {_our_name(path, name): tensor for name, tensor in _read_npz(path).items()}
    shapes = parameter_shapes(config)
    check_tensors(stored, shapes, str(path))
    return config, {name: convert(name, stored[name], framework, dtype) for name in shapes}


def _our_name(path: Path, name: str) -> str:
    """Turn model/h0/attn/c_attn/w into h.0.attn.c_attn.weight."""
    match = NAME.fullmatch(name)
    if match is None:
        refuse(str(path), "names that begin with model/", repr(name), "another library's file")
    _, layer, module, kind = match.groups()
    block = "" if layer is None else f"h.{layer}."
    return f"{block}{module.replace('/', '.')}.{'bias' if kind == 'b' else 'weight'}"


def _read_npz(path: Path) -> dict[str, Stored]:
    """Read the shapes of all arrays, and the numbers of each when they are asked for."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = [name for name in archive.namelist() if name.endswith(".npy")]
            return {name.removesuffix(".npy"): _stored(path, archive, name) for name in files}
    except zipfile.BadZipFile as error:
        refuse_damaged(path, "a whole .npz", str(error))


def _stored(path: Path, archive: zipfile.ZipFile, member: str) -> Stored:
    name = member.removesuffix(".npy")
    with archive.open(member) as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read_header(file)
        except (KeyError, ValueError, zipfile.BadZipFile) as error:
            refuse(f"{path}: {name}", "an array as NumPy writes it", str(error), "a damaged file")
    if dtype.hasobject:
        refuse(f"{path}: {name}", "an array of numbers", "pickled objects", PICKLE_REASON)
    # A convolution of width 1 is a matrix.
    flat = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
    return Stored(path, flat, functools.partial(_read_array, path, name, flat))


def _read_array(path: Path, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return torch.from_numpy(arrays[name].reshape(shape))
    except (zipfile.BadZipFile, ValueError, TypeError) as error:
        refuse(f"{path}: {name}", "numbers that can be read", str(error), "a damaged file")


def _read_hparams(path: Path) -> GPTConfig:
    found = read_json(path)
    try:
        return GPTConfig(
            vocab_size=found["n_vocab"],
            n_ctx=found["n_ctx"],
            n_layer=found["n_layer"],
            n_head=found["n_head"],
            d_model=found["n_embd"],
        )
    except KeyError as error:
        refuse(str(path), f"the entry {error}", "a file without it", "not OpenAI's hparams.json")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
