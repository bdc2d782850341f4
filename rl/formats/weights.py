"""GPT-2's weights in Hugging Face's layout, read and written.

    config.json          what the model is made of                      (hf_config.py)
    model.safetensors    its tensors, or several files and an index     (tensors.py)
    vocab.json, merges.txt, …   its tokenizer                           (tokenizer.py)

The names are those of `core.presets.parameter_shapes`; projections are stored [in, out], so that
`x @ weight` takes them as they are. Files differ in what they add, and all these are read alike:

- a prefix ``transformer.``, written by GPT2LMHeadModel and not by GPT2Model;
- the head, lm_head.weight: if config.json ties it to the token table it may be absent or equal;
- the buffers attn.bias and attn.masked_bias of old versions: masks, which nobody learnt.

OpenAI's own release is a TensorFlow checkpoint; as an .npz it can be read too (openai_weights.py).
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...core.checks import refuse
from ...core.model.presets import GPTConfig, parameter_shapes
from ...records import Content, write_together
from .hf_config import config_json, read_config, read_json
from .openai_weights import load_openai
from .tensors import (
    PICKLE_REASON,
    PICKLES,
    Stored,
    check_target,
    check_tensors,
    convert,
    own_memory,
    read_safetensors,
    save_tensors,
)
from .tokenizer import CLASS_FILE, END_OF_TEXT, SPECIAL_FILE, Tokenizer

if TYPE_CHECKING:
    import numpy as np

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
GENERATION, TEMPLATE = "generation_config.json", "chat_template.jinja"  # for transformers
PREFIX, HEAD, TABLE = "transformer.", "lm_head.weight", "wte.weight"
BUFFER = re.compile(r"h\.\d+\.attn\.(masked_)?bias")


def load_gpt2(
    path: str | Path, *, framework: str = "numpy", dtype: str = "float32"
) -> tuple[GPTConfig, dict[str, Any]]:
    """Read a GPT-2.

    Parameters
    ----------
    path : str or pathlib.Path
        A directory in Hugging Face's layout, or an .npz with OpenAI's names beside hparams.json.
    framework : str
        "numpy" or "torch".
    dtype : str
        float32, float64, float16, or with torch bfloat16; whatever the file holds.

    Returns
    -------
    config : GPTConfig
    parameters : dict of str to numpy.ndarray or torch.Tensor
        With the names and shapes, and in the order, of ``parameter_shapes(config)``.

    Raises
    ------
    ValueError
        If a file is missing, damaged or a pickle; or a tensor is missing, has another shape, is
        not finite, or is not one of the model's.
    """
    path = Path(path)
    check_target(framework, dtype)
    if path.suffix == ".npz":
        return load_openai(path, framework=framework, dtype=dtype)
    if not path.is_dir():
        _refuse_path(path)
    stored = _strip(_find_tensors(path))
    config = read_config(path / CONFIG)
    head = stored.pop(HEAD, None) if config.tied else None
    check_tensors(stored, parameter_shapes(config), str(path))
    if head is not None:
        _check_tied(stored[TABLE], head)
    return config, {
        name: convert(name, stored[name], framework, dtype) for name in parameter_shapes(config)
    }


def save_gpt2(
    directory: str | Path,
    config: GPTConfig,
    parameters: "Mapping[str, np.ndarray | torch.Tensor]",
    tokenizer: Tokenizer | None = None,
    chat: Mapping[str, str] | None = None,
) -> None:
    """Write a model as Hugging Face does; the files that were there stay until all are written.

    Parameters
    ----------
    directory : str or pathlib.Path
        Made if it is not there.
    config : GPTConfig
        One that Hugging Face's GPT-2 has no name for is written so that only gptwin reads it.
    parameters : mapping of str to numpy.ndarray or torch.Tensor
        As `load_gpt2` returns; stored in the dtype they have.
    tokenizer : Tokenizer, optional
        Written beside the weights.
    chat : mapping of str to str, optional
        Of a model that chats: "end", the token that ends a turn; "pad"; and "template", the Jinja
        template of transformers that writes a conversation as it was trained on.

    Raises
    ------
    ValueError
        If a tensor is missing, has another shape, or is not one of the model's; or the tokenizer
        has ids that the model has not.
    OSError
        If the disk is full, say.
    """
    shapes = parameter_shapes(config)
    check_tensors(parameters, shapes, "parameters")
    tensors = own_memory({_their_name(name): parameters[name] for name in shapes})
    end_of_text = None
    files: dict[str, Content] = {}
    if tokenizer is not None:
        if tokenizer.vocab_size > config.vocab_size:
            expected = f"at most the model's {config.vocab_size} ids"
            refuse("tokenizer", expected, str(tokenizer.vocab_size), "another model's")
        end_of_text = tokenizer.special_tokens.get(END_OF_TEXT)
        files |= tokenizer.files()
    end = None
    if tokenizer is not None and chat is not None:
        end = tokenizer.special_tokens[chat["end"]]
        files |= _chat_files(tokenizer, chat, files)
    files[CONFIG] = config_json(config, end_of_text, end)
    # transformers asks for the entry "format".
    files[WEIGHTS] = lambda path: save_tensors(tensors, path, {"format": "pt"})
    write_together(Path(directory), files)


def _chat_files(
    tokenizer: Tokenizer, chat: Mapping[str, str], files: Mapping[str, Content]
) -> dict[str, Content]:
    """Return what lets transformers begin and end a turn as the model was taught."""
    ids = tokenizer.special_tokens
    ends = [ids[chat["end"]], *([ids[END_OF_TEXT]] if END_OF_TEXT in ids else [])]
    stops = {
        "bos_token_id": ids.get(END_OF_TEXT),
        "eos_token_id": ends,
        "pad_token_id": ids[chat["pad"]],
    }
    tokens = {"eos_token": chat["end"], "pad_token": chat["pad"]}
    classes = json.loads(str(files[CLASS_FILE])) | tokens | {"chat_template": chat["template"]}
    special = json.loads(str(files[SPECIAL_FILE])) | tokens
    return {
        GENERATION: json.dumps(stops, indent=1) + "\n",
        CLASS_FILE: json.dumps(classes, ensure_ascii=False, indent=1),
        SPECIAL_FILE: json.dumps(special, ensure_ascii=False, indent=1),
        TEMPLATE: chat["template"],
    }


def stop_tokens(path: str | Path, tokenizer: Tokenizer) -> list[int]:
    """Return the tokens that end what a model says.

    Parameters
    ----------
    path : str or pathlib.Path
        A folder in Hugging Face's layout.
    tokenizer : Tokenizer
        Its own.

    Returns
    -------
    list of int
        `<|endoftext|>`, if there is one, and what generation_config.json and config.json name.
    """
    ids = set()
    if END_OF_TEXT in tokenizer.special_tokens:
        ids.add(tokenizer.special_tokens[END_OF_TEXT])
    for name in (GENERATION, CONFIG):
        file = Path(path) / name
        named = read_json(file).get("eos_token_id") if file.exists() else None
        listed = named if isinstance(named, list) else [named]
        ids |= {i for i in listed if isinstance(i, int) and 0 <= i < tokenizer.vocab_size}
    return sorted(ids)


def with_vocabulary(
    config: GPTConfig,
    parameters: Mapping[str, torch.Tensor],
    known: int,
    wanted: int,
    seed: int = 0,
) -> tuple[GPTConfig, dict[str, torch.Tensor]]:
    """Give a model a row for each token that there is, and for nothing else.

    A table that was padded to a round number of rows loses the padding, so that no token can be
    drawn that means nothing. New tokens begin as the mean of those that are known, with GPT-2's
    noise of 0.02, so that they are neither likely nor all the same.

    Parameters
    ----------
    config : GPTConfig
    parameters : mapping of str to torch.Tensor
    known : int
        Tokens that were trained: the tokenizer's.
    wanted : int
        Tokens that there shall be; at least `known`.
    seed : int
        Of the noise.

    Returns
    -------
    config, parameters
        As they were where nothing is to be done.

    Raises
    ------
    ValueError
        If the table has fewer rows than the tokenizer has tokens.
    """
    if known > config.vocab_size:
        expected = f"at most the model's {config.vocab_size} ids"
        refuse("tokenizer", expected, str(known), "another model's tokenizer")
    if known == wanted == config.vocab_size:
        return config, dict(parameters)
    resized = dict(parameters)
    for name in (TABLE, HEAD):
        if name in parameters:
            rows = parameters[name][:known]
            noise = torch.randn(
                (wanted - known, rows.shape[1]), generator=torch.Generator().manual_seed(seed)
            )
            fresh = rows.float().mean(0) + 0.02 * noise
            resized[name] = torch.cat([rows, fresh.to(rows)])
    return dataclasses.replace(config, vocab_size=wanted), resized


def _their_name(name: str) -> str:
    return name if name == HEAD else PREFIX + name


def _strip(stored: dict[str, Stored]) -> dict[str, Stored]:
    """Take the prefix from the names, and leave out the buffers."""
    stripped: dict[str, Stored] = {}
    for name, tensor in stored.items():
        short = name.removeprefix(PREFIX)
        if BUFFER.fullmatch(short):
            continue
        if short in stripped:
            cause = "two models in one file"
            refuse(f"{tensor.file}: {short}", "one tensor", "it with and without prefix", cause)
        stripped[short] = tensor
    return stripped


def _check_tied(table: Stored, head: Stored) -> None:
    """Refuse a head that differs from the token table although config.json ties them."""
    if head.shape == table.shape and torch.equal(head.read(), table.read()):
        return
    refuse(
        f"{head.file}: {HEAD}",
        "the same numbers as wte.weight, since config.json says tie_word_embeddings true",
        f"others, of shape {head.shape}",
        "a head trained on its own: write tie_word_embeddings false; transformers ignores it too",
    )


def _find_tensors(directory: Path) -> dict[str, Stored]:
    """List the tensors of model.safetensors, or of the files that its index names."""
    if (directory / WEIGHTS).exists():
        return read_safetensors(directory / WEIGHTS)
    if (directory / INDEX).exists():
        return _read_shards(directory / INDEX)
    names = sorted(path.name for path in directory.iterdir())
    for name in names:
        if name.endswith((*PICKLES, ".index", ".meta")):
            refuse(str(directory), WEIGHTS, f"only {name}", PICKLE_REASON)
    got = ", ".join(names) or "nothing"
    refuse(str(directory), f"{WEIGHTS}, or {INDEX}", got, "the tokenizer alone, or another folder")


def _read_shards(index: Path) -> dict[str, Stored]:
    """List the tensors of a model cut into several files; each is where the index says."""
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        refuse(str(index), "an entry weight_map with the file of each tensor", repr(listed))
    for name in listed.values():
        if not isinstance(name, str) or Path(name).name != name:
            cause = "an index that was tampered with"
            refuse(str(index), "names of files beside it", repr(name), cause)
    shards = {name: read_safetensors(index.parent / name) for name in sorted(set(listed.values()))}
    for tensor, name in listed.items():
        if tensor not in shards[name]:
            cause = "index and files of two different saves"
            refuse(f"{index.parent / name}: {tensor}", "there, says the index", "nothing", cause)
    return {tensor: shards[name][tensor] for tensor, name in listed.items()}


def _refuse_path(path: Path) -> None:
    if path.suffix in PICKLES:
        refuse(str(path), f"a directory with {WEIGHTS}", "a pickle", PICKLE_REASON)
    got = "a file" if path.exists() else "nothing there"
    cause = "the directory that holds it is meant" if path.exists() else "a wrong path"
    refuse(str(path), f"a directory with {CONFIG} and {WEIGHTS}", got, cause)
