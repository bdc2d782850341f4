"""Triton's front end alone: a backend whose binary is TTIR, and whose launcher evaluates it.

Only Triton's active driver changes, so host code and every way to launch stay as they are; nothing
here is the interpreter's, so neither can hide the other's fault.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import torch
from triton.backends import Backend, backends
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime import driver as runtime

from .....kernels.common import launch
from .....kernels.native.backend import FrontEnd, make_ttir, options_class
from .....kernels.native.instructions.ttir import parse
from .evaluate import Machine

NAME = "field"


FieldOptions = options_class("FieldOptions", NAME, supported_fp8_dtypes=())


class FieldBackend(FrontEnd):
    """Stops at TTIR; nothing on the way changes what is computed."""

    name = NAME
    binary_ext = "ttir"

    def hash(self) -> str:
        """Change when the passes below do: Triton's cache on disk is keyed by it."""
        return "field-1"

    def parse_options(self, opts: dict[str, Any]) -> Any:
        """Make options of what a launch gave."""
        names = {field.name for field in dataclasses.fields(FieldOptions)}
        known = {name: v for name, v in opts.items() if name in names and v is not None}
        return FieldOptions(**known | {"sanitize_overflow": False, "debug": False})

    def add_stages(self, stages: dict[str, Any], options: Any, language: Any = None) -> None:
        """Name the only step."""
        stages["ttir"] = functools.partial(make_ttir, combine=True, move=False)


class _Utils:
    """Loading of binaries, in Triton's words."""

    @staticmethod
    def get_device_properties(device: int) -> dict[str, int]:
        """Describe the device: as many multiprocessors as in the interpreter."""
        return {"max_shared_mem": 2**30, "multiprocessor_count": 4, "warpSize": 1}

    @staticmethod
    def load_binary(name: str, kernel: Any, shared: int, device: int) -> tuple:
        """Parse TTIR: nothing that holds it, the function, registers, spills, threads."""
        text = kernel if isinstance(kernel, str) else kernel.decode()
        return None, parse(text), 0, 0, 2**30

    @staticmethod
    def unload_module(module: Any) -> None:
        """Leave it to the garbage collector."""


class Launcher:
    """Runs the programs of a grid, one after another."""

    def __init__(self, src: Any, metadata: Any) -> None:
        self.kinds, self.name = list(src.signature.values()), metadata.name

    def __call__(
        self, gx: int, gy: int, gz: int, stream: Any, function: Any, packed: Any, metadata: Any,
        enter: Any, leave: Any, *args: Any,
    ) -> None:  # fmt: skip
        """Launch."""
        assert FieldDriver.machine is not None, "no proof is under way"
        FieldDriver.machine.launch(self.name, function, (gx, gy, gz), self.kinds, args)


class FieldDriver(DriverBase):
    """Triton's device while a proof is under way."""

    launcher_cls = Launcher
    utils = _Utils()
    machine: Machine | None = None

    def __init__(self) -> None:
        """Ask no device."""

    @staticmethod
    def is_active() -> bool:
        """Say that a search for a device never finds this one."""
        return False

    def get_current_target(self) -> GPUTarget:
        """Name the target."""
        return GPUTarget(NAME, NAME, 1)

    def get_current_device(self) -> int:
        """Name the only device."""
        return 0

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
        """Name no type of C++."""
        return ty

    def get_benchmarker(self) -> Any:
        """Time nothing: the autotuner takes the first configuration."""
        return lambda *args, **options: [0.0] * 3

    def get_empty_cache_for_benchmark(self) -> torch.Tensor:
        """Return what a benchmark clears between calls: nothing."""
        return torch.empty(1, dtype=torch.int8)

    def clear_cache(self, cache: torch.Tensor) -> None:
        """Clear nothing."""


@contextlib.contextmanager
def evaluating(machine: Machine) -> Iterator[None]:
    """Evaluate every launch by a machine while the context lasts.

    Parameters
    ----------
    machine : Machine

    Raises
    ------
    RuntimeError
        If kernels are interpreted: they have no TTIR.
    """
    if launch.INTERPRETED:
        raise RuntimeError(
            "prove: expected kernels that are compiled, got TRITON_INTERPRET=1 "
            "(likely cause: it is set in this shell; unset it)"
        )
    before, machine_before = runtime._active, FieldDriver.machine
    backends[NAME] = Backend(FieldBackend, FieldDriver)
    runtime.set_active(FieldDriver())
    FieldDriver.machine = machine
    try:
        with launch.evaluating():
            yield
    finally:
        FieldDriver.machine = machine_before
        runtime._active = before
