"""The CPU as Triton's device: loads machine code and runs the programs of a grid on all cores."""

import contextlib
import ctypes
import os
import struct
import time
from collections.abc import Iterator
from typing import Any

import torch
from triton.backends import Backend, backends
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime import driver as runtime

from . import compiler, machine
from .front_end import make_faster
from .threads import arena, share_out

# Slots of 8 bytes, by Triton's name of an argument's type; integers are "<q".
_SLOTS = {"fp32": "<fxxxx", "fp64": "<d", "u64": "<Q", "u32": "<Ixxxx", "i1": "<q"}
_RUN = ctypes.CFUNCTYPE(
    None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p,
    ctypes.c_int64, ctypes.c_int64, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32,
)  # fmt: skip
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
        self.seconds = 1.0  # of one program, as far as is known
        self.lines = metadata.lines
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
        for launched in _followers:
            launched.append(self)
        slots: list[bytes] = []
        ranges: list[int] = []
        _pack(self.kinds, args, slots, ranges)
        arguments, bounds = b"".join(slots), struct.pack(f"<{len(ranges)}q", *ranges)
        total, grid = gx * gy * gz, (gx, gy, gz)

        def run(first: int, last: int) -> None:
            self.run(function, arguments, bounds, first, last, grid)

        began = time.perf_counter()
        share_out(run, total, seconds=self.seconds * total, together=self.together)
        self.seconds = (time.perf_counter() - began) / max(1, total)

    def run(
        self, function: int, arguments: bytes, bounds: bytes, first: int, last: int,
        grid: tuple[int, int, int],
    ) -> None:  # fmt: skip
        """Run the programs from `first` to `last`."""
        report = (ctypes.c_int64 * 2)()
        _RUN(function)(
            arguments, bounds, arena.address(self.arena_bytes), report, first, last, *grid
        )
        if report[0]:
            what, where = self.sites[report[0] - 1]
            number, (gx, gy, _) = report[1], grid
            program = (number % gx, number // gx % gy, number // (gx * gy))
            said = f"{what} out of bounds" if what in ("load", "store", "atomic") else what
            raise KernelFault(f"{where}: {self.name}, program {program}: {said}")


def _pack(kinds: Any, args: Any, slots: list[bytes], ranges: list[int]) -> None:
    """Write each argument into 8 bytes, and note where a tensor begins and ends."""
    for kind, value in zip(kinds, args, strict=True):
        if kind == "constexpr":
            continue
        if isinstance(kind, tuple):
            _pack(kind, value, slots, ranges)
        elif kind.startswith("tensordesc"):
            _pack_descriptor(value, slots, ranges)
        elif kind.startswith("*"):
            address = value.data_ptr() if hasattr(value, "data_ptr") else int(value)
            slots.append(struct.pack("<Q", address))
            ranges += _extent(value, address)
        elif kind in ("fp16", "bf16"):
            dtype = torch.float16 if kind == "fp16" else torch.bfloat16
            slots.append(
                struct.pack("<hxxxxxx", int(torch.tensor(value, dtype=dtype).view(torch.int16)))
            )
            ranges += _EVERYWHERE
        else:
            code = _SLOTS.get(kind, "<q")
            number = value if kind in ("fp32", "fp64") else int(value)
            slots.append(struct.pack("<Q" if code == "<q" and number >= 2**63 else code, number))
            ranges += _EVERYWHERE


def _pack_descriptor(value: Any, slots: list[bytes], ranges: list[int]) -> None:
    """Write a tensor descriptor as Triton's pass takes it apart."""
    n = len(value.shape)
    flags = [getattr(value, "padding", "zero") == "nan", getattr(value, "round_f32_to_tf32", False)]
    kinds = ["*u8", *["i64"] * (2 * n), "i1", "i1", *["i32"] * n, *["i64"] * n]
    shape, strides = list(value.shape), list(value.strides)
    _pack(kinds, [value.base, *shape, *strides, *flags, *shape, *strides], slots, ranges)


def _extent(value: Any, address: int) -> tuple[int, int]:
    """Return the first address of a tensor's memory and the one behind the last."""
    if not isinstance(value, torch.Tensor):
        return _EVERYWHERE
    if _tight:
        sizes = zip(value.shape, value.stride(), strict=True)
        n_items = 1 + sum((n - 1) * stride for n, stride in sizes) if value.numel() else 0
        return address, address + n_items * value.element_size()
    storage = value.untyped_storage()
    first = storage.data_ptr()
    return first, first + storage.nbytes()


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
        return 2 * compiler.settings.checked + compiler.settings.quick

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
