"""The CPU as Triton's device: loads machine code and runs the programs of a grid on all cores."""

import contextlib
import os
import struct
import time
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from triton.backends import Backend, backends
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime import driver as runtime

from . import compiler, machine
from .front_end import make_faster
from .instructions.ttir import in_this_checkout
from .threads import Task, share_out

_FLOATS = {"fp32": "<f", "fp64": "<d"}  # how `struct` writes an argument of Triton's type
_HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_64_BITS = 2**64 - 1
_n_cores = len(os.sched_getaffinity(0))
_EVERYWHERE = (0, 2**62)  # bounds of a pointer of which no tensor is known


class KernelFault(RuntimeError):
    """What a kernel did wrong: an access out of bounds, or a failed assertion."""


class _Utils:
    """Loading of binaries, in Triton's words."""

    @staticmethod
    def get_device_properties(device: int) -> dict[str, int]:
        """Describe the device."""
        return {"max_shared_mem": 2**30, "multiprocessor_count": _n_cores, "warpSize": 1}

    @staticmethod
    def load_binary(name: str, kernel: bytes, shared: int, device: int) -> tuple:
        """Load machine code: what holds it, the address, registers, spills, threads."""
        holder, address = machine.load(kernel, "run")
        return holder, address, 0, 0, 2**30

    @staticmethod
    def unload_module(module: Any) -> None:
        """Leave it to the garbage collector."""


