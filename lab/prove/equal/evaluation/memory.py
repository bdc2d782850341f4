"""Memory of Numbers: beside each tensor's memory, by address, what is known of its elements.

Memory itself holds the shadow, rounded. A load takes the Number that was stored if memory still
holds that; else only 0, 1, −1, ±∞ and NaN are taken, as constants: what the host computed and
nobody followed cannot slip through. Addresses are checked: one outside every tensor is an error,
never an access.
"""

import ctypes
from typing import Any

import numpy as np
import torch

from ..algebra.degrees import CONSTANT, Degree
from ..algebra.number import NotFollowedError, Number, full, without_log

FLOATS = {"f16": 2, "bf16": 2, "f32": 4, "f64": 8}
KINDS = {
    torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32", torch.float64: "f64",
}  # fmt: skip


class OutOfBoundsError(RuntimeError):
    """An address in no tensor's memory."""


class Cell:
    """The memory of one storage, and the Numbers in it by the size of an element."""

    def __init__(self, storage: torch.UntypedStorage) -> None:
        self.storage = storage  # kept, so that no other tensor comes to the same address
        self.first, self.end = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
        whole: Any = (ctypes.c_char * storage.nbytes()).from_address(self.first)
        self.bytes = np.frombuffer(whole, np.uint8)
        self.tables: dict[int, Table] = {}

    def raw(self, dtype: Any) -> np.ndarray:
        """View the memory as numbers."""
        size = np.dtype(dtype).itemsize
        return self.bytes[: len(self.bytes) // size * size].view(dtype)

    def table(self, size: int) -> "Table":
        """Return the Numbers of this many bytes each."""
        if size not in self.tables:
            self.tables[size] = Table(len(self.bytes) // size)
        return self.tables[size]

    def floats(self, kind: str) -> np.ndarray:
        """Read the memory as floats of a kind, as float64."""
        if kind == "bf16":
            return (self.raw(np.uint16).astype(np.uint32) << 16).view(np.float32)
        return self.raw({"f16": np.float16, "f32": np.float32, "f64": np.float64}[kind])


class Table:
    """What is known of a storage's elements."""

    def __init__(self, n: int) -> None:
        self.x = np.full(n, np.nan)
        self.p, self.q = np.zeros(n, np.int64), np.full(n, -1, np.int64)
        self.logs: tuple[np.ndarray, ...] = ()  # log, unit and rest, once a logarithm is stored
        self.degrees = np.zeros((n, 4), np.float32)
        self.site = np.zeros(n, np.int16)  # which line stored it

    def get(self, i: np.ndarray) -> Number:
        """Return elements by their places."""
        q: Any = self.q[i]
        if (q < 0).all():
            q = None
        log, unit, rest = [part[i] for part in self.logs] or (None, None, None)
        if log is not None and (log == 1).all() and (rest == self.p[i]).all():
            log = unit = rest = None
        degree = Degree.greatest(self.degrees[i])
        return Number(self.x[i], self.p[i], q, log, unit, rest, degree=degree)

    def put(self, i: np.ndarray, number: Number, lanes: np.ndarray | slice, site: int) -> None:
        """Keep some lanes of a Number at places."""
        self.site[i] = site
        self.x[i], self.p[i] = number.x[lanes], number.p[lanes]
        self.q[i] = -1 if number.q is None else number.q[lanes]
        if number.log is not None and not self.logs:
            self.logs = (np.ones_like(self.p), np.zeros_like(self.p), self.p.copy())
        if self.logs:
            log, unit, rest = self.logs
            log[i] = 1 if number.log is None else number.log[lanes]
            unit[i] = 0 if number.unit is None else number.unit[lanes]
            rest[i] = without_log(number)[lanes]
        self.degrees[i] = number.degree


class Memory:
    """All storages that were seen.

    Parameters
    ----------
    trusting : bool
        Take what nobody stored for 0 with memory's shadow: to see what a kernel launches, and
        nothing else.
    """

    def __init__(self, *, trusting: bool = False) -> None:
        self.trusting = trusting
        self.cells: dict[int, Cell] = {}
        self._sorted: list[Cell] = []
        self._sites: dict[str, int] = {}
        self._firsts = self._ends = np.zeros(0, np.int64)

    def know(self, tensor: torch.Tensor) -> None:
        """Allow accesses to a tensor's storage."""
        if tensor.device.type != "cpu":
            return
        storage = tensor.untyped_storage()
        first = storage.data_ptr()
        known = self.cells.get(first)
        if storage.nbytes() and (known is None or known.end < first + storage.nbytes()):
            self.cells[first] = Cell(storage)
            self._sorted = sorted(self.cells.values(), key=lambda cell: cell.first)
            self._firsts = np.array([cell.first for cell in self._sorted], np.int64)
            self._ends = np.array([cell.end for cell in self._sorted], np.int64)

    def _parts(self, at: np.ndarray, size: int, what: str) -> Any:
        """Yield each storage that addresses lie in, with the lanes and their places in it."""
        if not at.size:
            return
        which = np.searchsorted(self._firsts, at, side="right") - 1
        inside = (which >= 0) & (at + size <= self._ends[which])
        if not inside.all():
            lane = int(np.argmin(inside))
            raise OutOfBoundsError(f"{what} outside every tensor, in lane {lane} of {at.size}")
        if which[0] == which[-1] and (which == which[0]).all():
            cell = self._sorted[which[0]]
            yield cell, slice(None), _places(at, cell, size, what)
            return
        for i in np.unique(which):
            lanes, cell = np.flatnonzero(which == i), self._sorted[i]
            yield cell, lanes, _places(at[lanes], cell, size, what)

    # --- integers ---------------------------------------------------------------------------------

    def load(self, at: np.ndarray, dtype: Any, what: str = "load") -> np.ndarray:
        """Read integers at addresses."""
        result = np.zeros(at.shape, dtype)
        for cell, lanes, i in self._parts(at, np.dtype(dtype).itemsize, what):
            result[lanes] = cell.raw(dtype)[i]
        return result

    def store(self, at: np.ndarray, value: np.ndarray, what: str = "store") -> None:
        """Write integers at addresses."""
        for cell, lanes, i in self._parts(at, value.dtype.itemsize, what):
            cell.raw(value.dtype)[i] = value[lanes]

    # --- Numbers ----------------------------------------------------------------------------------

    def load_numbers(self, at: np.ndarray, kind: str = "f32", what: str = "load") -> Number:
        """Read Numbers at addresses [lane].

        Raises
        ------
        OutOfBoundsError
            If an address is in no tensor.
        NotFollowedError
            If memory holds what nobody stored.
        """
        parts = []
        for cell, lanes, i in self._parts(at, FLOATS[kind], what):
            number = cell.table(FLOATS[kind]).get(i)
            held = cell.floats(kind)[i]
            with np.errstate(all="ignore"):
                rounded = _rounded(number.x, kind)
                known = (held == rounded) | (np.isnan(held) & np.isnan(rounded))
            if not known.all():
                if self.trusting:
                    number.x[~known] = held[~known]
                else:
                    number = _constants(number, held.astype(float), ~known, what)
            parts.append((lanes, number))
        if len(parts) == 1:
            return parts[0][1]
        zeros = np.zeros(at.shape, np.int64)
        result = Number(np.zeros(at.shape), zeros, zeros - 1, degree=CONSTANT)
        for lanes, number in parts:
            result[lanes] = number
        return result

    def store_numbers(
        self, at: np.ndarray, number: Number, kind: str = "f32", what: str = "store"
    ) -> None:
        """Write Numbers at addresses [lane]: their shadows, rounded, into memory itself."""
        number = full(number, at.shape)
        site = self._sites.setdefault(what, len(self._sites))
        with np.errstate(all="ignore"):
            rounded = _rounded(number.x, kind)
        for cell, lanes, i in self._parts(at, FLOATS[kind], what):
            cell.table(FLOATS[kind]).put(i, number, lanes, site)
            if kind == "bf16":
                bits = rounded[lanes].astype(np.float32).view(np.uint32) >> 16
                cell.raw(np.uint16)[i] = bits.astype(np.uint16)
            else:
                cell.raw(rounded.dtype)[i] = rounded[lanes]

    def stored_by(self, at: np.ndarray, kind: str) -> str:
        """Return the line that stored the Number at an address; "" if no kernel did."""
        ((cell, _, i),) = self._parts(at, FLOATS[kind], "read")
        site = int(cell.table(FLOATS[kind]).site[i][0])
        what = next((what for what, number in self._sites.items() if number == site), "")
        line, _, access = what.rpartition(": ")
        return line if access in ("store", "atomic") else ""

    # --- tensors ----------------------------------------------------------------------------------

    def read(self, tensor: torch.Tensor) -> Number:
        """Return the Numbers of a tensor of floats, in its shape."""
        self.know(tensor)
        kind = KINDS[tensor.dtype]
        number = self.load_numbers(addresses(tensor), kind, "a tensor's element")
        return number.reshape(tuple(tensor.shape))

    def write(self, tensor: torch.Tensor, number: Number) -> None:
        """Put Numbers into a tensor of floats."""
        self.know(tensor)
        flat = full(number, tuple(tensor.shape)).reshape(-1)
        self.store_numbers(addresses(tensor), flat, KINDS[tensor.dtype])

    def forget(self, tensor: torch.Tensor) -> None:
        """Know nothing any more of what a tensor holds."""
        cell = self.cells.get(tensor.untyped_storage().data_ptr())
        if cell is not None:
            cell.tables.clear()


def _places(at: np.ndarray, cell: Cell, size: int, what: str) -> np.ndarray:
    offset = at - cell.first
    if (offset & (size - 1)).any():
        raise OutOfBoundsError(f"{what} at an address that is no multiple of {size}")
    return offset // size


def _rounded(x: np.ndarray, kind: str) -> np.ndarray:
    if kind == "bf16":
        bits = x.astype(np.float32).view(np.uint32)
        even = bits + (0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
        return np.where(np.isnan(x), np.float32(np.nan), even.view(np.float32))
    return x.astype({"f16": np.float16, "f32": np.float32, "f64": np.float64}[kind])


def _constants(number: Number, held: np.ndarray, at: np.ndarray, what: str) -> Number:
    """Replace lanes by the constants that memory holds there: 0, 1, −1 and what is not finite."""
    values = held[at]
    plain = ~np.isfinite(values) | np.isin(values, (0.0, 1.0, -1.0))
    if not plain.all():
        strange = values[~plain][0]
        raise NotFollowedError(f"{what} of a value that no kernel stored: {strange:.9g}")
    number[at] = values
    return number


def addresses(tensor: torch.Tensor) -> np.ndarray:
    """Return the address of each element, in order."""
    at = np.asarray(tensor.data_ptr(), np.int64)
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        at = at[..., None] + np.arange(size) * (stride * tensor.element_size())
    return at.reshape(-1)
