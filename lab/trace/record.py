"""Every tile of every program with its numbers, in the order of time: what the page shows.

Launches are told apart by the door's record (kernels/common/launch.py), which has an entry for each
that has ended, with its tensors. They stay alive with it, so an address belongs to one for good.
"""

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
import torch

from ...kernels import interpreter
from ...kernels.common import launch

# A page holds so many numbers; what comes after them is counted, not shown.
MOST_LANES = 300_000


@dataclasses.dataclass(frozen=True, eq=False)
class Tile:
    """One load, store or atomic of one program.

    Attributes
    ----------
    launch : int
        Its number.
    program : tuple of int
    kind : str
        "load", "store" or "atomic".
    where : str
        "file:line".
    addresses : numpy.ndarray
        Of each lane, in the tile's shape.
    mask : numpy.ndarray of bool
        The lanes that were active.
    values : numpy.ndarray of float64
        What was loaded or stored; of a lane that was not active, nothing that counts.
    """

    launch: int
    program: tuple[int, int, int]
    kind: str
    where: str
    addresses: np.ndarray
    mask: np.ndarray
    values: np.ndarray


class Recorder:
    """Keeps what kernels load and store, up to a number of lanes.

    Parameters
    ----------
    log : list of launch.Launch
        Of the door; grows while programs run.
    """

    def __init__(self, log: list[launch.Launch]) -> None:
        self.log = log
        self.tiles: list[Tile] = []
        self.n_lanes = self.n_left_out = 0

    def access(self, access: interpreter.Access) -> None:
        """Keep one, before memory is touched."""
        size = access.addresses.size
        if self.n_lanes + size > MOST_LANES:
            self.n_left_out += 1
            return
        self.n_lanes += size
        self.tiles.append(
            Tile(
                launch=len(self.log),
                program=access.program,
                kind=access.kind,
                where=access.where,
                addresses=access.addresses.astype(np.int64),
                mask=np.array(access.mask),
                values=interpreter.peek(access),
            )
        )


@contextlib.contextmanager
def recording_tiles() -> Iterator[Recorder]:
    """Keep all tiles while the context lasts.

    Yields
    ------
    Recorder
    """
    with launch.recording() as log:
        recorder = Recorder(log)
        with interpreter.observe(recorder.access):
            yield recorder


def addresses_in_order(tensor: torch.Tensor) -> np.ndarray:
    """List the addresses of a tensor's elements in the order of its axes.

    Parameters
    ----------
    tensor : torch.Tensor

    Returns
    -------
    numpy.ndarray of int64
    """
    at = np.zeros(1, np.int64)
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        at = (at[:, None] + np.arange(size) * stride).reshape(-1)
    return tensor.data_ptr() + at * tensor.element_size()
