"""The cores of a machine without a GPU, in two halves that each take a share of a batch.

PyTorch gives every operator to all cores and goes on when the last of them is done, some thousand
times in an optimizer step, and much of what a core then reads lies in another's cache. Two threads
that each take half of the rows with half of the cores meet once. Gradients are added as they come:
two summands have one sum, in whatever order, so that a step stays the same bits. (Three have not:
hence halves.)
"""

import concurrent.futures
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..common.launch import backend, runs_on_triton
from ..model.gpt import GPT

HALVES = 2


class Halves:
    """Compute shares of a batch, side by side where that may be.

    Parameters
    ----------
    in_halves : bool
        False: one share, by all cores.
    """

    def __init__(self, *, in_halves: bool) -> None:
        self.in_halves = in_halves
        self.pool: concurrent.futures.ThreadPoolExecutor | None = None

    @classmethod
    def of(cls, alone: bool, *models: GPT) -> "Halves":
        """Decide whether models may be run by two threads at a time.

        Parameters
        ----------
        alone : bool
            Whether one process trains the models, on a CPU. Ranks wait for each other in a fixed
            order, which two threads have not.
        *models : GPT
            Dropout would draw their numbers in a fixed order, too; and kernels are for a GPU.

        Returns
        -------
        Halves
        """
        drawing = any(model.config.dropout > 0 for model in models)
        tables = {f"table_{i}": model.wte.weight for i, model in enumerate(models)}
        return cls(in_halves=alone and not drawing and not runs_on_triton("halves", **tables))

    def shares(self, rows: np.ndarray) -> list[np.ndarray]:
        """Cut rows of a batch into shares.

        Parameters
        ----------
        rows : numpy.ndarray of int [row]
            In any order.

        Returns
        -------
        list of numpy.ndarray of int
            `rows` itself, or every other row in ascending order.
        """
        if self._side_by_side() and len(rows) >= HALVES:
            return [np.sort(rows)[i::HALVES] for i in range(HALVES)]
        return [rows]

    def map(self, function: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
        """Call a function for each share: all at once, or in order if that must not be.

        Parameters
        ----------
        function : callable
            May run in another thread, with gradients on or off as they are here.
        *arguments : sequences
            Of each call, as in `map`.

        Returns
        -------
        list
            The results, in order.
        """
        calls = list(zip(*arguments, strict=True))
        if len(calls) == 1 or not self._side_by_side():
            return [function(*own) for own in calls]
        return list(self._threads().map(self._in_thread(function), calls))

    def _threads(self) -> concurrent.futures.ThreadPoolExecutor:
        if self.pool is None:
            self.pool = concurrent.futures.ThreadPoolExecutor(HALVES)
        return self.pool

    def _in_thread(self, function: Callable[..., Any]) -> Callable[[tuple[Any, ...]], Any]:
        """Return what calls a function in another thread, as here but with half of the cores."""
        n_threads = max(1, torch.get_num_threads() // HALVES)
        with_gradient = torch.is_grad_enabled()

        def call(own: tuple[Any, ...]) -> Any:
            torch.set_num_threads(n_threads)  # of this thread
            # Where kernels run nothing is cut in halves (`of`); a thread asks for itself.
            with backend("eager"), torch.set_grad_enabled(with_gradient):
                return function(*own)

        return call

    def _side_by_side(self) -> bool:
        return self.in_halves and torch.get_num_threads() >= HALVES
