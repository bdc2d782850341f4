"""A prompt continued by a model from disk: what `gptwin generate` prints."""

from pathlib import Path
from typing import Any, NamedTuple

from ..core.model import generation as core_generation
from .formats.model import model_of, read_gpt2
from .formats.tokenizer_files import END_OF_TEXT
from .formats.weights import stop_tokens
from .stages.generation import generate


class Continuation(NamedTuple):
    """A text that was generated, and its tokens.

    Attributes
    ----------
    text : str
        Without the token that ended it.
    tokens : list of int
        With it.
    """

    text: str
    tokens: list[int]


def continue_text(
    weights: str | Path,
    prompt: str,
    *,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    reference: bool = False,
) -> Continuation:
    """Load a GPT-2 with its tokenizer, and continue a prompt until its text ends.

    Parameters
    ----------
    weights : str or pathlib.Path
        A directory that holds both.
    prompt : str
        If empty, the model begins a text.
    max_new_tokens, temperature, top_k, top_p, seed
        As in `generate`.
    reference : bool
        Run the NumPy model instead of the kernels.

    Returns
    -------
    Continuation

    Raises
    ------
    ValueError
        If a file is missing or damaged, or an option has no meaning.
    """
    tokenizer, config, parameters = read_gpt2(weights)
    begin = tokenizer.special_tokens.get(END_OF_TEXT, 0)
    ends = stop_tokens(weights, tokenizer)
    ids = tokenizer.encode(prompt) or [begin]
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k,
        "top_p": top_p, "seed": seed, "stop_tokens": ends,
    }  # fmt: skip
    if reference:
        arrays = {name: tensor.numpy() for name, tensor in parameters.items()}
        (tokens,) = core_generation.generate(arrays, config, [ids], **options)
    else:
        (tokens,) = generate(model_of(config, parameters), [ids], **options).token_lists()
    return Continuation(tokenizer.decode([t for t in tokens if t not in ends]), tokens)
