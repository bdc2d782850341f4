"""A model to be asked, from disk: GPT-2's weights in Hugging Face's layout, or a run of gptwin."""

from pathlib import Path
from typing import NamedTuple

from ...core.checks import refuse
from ...kernels.model.gpt import GPT
from ..formats.model import model_of, read_gpt2
from ..formats.tokenizer import Tokenizer
from ..formats.weights import CONFIG

STAGES = ("ppo", "sft", "pretrain")  # the last one that has ended is meant


class Loaded(NamedTuple):
    """A model in evaluation mode, its tokenizer, and the folder they are from."""

    model: GPT
    tokenizer: Tokenizer
    folder: Path


def find_weights(directory: str | Path) -> Path:
    """Find the model that a folder stands for.

    Parameters
    ----------
    directory : str or pathlib.Path
        A model's own folder, a stage's, or a run's: the model of its last stage.

    Returns
    -------
    pathlib.Path
        A folder in Hugging Face's layout.

    Raises
    ------
    ValueError
        If there is none.
    """
    root = Path(directory)
    for folder in (root, root / "model", *(root / stage / "model" for stage in STAGES)):
        if (folder / CONFIG).is_file():
            return folder
    got = "a folder without one" if root.is_dir() else "nothing there"
    cause = "a wrong path, or a run none of whose stages has ended"
    refuse("model", f"a folder with {CONFIG}, or a run", f"{directory}, {got}", cause)


def load_model(directory: str | Path) -> Loaded:
    """Read a model and its tokenizer.

    Parameters
    ----------
    directory : str or pathlib.Path
        As in `find_weights`.

    Returns
    -------
    Loaded
        On a GPU if there is one. A padded table's rows, which are no token's, are left out.

    Raises
    ------
    ValueError
        If a file is missing or damaged.
    """
    folder = find_weights(directory)
    tokenizer, config, parameters = read_gpt2(folder)
    return Loaded(model_of(config, parameters), tokenizer, folder)