class Launcher:
    """Runs one kernel: packs its arguments and shares the programs out among threads."""

    def __init__(self, src: Any, metadata: Any) -> None:
        self.name = metadata.name
        self.arena_bytes = metadata.arena_bytes
        self.sites = metadata.sites
        self.together = metadata.together
        self.apart = metadata.apart
        self.function = getattr(src, "fn", None)  # None: made from TTIR
        self.seconds = 1.0  # of one program, as far as is known
        self.lines = {in_this_checkout(file): at for file, at in metadata.lines.items()}
        self.kinds = list(src.signature.values())
        for name, text in metadata.library.items():
            machine.link(name, text)

    def __call__(
        self, gx: int, gy: int, gz: int, stream: Any, function: int, packed: Any, metadata: Any,
        enter: Any, leave: Any, *args: Any,
    ) -> None:  # fmt: skip
        """Launch.

        Raises
        ------
        KernelFault
            If a program did something wrong: the first fault that was seen.
        """
        given = _Given()
        given.add(self.kinds, args)
        if self.function is not None and given.any_overlap(self.apart):
            with using(ordered=True):
                self.function.run(*args, grid=(gx, gy, gz), warmup=False)
            return
        for launched in _followers:
            launched.append(self)
        grid, total = (gx, gy, gz), gx * gy * gz
        task = Task(
            function, array("Q", given.words), array("Q", given.ends), self.arena_bytes, grid
        )
        began = time.perf_counter()
        n_threads, report = share_out(task, seconds=self.seconds * total, together=self.together)
        self.seconds = (time.perf_counter() - began) * n_threads / max(1, total)
        if report[0]:
            raise self.fault(report, grid)

    def fault(self, report: tuple[int, int], grid: tuple[int, int, int]) -> KernelFault:
        """Say what a report means."""
        number, program = report
        what, where = self.sites[number - 1]
        gx, gy, _ = grid
        at = (program % gx, program // gx % gy, program // (gx * gy))
        said = f"{what} out of bounds" if what in ("load", "store", "atomic") else what
        file, _, line = where.rpartition(":")
        return KernelFault(f"{in_this_checkout(file)}:{line}: {self.name}, program {at}: {said}")


class _Given:
    """A launch's arguments in words of 64 bits, and where the memory of each begins and ends."""

    def __init__(self) -> None:
        self.words: list[int] = []
        self.ends: list[int] = []
        self.tensors: dict[int, torch.Tensor] = {}  # by number of argument

    def add(self, kinds: Iterable[Any], args: Iterable[Any]) -> None:
        """Add arguments of these types, in Triton's words."""
        for kind, value in zip(kinds, args, strict=True):
            if kind == "constexpr":
                continue
            if isinstance(kind, tuple):
                self.add(kind, value)
            elif kind[0] == "*":
                address = value.data_ptr() if hasattr(value, "data_ptr") else int(value)
                if isinstance(value, torch.Tensor):
                    self.tensors[len(self.words)] = value
                self.words.append(address)
                self.ends += _extent(value, address)
            elif kind.startswith("tensordesc"):
                self.add_descriptor(value)
            else:
                self.words.append(_number(kind, value))
                self.ends += _EVERYWHERE

    def any_overlap(self, apart: list[tuple[int, int, bool]]) -> bool:
        """Say whether arguments share memory that must not; see `kernel.Code`."""
        for read, written, at_the_same_places in apart:
            if at_the_same_places and self.words[read] == self.words[written]:
                continue
            of_one_memory = self.ends[2 * read] == self.ends[2 * written]
            if of_one_memory and self._overlap(read, written):
                return True
        return False

    def _overlap(self, read: int, written: int) -> bool:
        """Say whether two tensors of one memory overlap, or lie between one another."""
        both = self.tensors.get(read), self.tensors.get(written)
        if both[0] is None or both[1] is None:  # a pointer of which no tensor is known
            return False
        (a, a_end), (b, b_end) = (_own_extent(t, t.data_ptr()) for t in both)
        return a < b_end and b < a_end

    def add_descriptor(self, value: Any) -> None:
        """Add a tensor descriptor as Triton's pass takes it apart."""
        n, shape, strides = len(value.shape), value.shape, value.strides
        flags = (
            getattr(value, "padding", "zero") == "nan",
            getattr(value, "round_f32_to_tf32", False),
        )
        self.add(("*u8",), (value.base,))
        self.add(("i64",) * (4 * n + 2), (*shape, *strides, *flags, *shape, *strides))


def _number(kind: str, value: Any) -> int:
    """Return the bits of a number of one of Triton's types."""
    if kind in _FLOATS:
        return int.from_bytes(struct.pack(_FLOATS[kind], value), "little")
    if kind in _HALVES:
        return int(torch.tensor(value, dtype=_HALVES[kind]).view(torch.int16)) & _64_BITS
    return int(value) & _64_BITS


def _extent(value: Any, address: int) -> tuple[int, int]:
    """Return the first address of a tensor's memory and the one behind the last."""
    if not isinstance(value, torch.Tensor):
        return _EVERYWHERE
    if _tight:
        return _own_extent(value, address)
    storage = value.untyped_storage()
    first = storage.data_ptr()
    return first, first + storage.nbytes()


def _own_extent(value: torch.Tensor, address: int) -> tuple[int, int]:
    """Return the address of a tensor's first element and the one behind its last."""
    sizes = zip(value.shape, value.stride(), strict=True)
    n_items = 1 + sum((n - 1) * stride for n, stride in sizes) if value.numel() else 0
    return address, address + n_items * value.element_size()


class CPUDriver(DriverBase):
    """Triton's device where `activate` was called."""

    launcher_cls = Launcher
    utils = _Utils()

    @staticmethod
    def is_active() -> bool:
        """Say that a search for a device never finds this one: it is asked for by name."""
        return False

    def get_current_target(self) -> GPUTarget:
        """Name the target."""
        return GPUTarget("cpu", "host", 1)

    def get_current_device(self) -> int:
        """Number the settings: Triton keeps compiled kernels by device."""
        held = compiler.settings
        return 4 * held.ordered + 2 * held.checked + held.quick

    def set_current_device(self, device: int) -> None:
        """Change nothing."""

    def get_current_stream(self, device: Any) -> int:
        """Return the only stream."""
        return 0

    def get_active_torch_device(self) -> torch.device:
        """Name PyTorch's device."""
        return torch.device("cpu")

    def get_device_interface(self) -> Any:
        """Return PyTorch's functions for the device."""
        return torch.cpu

    def map_python_to_cpp_type(self, ty: str) -> str:
        """Name no type of C++: nothing is compiled by a C compiler."""
        return ty

    def get_benchmarker(self) -> Any:
        """Return what the autotuner times a configuration with."""
        return _benchmark

    def get_empty_cache_for_benchmark(self) -> torch.Tensor:
        """Return what a benchmark clears between calls: nothing."""
        return torch.empty(1, dtype=torch.int8)

    def clear_cache(self, cache: torch.Tensor) -> None:
        """Clear nothing."""


def _benchmark(call: Any, quantiles: Any = None, **options: Any) -> Any:
    """Time a call: a warm-up, then three."""
    import time

    call()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    times.sort()
    return [times[1]] * len(quantiles) if quantiles else times[1]


def activate() -> None:
    """Make the CPU Triton's device in this process: tensors on it are taken as a GPU's are.

    Raises
    ------
    RuntimeError
        If kernels are interpreted: TRITON_INTERPRET=1 was set when they were defined.
    """
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise RuntimeError(
            "activate: expected kernels that are compiled, got TRITON_INTERPRET=1 "
            "(likely cause: it is set in this shell; unset it to run natively)"
        )
    # Not "cpu": where there is a backend of that name, PyTorch's compiler takes the CPU for one
    # for which it may generate Triton kernels.
    if "gptwin" not in backends:
        backends["gptwin"] = Backend(compiler.CPUBackend, CPUDriver)
    make_faster()
    if not isinstance(runtime._active, CPUDriver):
        runtime.set_active(CPUDriver())


_followers: list[list[Launcher]] = []
_tight: list[bool] = []


@contextlib.contextmanager
def following() -> Iterator[list[Launcher]]:
    """Collect every launch while the context lasts."""
    launched: list[Launcher] = []
    _followers.append(launched)
    try:
        yield launched
    finally:
        _followers[:] = [held for held in _followers if held is not launched]


@contextlib.contextmanager
def tight_bounds() -> Iterator[None]:
    """Let a tensor end behind its own last element while the context lasts.

    Otherwise it ends where its memory does: a kernel that is given a slice of a tensor may read the
    rest.
    """
    _tight.append(True)
    try:
        yield
    finally:
        _tight.pop()


@contextlib.contextmanager
def using(**wishes: Any) -> Iterator[None]:
    """Compile with other settings while the context lasts.

    Parameters
    ----------
    **wishes
        `checked` and `quick`, as in `Settings`.
    """
    import dataclasses

    before = compiler.settings
    compiler.settings = dataclasses.replace(before, **wishes)
    try:
        yield
    finally:
        compiler.settings = before
