"""config.json, Hugging Face's description of a GPT-2, and GPTConfig: from each to the other.

Hugging Face's GPT-2 has options that this one has not, and the other way round. A file that asks
for what would be computed differently here is refused, rather than loaded into a model that answers
slightly wrong. A configuration that transformers could not run (GPT-3's bands, no biases, norms
after the branches) is written as model_type "gptwin", which it refuses as well.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from ...core.checks import refuse
from ...core.model.presets import GPTConfig

ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu_erf",
}
# What the options must be for the model to be the one computed here; absent means the same.
FIXED = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
OWN_TYPE = "gptwin"
# The largest sizes that are read: what is beyond them is a mistake, and would take minutes to find.
LARGEST = {
    "d_model": 2**20,
    "vocab_size": 2**24,
    "n_ctx": 2**24,
    "n_layer": 10_000,
    "n_head": 2**16,
}
THEIR_NAMES = {"n_ctx": "n_positions", "d_model": "n_embd"}
NUMBERS = ("layer_norm_epsilon", "resid_pdrop", "embd_pdrop", "attn_pdrop")


def read_config(path: Path) -> GPTConfig:
    """Read config.json.

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    GPTConfig

    Raises
    ------
    ValueError
        If it is not there, no JSON, or describes a model that is not GPT-2.
    """
    found = read_json(path)
    try:
        if OWN_TYPE in found:
            if not isinstance(found[OWN_TYPE], dict):
                refuse(OWN_TYPE, "a JSON object", repr(found[OWN_TYPE])[:40])
            config = GPTConfig(**found[OWN_TYPE])
            _check_sizes(dataclasses.asdict(config), LARGEST)
            return config
        return _from_hugging_face(found)
    except KeyError as error:
        refuse(str(path), f"the entry {error}", "a file without it", "another model's config.json")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If it is not there or holds something else.
    """
    try:
        found = json.loads(path.read_bytes(), object_pairs_hook=_once_each)
    except FileNotFoundError:
        refuse(str(path), "a file", "nothing there", "only the weights were copied")
    except ValueError as error:
        refuse(str(path), "JSON", str(error), "a file cut short, or a web page saved instead")
    if not isinstance(found, dict):
        refuse(str(path), "a JSON object", type(found).__name__)
    return found


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, unless it says one thing twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        refuse(next(n for n in names if names.count(n) > 1), "one entry", "two of this name")
    return found


def _check_sizes(found: dict[str, Any], most: dict[str, int]) -> None:
    """Refuse sizes that are no whole numbers, or larger than any model's."""
    for name, limit in most.items():
        value = found[name]
        if not isinstance(value, int) or isinstance(value, bool):
            refuse(name, "a whole number", repr(value), "written by another program")
        if not 1 <= value <= limit:
            refuse(name, f"from 1 to {limit:,}", f"{value:,}", "a damaged or edited file")


def _from_hugging_face(found: dict[str, Any]) -> GPTConfig:
    if found.get("model_type") != "gpt2":
        refuse("model_type", "'gpt2'", repr(found.get("model_type")), "another architecture")
    for name, value in FIXED.items():
        if found.get(name, value) != value:
            refuse(name, repr(value), repr(found[name]), "a variant of GPT-2 not computed here")
    _check_sizes(found, {THEIR_NAMES.get(name, name): most for name, most in LARGEST.items()})
    for name in NUMBERS:
        value = found.get(name, 0.1)
        if not isinstance(value, int | float) or isinstance(value, bool):
            refuse(name, "a number", repr(value), "written by another program")
    width = found["n_embd"]
    if found.get("n_inner") not in (None, 4 * width):
        refuse("n_inner", f"null or 4 · n_embd = {4 * width}", repr(found["n_inner"]))
    activation = found.get("activation_function", "gelu_new")
    if activation not in ACTIVATIONS:
        refuse("activation_function", f"one of {', '.join(ACTIVATIONS)}", repr(activation))
    # Only training uses them; 0.1 is what transformers takes for one that is absent.
    dropouts = {found.get(name, 0.1) for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
    if len(dropouts) > 1:
        cause = "here it is one number, and matters to training alone: make them equal"
        refuse("resid_pdrop, embd_pdrop, attn_pdrop", "the same", str(sorted(dropouts)), cause)
    return GPTConfig(
        vocab_size=found["vocab_size"],
        n_ctx=found["n_positions"],
        n_layer=found["n_layer"],
        n_head=found["n_head"],
        d_model=width,
        activation=ACTIVATIONS[activation],
        eps=found.get("layer_norm_epsilon", 1e-5),
        tied=found.get("tie_word_embeddings", True),
        dropout=dropouts.pop(),
    )


def config_json(config: GPTConfig, end_of_text: int | None, end: int | None = None) -> str:
    """Write config.json.

    Parameters
    ----------
    config : GPTConfig
    end_of_text : int or None
        Id of the token that ends a document, if there is one.
    end : int, optional
        Id of the token that ends what the model says, if it is another: that of a chat's turn.

    Returns
    -------
    str
        That `read_config` turns into an equal configuration.
    """
    to_theirs = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    written: dict[str, Any] = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocab_size,
        "n_positions": config.n_ctx,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.d_model,
        "activation_function": to_theirs[config.activation],
        "layer_norm_epsilon": config.eps,
        "tie_word_embeddings": config.tied,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text if end is None else end,
    }
    if _from_hugging_face(written) != config:
        written["model_type"], written["architectures"] = OWN_TYPE, []
        written[OWN_TYPE] = dataclasses.asdict(config)
    return json.dumps(written, indent=1) + "\n"
