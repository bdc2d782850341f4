"""A guard of memory: the least that keeps a faulty kernel from being right by luck.

`gptwin sanitize` looks for much more; this is fast enough to run always.
"""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

from ...kernels import interpreter
from .storages import Storages


class Guard:
    """Ends a launch when a lane leaves the tensor that its pointer came from.

    A pointer that the kernel has read from memory must lie in some tensor's memory.
    """

    def __init__(self) -> None:
        self.storages = Storages()
        self.ends = np.zeros((1, 2), dtype=np.int64)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Guard every launch while the context lasts."""
        with interpreter.follow(self), interpreter.observe(self.check), self.storages:
            yield

    def launch(self, launch: interpreter.Launch, run: Callable[[], None]) -> None:
        """Learn where the arguments lie; a pointer that was read from memory has number 0."""
        ends = [(0, 2**62)]
        for _, tensor in launch.tensors:
            sizes = zip(tensor.shape, tensor.stride(), strict=True)
            n_items = 1 + sum((n - 1) * stride for n, stride in sizes) if tensor.numel() else 0
            first = tensor.data_ptr()
            ends.append((first, first + n_items * tensor.element_size()))
        self.ends = np.array(ends)
        run()

    def order(self, n_programs: int) -> range:
        """Leave the programs' order as it is."""
        return range(n_programs)

    def check(self, access: interpreter.Access) -> None:
        """Refuse an access before it is made."""
        assert access.tensors is not None, "launches are followed"
        addresses = access.addresses[access.mask].astype(np.int64)
        numbers = access.tensors[access.mask]
        first, end = self.ends[numbers].T
        outside = (addresses < first) | (addresses + access.itemsize > end)
        unnumbered = addresses[numbers == 0]
        if len(unnumbered):
            held = np.zeros(len(unnumbered), dtype=bool)
            for storage in self.storages.at(unnumbered):
                held |= (storage.start <= unnumbered) & (unnumbered < storage.end)
            outside[numbers == 0] = ~held
        if outside.any():
            raise IndexError(f"{access.kind} out of bounds")
