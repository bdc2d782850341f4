"""The models that are timed, and what a person may choose: shared by CPU and GPU benchmarks."""

import dataclasses
from typing import Any

import numpy as np

from ..core.model.parameters import Parameters, init_parameters
from ..core.model.presets import GPTConfig

QUICK = GPTConfig(vocab_size=61, n_ctx=32, n_layer=2, n_head=2, d_model=16)
# How the size of an iteration of PPO ends that TRL runs, too.
AS_TRL = ", as TRL's"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a person may choose.

    Attributes
    ----------
    quick : bool
        Tiny models, to try every path in seconds; the figures mean nothing.
    threads : int
        Of NumPy's libraries and of PyTorch.
    text : str or None
        tinyshakespeare.txt.
    limit_s : float
        When a part is ended; new rounds stop well before.
    """

    quick: bool = False
    threads: int = 1
    text: str | None = None
    limit_s: float = 540.0


def draw_parameters(config: GPTConfig, seed: int = 0) -> Parameters:
    """Draw a model whose biases are not 0, so that the gates see whether they are used."""
    rng = np.random.default_rng(seed + 1)
    return {
        name: p + rng.normal(0, 0.02, p.shape).astype(p.dtype) if p.ndim == 1 else p
        for name, p in init_parameters(config, seed).items()
    }


def describe_model(config: GPTConfig, **more: Any) -> dict[str, Any]:
    """Return a configuration, and what else was chosen, for the result file."""
    return {"model": dataclasses.asdict(config), **more}
