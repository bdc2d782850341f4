"""A contract for a kernel that has none: read off the launches that were seen, to be looked at.

An axis is named after the number that the kernel was given and that is as long as the axis in all
launches; one that none names gets a name of its own, the same for all axes that are always alike.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from . import compile as front_end
from .call import Call


def propose(calls: list[Call], used: Mapping[str, set[str]] | None = None) -> str:
    """Propose a contract.

    Parameters
    ----------
    calls : list of Call
        Launches of one kernel; the more sizes they have, the fewer accidents.
    used : mapping of str to set of str, optional
        By tensor, the numbers that its addresses are made of: of those its strides are. Without,
        a stride is whose its name says.

    Returns
    -------
    str
        As in contract.py.
    """
    return _Proposal(calls, used).text()


class _Proposal:
    def __init__(self, calls: list[Call], used: Mapping[str, set[str]] | None) -> None:
        self.calls, self.used = calls, used
        self.arguments = [front_end.arguments(call) for call in calls]
        self.names: dict[tuple[int, ...], str] = {}
        for name in self.arguments[0]:
            given = (a.get(name) for a in self.arguments)
            seen = tuple(n for n in given if isinstance(n, int) and not isinstance(n, bool))
            # A stride may happen to be as long as an axis; it is not what names it.
            if len(seen) == len(calls) and "stride" not in name:
                self.names.setdefault(seen, name)
        self.free = (f"size_{i}" for i in itertools.count())

    def text(self) -> str:
        lines = list(self.shapes())
        lines.append("grid[" + ", ".join(self.grid()) + "]")
        lines += self.facts()
        return "\n".join(lines)

    def size(self, seen: Iterable[int]) -> str:
        """Name an axis by its lengths in all launches."""
        key = tuple(seen)
        if len(set(key)) == 1 and key not in self.names and len(key) > 1:
            return str(key[0])
        if key not in self.names:
            self.names[key] = next(self.free)
        return self.names[key]

    def shapes(self) -> Iterator[str]:
        for name, value in self.arguments[0].items():
            if not isinstance(value, torch.Tensor):
                continue
            seen = [a[name] for a in self.arguments if isinstance(a.get(name), torch.Tensor)]
            if len({t.ndim for t in seen}) > 1 or len(seen) < len(self.calls) or value.ndim == 0:
                yield f"{name.removesuffix('.ptr')}[{self.size(t.numel() for t in seen)}]"
                continue
            sizes = [self.size(t.shape[i] for t in seen) for i in range(value.ndim)]
            strides = [self.stride(name, seen, i) for i in range(value.ndim)]
            if any(strides) and not name.endswith(".ptr"):
                sizes = [
                    f"{n}:{s or self.packed(sizes, i)}"
                    for i, (n, s) in enumerate(zip(sizes, strides, strict=True))
                ]
            elif all(t.is_contiguous() for t in seen) and self.is_flat(sizes):
                sizes = [self.size(t.numel() for t in seen)]
            yield f"{name.removesuffix('.ptr')}[{', '.join(sizes)}]"

    def is_flat(self, sizes: list[str]) -> bool:
        """Say whether the kernel is told nothing of a tensor's axes: then it is one long row."""
        return len(sizes) > 1 and all(n.startswith("size_") for n in sizes)

    def packed(self, sizes: list[str], axis: int) -> str:
        return " * ".join(sizes[axis + 1 :]) or "1"

    def stride(self, tensor: str, seen: list[torch.Tensor], axis: int) -> str:
        """Find the number that the kernel was given for a stride."""
        wanted = tuple(t.stride(axis) for t in seen)
        found = [
            name
            for name in self.arguments[0]
            if "stride" in name and tuple(a.get(name) for a in self.arguments) == wanted
        ]
        if self.used is not None:
            return next(
                (n for n in found if n in self.used.get(tensor.removesuffix(".ptr"), ())), ""
            )
        own = [name for name in found if self.owner(name) == tensor]
        packed = all(t.is_contiguous() for t in seen)
        return next(iter(own or ([] if packed else found)), "")

    def owner(self, stride: str) -> str:
        """Say whose a stride is by its name: w_stride, stride_wk; else the first tensor's."""
        tensors = [n for n, value in self.arguments[0].items() if isinstance(value, torch.Tensor)]
        before, _, after = (part.strip("_") for part in stride.partition("stride"))
        for tensor in tensors:
            stem = tensor.removesuffix("_ptr").removesuffix("ptr")
            if (before and stem.startswith(before)) or (stem and after.startswith(stem)):
                return tensor
            if stem and before.startswith(stem + "_"):
                return tensor
        return tensors[0]

    def grid(self) -> Iterator[str]:
        for axis in range(max(len(call.grid) for call in self.calls)):
            yield self.programs([(*call.grid, 1, 1)[axis] for call in self.calls])

    def programs(self, seen: list[int]) -> str:
        """Write how many programs there are: a size, or tiles of one or of two."""
        key = tuple(seen)
        if key in self.names:
            return self.names[key]
        if set(seen) == {1}:
            return "1"
        tiles = self.tiles()
        for text, counts in tiles:
            if counts == seen:
                return text
        for (a, x), (b, y) in itertools.combinations([*tiles, *self.plain()], 2):
            if [m * n for m, n in zip(x, y, strict=True)] == seen:
                return f"{a} * {b}"
        return self.size(seen)

    def plain(self) -> list[tuple[str, list[int]]]:
        return [(name, list(seen)) for seen, name in self.names.items()]

    def tiles(self) -> list[tuple[str, list[int]]]:
        """List sizes cut into tiles of the kernel's constants, those of a like name first."""
        constants = [self.numbers(call) for call in self.calls]
        return [
            (
                f"cdiv({size}, {block})",
                [-(-n // c[block]) for n, c in zip(seen, constants, strict=True)],
            )
            for seen, size in self.names.items()
            for block in sorted(constants[0], key=lambda name: not _alike(size, name))
            if all(c.get(block, 0) > 0 for c in constants)
        ]

    def numbers(self, call: Call) -> dict[str, int]:
        found: dict[str, Any] = front_end.constants(call)
        return {n: v for n, v in found.items() if isinstance(v, int) and not isinstance(v, bool)}

    def facts(self) -> Iterator[str]:
        """Find constants that no size goes beyond: a block that holds a whole row."""
        constants = [self.numbers(call) for call in self.calls]
        for seen, name in self.names.items():
            for block in constants[0]:
                pairs = [(n, c.get(block, 0)) for n, c in zip(seen, constants, strict=True)]
                if all(n <= b < 2 * max(n, 1) for n, b in pairs):
                    yield f"{name} <= {block}"


def _alike(size: str, block: str) -> bool:
    """Say whether a block is a size's by its name: BLOCK_SIZE_N is N's, BLOCK_ROWS n_rows'."""
    return size.lower().split("_")[-1] == block.lower().split("_")[-1]
