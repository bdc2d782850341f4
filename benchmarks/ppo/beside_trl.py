"""An iteration of PPO on a GPU, TRL's and ours: what `gptwin bench gpu ppo` runs beside its own.

Policy, reference, value network and reward model of GPT-2 124M's size each, in float32, for both;
the value network stands apart in ours as it does in TRL's. That both compute the same is shown on a
CPU (agreement.py). TRL builds its trainer anew for each iteration: that is not counted, nor is what
it does behind the last update.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast

from ...core.model.presets import preset
from ..models import AS_TRL, QUICK
from ..timing import Mark
from . import trl
from .peer import OURS, TRL, Make
from .trl import Shape


@dataclasses.dataclass(frozen=True)
class Peer:
    """TRL's iteration, as something that is run whole."""

    settings: dict[str, Any]
    run: Callable[[Mark], int]
    gate: Callable[[], dict[str, Any]] = dict


def beside_trl(make: Make, device: str, *, tiny: bool) -> dict[str, Callable[[], Any]]:
    """Return what makes both iterations.

    Parameters
    ----------
    make : callable
        `ppo_like` of rl/studies/workloads.py.
    device : str
    tiny : bool
        For a dry run.

    Returns
    -------
    dict
        A cell's name to what makes its workload.
    """
    config = QUICK if tiny else preset("gpt2")
    shape = Shape(config, 4, 5, 6, 2) if tiny else Shape(config, n_response=32)
    about = {
        "batch": shape.batch, "n_prompt": shape.n_prompt, "n_response": shape.n_response,
        "epochs": shape.epochs, "minibatches": shape.minibatches,
    }  # fmt: skip
    ours = functools.partial(make, config, **about, **OURS["gptwin"], device=device)
    name = f"{shape.batch} episodes{AS_TRL} | iteration"
    return {f"{name} | gptwin": ours, f"{name} | {TRL}": functools.partial(_peer, shape, device)}


def _peer(shape: Shape, device: str) -> Peer:
    trl.expect_installed()

    def run(mark: Mark) -> int:
        over: list[bool] = []
        ending = cast(Callable[[str | None], None], mark)  # None ends a phase and begins none

        def tell(phase: str) -> None:
            if not over:
                ending(phase or None)

        trl.train(shape, 1, tell, lambda: over.append(True), device=device)
        return shape.batch * shape.n_response

    return Peer(dataclasses.asdict(shape) | {"dtype": "float32"}, run)
