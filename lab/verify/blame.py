"""Which tile wrote an element: run a case again and watch the kernel's stores.

Only the interpreter can be watched. When the disagreement was found on a GPU, the same case runs
once more in an interpreting process: which program writes which element depends on the shapes and
the configuration alone.
"""

import dataclasses
import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import torch

from ...kernels.common import launch
from ..processes import end_with_parent
from ..twins.find import find_twin, nameless
from ..twins.twin import Case
from .check import prepare, run


@dataclasses.dataclass(frozen=True)
class Tile:
    """The store that last wrote an element.

    Attributes
    ----------
    kernel : str
        The kernel's name.
    program : tuple of int
        Its program id.
    block : tuple of (int, int)
        First and last index that the same store wrote, for each axis of the result.
    where : str
        File and line of the store.
    """

    kernel: str
    program: tuple[int, int, int]
    block: tuple[tuple[int, int], ...]
    where: str

    def __str__(self) -> str:
        """Say it in one line."""
        block = ", ".join(f"{first}..{last}" for first, last in self.block)
        file, _, line = self.where.rpartition(":")
        near = os.path.relpath(file)
        where = self.where if near.startswith("..") else f"{near}:{line}"
        return f"{self.kernel}, program {self.program}, block [{block}], {where}"


def find_tile(
    operation: str, case: Case, dtype: str, result: str, index: tuple[int, ...], text: str | None
) -> Tile | None:
    """Find the tile that wrote one element of a result or gradient.

    Parameters
    ----------
    operation : str
        A twin's name.
    case, dtype, text
        As in `check`.
    result : str
        Name of the result or gradient.
    index : tuple of int
        The element.

    Returns
    -------
    Tile or None
        None if no kernel's store covers the element.
    """
    if launch.INTERPRETED:
        return _watch(operation, case, dtype, result, index, text)
    if operation in nameless:  # no other process could find it
        return None
    request = json.dumps([operation, case, dtype, result, index, text])
    environment = os.environ | {
        "TRITON_INTERPRET": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(
        [sys.executable, "-m", __name__, request, str(os.getpid())],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 or not done.stdout.strip():
        return None
    found = json.loads(done.stdout.splitlines()[-1])
    return found and Tile(
        found["kernel"],
        tuple(found["program"]),
        tuple(tuple(extent) for extent in found["block"]),
        found["where"],
    )


def _watch(
    operation: str, case: Case, dtype: str, result: str, index: tuple[int, ...], text: str | None
) -> Tile | None:
    from ...kernels import interpreter

    twin = find_twin(operation)
    stores: list[Any] = []

    def keep_stores(access: Any) -> None:
        if access.kind != "load":
            stores.append(access)

    prepared = prepare(twin, case, dtype, "cpu", text)
    with launch.backend("triton"), launch.configuration(case.get("configuration", 0)):
        with interpreter.observe(keep_stores):
            tensor = run(twin, twin.kernel, prepared)[result]
    offset = sum(i * stride for i, stride in zip(index, tensor.stride(), strict=True))
    address = tensor.data_ptr() + offset * tensor.element_size()
    # We take the last store: a freed tensor may have had the same memory before.
    for access in reversed(stores):
        if ((access.addresses == address) & access.mask).any():
            block = _extent(tensor, access)
            return Tile(access.kernel, access.program, block, access.where)
    return None


def _extent(tensor: torch.Tensor, access: Any) -> tuple[tuple[int, int], ...]:
    """Turn the addresses of one store into first and last index along each axis."""
    written = np.unique(access.addresses[access.mask]).astype(np.int64)
    remaining = (written - tensor.data_ptr()) // tensor.element_size()
    extents = {}
    for axis in sorted(range(tensor.ndim), key=tensor.stride, reverse=True):
        stride = max(1, tensor.stride(axis))
        position, remaining = remaining // stride, remaining % stride
        extents[axis] = (int(position.min()), int(position.max()))
    return tuple(extents[axis] for axis in range(tensor.ndim))


if __name__ == "__main__":
    end_with_parent(int(sys.argv[2]))
    tile = find_tile(*json.loads(sys.argv[1]))
    print(json.dumps(tile and dataclasses.asdict(tile)))
