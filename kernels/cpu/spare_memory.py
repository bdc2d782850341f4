"""Memory that a training step hands on to the next one, on the CPU.

A large matrix that is freed goes back to the operating system, and the next one gets fresh pages:
zeroed, and mapped one fault at a time when they are first written to. For a matrix that is written
once and read twice this can take longer than the arithmetic. So the functions that know exactly
when a matrix has done its work put it here, and take from here.
"""

import threading

import torch

# 4 MB. Smaller matrices come from memory that the process holds anyhow, and has just used. Where
# they have 1.5 MB (nanoGPT's smallest model) or 3 MB, steps that held them took 1 to 3% longer.
SMALLEST = 2**22
# What lies here unused is at most this: 256 MB.
LIMIT = 2**28
# A matrix may take memory of up to this many times its size: batches differ in length.
LARGER = 2


class SpareMemory:
    """Storages that nobody uses, by size.

    Parameters
    ----------
    limit : int
        Bytes to hold; beyond it, what has lain here longest is freed.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.storages: list[torch.UntypedStorage] = []
        self.lock = threading.Lock()

    def take(self, n_rows: int, n_columns: int, dtype: torch.dtype) -> torch.Tensor:
        """Return a matrix on the CPU whose numbers mean nothing.

        Parameters
        ----------
        n_rows, n_columns : int
        dtype : torch.dtype

        Returns
        -------
        torch.Tensor [n_rows, n_columns]
            Contiguous, on memory from here if some fits.
        """
        n_bytes = n_rows * n_columns * dtype.itemsize
        if n_bytes < SMALLEST:
            return torch.empty(n_rows, n_columns, dtype=dtype)
        with self.lock:
            fitting = [s for s in self.storages if n_bytes <= s.nbytes() <= LARGER * n_bytes]
            if not fitting:
                return torch.empty(n_rows, n_columns, dtype=dtype)
            storage = min(fitting, key=torch.UntypedStorage.nbytes)
            # By identity: two storages are compared number by number.
            self.storages = [s for s in self.storages if s is not storage]
        shape, stride = (n_rows, n_columns), (n_columns, 1)
        return torch.empty(0, dtype=dtype).set_(storage, 0, shape, stride)

    def give(self, *matrices: torch.Tensor) -> None:
        """Leave matrices here that nobody will look at again.

        Parameters
        ----------
        *matrices : torch.Tensor
            On the CPU, each the only one on its memory.
        """
        with self.lock:
            for matrix in matrices:
                if matrix.untyped_storage().nbytes() >= SMALLEST:
                    self.storages.append(matrix.untyped_storage())
            while sum(s.nbytes() for s in self.storages) > self.limit:
                self.storages.pop(0)
