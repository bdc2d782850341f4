"""Who computes an iteration of PPO: one process or several ranks, and the halves of a CPU's cores.

ppo.py reads as if one process did everything in one piece. A `Crew` makes that true for many: each
rank answers, judges and learns from its part of the rows, in two halves if it is a CPU alone
(kernels/cpu/halves.py), and every rank sees the whole of what was found. For one process on a GPU
each verb does nothing but the obvious.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from ...kernels.cpu.halves import Halves
from ...kernels.model.gpt import GPT
from ..ranks.group import Group
from ..ranks.sharding import shard, together
from ..training.run import Statistics
from .rollout import Responses

Element = TypeVar("Element")


class Crew:
    """Whoever computes an iteration.

    Parameters
    ----------
    group : Group
        The ranks.
    *models : GPT
        All that will be run. They are shared out over the ranks, or made ready for two threads, in
        place, if the group or the machine asks for it.
    """

    def __init__(self, group: Group, *models: GPT) -> None:
        self.group, self.device = group, group.device
        for model in models:
            shard(model, group)
        alone = group.world == 1 and group.device.type == "cpu"
        self.halves = Halves.of(alone, *models)

    def part(self, batch: Sequence[Element]) -> list[Element]:
        """Return this rank's part of a batch: every element, if there is one rank."""
        return self.group.part(list(batch))

    def joined(self, part: list[Element]) -> list[Element]:
        """Return the batch whose parts the ranks hold; the same on every rank."""
        return self.group.joined(part)

    def whole(self, part: torch.Tensor, batch: Responses) -> torch.Tensor:
        """Return the tensor [batch, ...] whose rows the ranks hold; the same on every rank.

        Where a rank's rows end before the batch's responses do, they go on with 0.
        """
        return self.group.joined_rows(part, batch.mask.shape[: part.ndim])

    def of_each(
        self, batch: Responses, function: Callable[[Responses], torch.Tensor]
    ) -> torch.Tensor:
        """Compute something of every response.

        Parameters
        ----------
        batch : Responses
            The same on every rank.
        function : callable
            Of some of the responses: a tensor [row, response].

        Returns
        -------
        torch.Tensor [batch, response]
            The same on every rank; 0 outside the mask.
        """
        mine = batch
        if self.group.world > 1:
            numbers = self.part(range(len(batch.tokens)))
            mine = batch.rows(torch.tensor(numbers, device=self.group.device))
        shares = self.halves.shares(np.arange(len(mine.tokens)))
        found = self.halves.map(lambda rows: function(mine.rows(torch.from_numpy(rows))), shares)
        joined = found[0].new_zeros(mine.mask.shape)
        for i, numbers_of_share in enumerate(found):
            joined[i :: len(found), : numbers_of_share.shape[1]] = numbers_of_share.detach()
        return self.whole(torch.where(mine.mask, joined, 0.0), batch)

    def add(self, function: Callable[[np.ndarray], Statistics], rows: np.ndarray) -> Statistics:
        """Call a function for shares of some rows, and add what it returns.

        Parameters
        ----------
        function : callable
            Of some of the rows; it adds their part of the gradients to those that are there, and
            returns their part of the statistics.
        rows : numpy.ndarray of int [row]
            The same on every rank.

        Returns
        -------
        dict of str to float
            The sums, but the least of what is named `*_min` and the greatest of `*_max`; the same
            on every rank.
        """
        shares = self.halves.shares(rows[self.group.rank :: self.group.world])
        found = self.halves.map(function, shares)
        lows = [name for name in found[0] if name.endswith("_min")]
        highs = [name for name in found[0] if name.endswith("_max")]
        summed = [name for name in found[0] if name not in {*lows, *highs}]
        sums = self.group.total_of_each([sum(part[name] for part in found) for name in summed])
        # The greatest is minus the least of the negatives: one message for both.
        least = self.group.least(
            # NumPy's, since Python's pass a NaN over.
            [float(np.min([part[name] for part in found])) for name in lows]
            + [-float(np.max([part[name] for part in found])) for name in highs]
        )
        smallest, largest = least[: len(lows)], [-number for number in least[len(lows) :]]
        names, numbers = [*summed, *lows, *highs], [*sums, *smallest, *largest]
        return dict(zip(names, numbers, strict=True))

    def total(self, value: float) -> float:
        """Return the sum of a number over the ranks."""
        return self.group.total(value)

    def holding(self, *models: GPT) -> contextlib.AbstractContextManager[Any]:
        """Hold whole models on every rank while the context lasts; for passes without gradients."""
        return together(*models)
