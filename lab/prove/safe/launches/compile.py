"""A kernel's TTIR without specialisation: no number is compiled in, nothing is divisible by 16.

Triton compiles a kernel anew where a number is 1 or a multiple of 16, and tells the compiler so. A
proof of that code would be about such numbers alone: with `n_rows % 16 == 0`, a kernel that forgot
its mask of rows is safe.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from triton.backends import Backend, backends
from triton.backends.compiler import GPUTarget
from triton.runtime import driver as runtime

from .....kernels.common._triton import tl
from .....kernels.native.backend import make_ttir
from .....kernels.native.compiler import CPUBackend
from .call import Call

# Numbers that stand for any of their width; neither is specialised.
NARROW, WIDE = 7, 2**40 + 7


class _FrontEnd(CPUBackend):
    """Triton's front end, and nothing behind it."""

    name = "ttir"
    binary_ext = "nothing"

    def hash(self) -> str:
        """Name what is made: Triton's cache on disk is keyed by it."""
        return "ttir without specialisation, 2"

    def add_stages(self, stages: dict[str, Any], options: Any, language: Any = None) -> None:
        """Stop at TTIR; nothing leaves the condition that it stands under."""
        stages["ttir"] = functools.partial(make_ttir, combine=False, move=False)
        stages["nothing"] = lambda module, metadata: b""


class _Nowhere:
    """A driver that compiles for no machine."""

    def get_current_target(self) -> GPUTarget:
        """Name the target."""
        return GPUTarget("ttir", "any", 1)

    def get_current_device(self) -> str:
        """Return a name that no device has: Triton keeps compiled kernels under it."""
        return "ttir"

    def get_current_stream(self, device: Any) -> int:
        """Return a stream that nothing is launched on."""
        return 0

    def get_active_torch_device(self) -> torch.device:
        """Return where PyTorch would put tensors."""
        return torch.device("meta")

    def map_python_to_cpp_type(self, ty: str) -> str:
        """Return the type unchanged."""
        return ty

    def get_benchmarker(self) -> Any:
        """Return a stand-in: the autotuner asks for it when a kernel is declared."""
        return lambda call, **options: [0.0, 0.0, 0.0]


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Let Triton compile to TTIR while the context lasts; kernels may be declared within it."""
    backends.setdefault("ttir", Backend(_FrontEnd, _Nowhere))
    before = runtime._active
    runtime.set_active(_Nowhere())
    try:
        yield
    finally:
        runtime._active = before


def leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Name the parts of an argument: "x.ptr", "x.strides[0]", "pair[1]"."""
    if not isinstance(value, tuple):
        yield name, value
        return
    fields = getattr(value, "_fields", ())
    for i, part in enumerate(value):
        yield from leaves(f"{name}.{fields[i]}" if fields else f"{name}[{i}]", part)


def is_constant(value: Any) -> bool:
    """Say whether a part of an argument is compiled in."""
    return value is None or isinstance(value, (tl.constexpr, str, tl.dtype))


def arguments(call: Call) -> dict[str, Any]:
    """Name the parts of a call's arguments, in the order in which the compiled kernel has them.

    Parameters
    ----------
    call : Call

    Returns
    -------
    dict
        Without those that are compiled in.
    """
    named = zip(_run_time_names(call), call.arguments, strict=False)
    parts = (part for name, value in named for part in leaves(name, value))
    return {name: value for name, value in parts if not is_constant(value)}


def constants(call: Call) -> dict[str, Any]:
    """Name what is compiled in: constants, and the parts of arguments that are none at run time."""
    named = zip(_run_time_names(call), call.arguments, strict=False)
    parts = (part for name, value in named for part in leaves(name, value))
    inside = {n: getattr(v, "value", v) for n, v in parts if is_constant(v)}
    return inside | {n: getattr(v, "value", v) for n, v in call.constants.items()}


def _run_time_names(call: Call) -> list[str]:
    return [name for name in call.function.arg_names if name not in call.constants]


def ttir(call: Call, wide: frozenset[str] = frozenset()) -> str:
    """Compile a call's kernel; a context of `compiling` must last.

    Parameters
    ----------
    call : Call
        Of its arguments the kinds alone matter.
    wide : set of str
        The integers, named as in `arguments`, that have 64 bits; all others have 32.

    Returns
    -------
    str
    """
    names = _run_time_names(call)
    given = [
        _any_number(name, value, wide) for name, value in zip(names, call.arguments, strict=False)
    ]
    named = dict(zip(names, given, strict=False))
    compiled = call.function.warmup(grid=(1,), **named, **call.constants)
    return compiled.asm["ttir"]


def _any_number(name: str, value: Any, wide: frozenset[str]) -> Any:
    """Put numbers in the place of integers that are not specialised."""
    if isinstance(value, tuple):
        fields = getattr(value, "_fields", ())
        parts = [
            _any_number(f"{name}.{fields[i]}" if fields else f"{name}[{i}]", part, wide)
            for i, part in enumerate(value)
        ]
        return type(value)(*parts) if fields else tuple(parts)
    if isinstance(value, int) and not isinstance(value, bool):
        return WIDE if name in wide else NARROW
    return value


def itemsize(call: Call) -> int:
    """Return the bytes of a call's floats: of the first tensor of them."""
    for value in arguments(call).values():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value.element_size()
    return 4
