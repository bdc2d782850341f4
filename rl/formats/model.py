"""A model from disk with its tokenizer, ready to be asked: by `gptwin generate`, say, or `chat`."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from ...core.model.presets import GPTConfig
from ...kernels.cpu import speed_up
from ...kernels.model.gpt import GPT
from .tokenizer import Tokenizer
from .weights import load_gpt2, with_vocabulary


class FromDisk(NamedTuple):
    """What a folder in Hugging Face's layout holds.

    Attributes
    ----------
    tokenizer : Tokenizer
    config : GPTConfig
    parameters : dict of str to torch.Tensor
        Without the rows of a padded table, which are no token's: none of them can be drawn.
    """

    tokenizer: Tokenizer
    config: GPTConfig
    parameters: dict[str, torch.Tensor]


def read_gpt2(folder: str | Path) -> FromDisk:
    """Read a model's parameters and its tokenizer.

    Parameters
    ----------
    folder : str or pathlib.Path
        Holds both.

    Returns
    -------
    FromDisk

    Raises
    ------
    ValueError
        If a file is missing or damaged.
    """
    tokenizer = Tokenizer.load(folder)
    n = tokenizer.vocab_size
    config, parameters = load_gpt2(folder, framework="torch")
    return FromDisk(tokenizer, *with_vocabulary(config, parameters, n, n))


def model_of(config: GPTConfig, parameters: Mapping[str, torch.Tensor]) -> GPT:
    """Make a model in evaluation mode, on a GPU if there is one.

    Parameters
    ----------
    config : GPTConfig
    parameters : mapping of str to torch.Tensor
        The model's from now on.

    Returns
    -------
    GPT
    """
    with torch.device("meta"):  # no initial parameters: those of the file take their place
        model = GPT(config)
    model.load_state_dict(parameters, assign=True)
    return speed_up(model.to("cuda" if torch.cuda.is_available() else "cpu").eval())
