"""A GPU that is not there: meanwhile "cuda" means the CPU, and programs need not be changed.

A tensor that a program puts on "cuda" lies in the CPU's memory and says that it is on `cuda:0`;
what is computed from it says so, too. `.cuda()` and `.cpu()` copy, as they do on a GPU. Streams,
events and properties are those of a small H100: four multiprocessors, so that a persistent kernel's
programs each have several tiles. CUDA graphs are refused, since they replay work that PyTorch
does not show.
"""

import contextlib
import functools
import importlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
import triton
from torch.autograd.function import BackwardCFunction
from torch.utils import _device
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction

from ...kernels import native
from ...kernels.common import launch
from .places import Arguments, Results, is_gpu, put_on_gpu
from .stand_ins import Driver, Generator, accelerator_attributes, cuda_attributes, do_bench


@contextlib.contextmanager
def pretend_gpu(*, compiled: bool = False) -> Iterator[None]:
    """Let "cuda" mean the CPU while the context lasts.

    Enter it before a program is imported: modules ask for a GPU when they are loaded. Triton's
    kernels are interpreted, those too that were decorated earlier. A second, inner context does
    nothing.

    Parameters
    ----------
    compiled : bool
        Compile kernels for the CPU instead (kernels/native), or for the instrument that stands in
        its place. TRITON_INTERPRET=1 must not be set.
    """
    if _pretending:
        yield
        return
    _pretending.append(True)
    before = os.environ.get("TRITON_INTERPRET")
    if not compiled:
        os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is decorated
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(Results())
            arguments = Arguments()
            stack.enter_context(_replaced(arguments, compiled))
            stack.enter_context(arguments)
            stack.callback(_forget_default_device)
            yield
    finally:
        _pretending.clear()
        if before is None:
            os.environ.pop("TRITON_INTERPRET", None)
        else:
            os.environ["TRITON_INTERPRET"] = before


_pretending: list[bool] = []
_MISSING = object()


def _forget_default_device() -> None:
    if is_gpu(_device.CURRENT_DEVICE):
        torch.set_default_device(None)


@contextlib.contextmanager
def _replaced(arguments: Arguments, compiled: bool) -> Iterator[None]:
    """Replace what a TorchFunctionMode is not asked about."""
    places: list[tuple[Any, str, Any]] = [
        (owner, name, value)
        for owner, attributes in (
            (torch.cuda, cuda_attributes()), (torch.accelerator, accelerator_attributes()),
        )
        for name, value in attributes.items()
    ]  # fmt: skip
    places += [
        (torch, "Generator", Generator),
        (torch, "compile", _not_compiled),
        (torch.Tensor, "record_stream", lambda tensor, stream: None),
        (torch, "load", _load_to_cpu(torch.load)),
        *(
            (torch.cuda.nvtx, name, lambda *a, **o: 0)
            for name in ("range_push", "range_pop", "mark")
        ),
        # What Inductor writes imports these two; a build for the CPU lacks the first.
        (torch._C, "_cuda_getCurrentRawStream", lambda device=0: 0),
        (torch._C._dynamo.guards, "_empty_strided_cuda", _empty_strided),
        (torch.version, "cuda", torch.version.cuda or "12.8"),
        (triton.testing, "do_bench", do_bench),
        (triton.testing, "do_bench_cudagraph", do_bench),
    ]
    if not compiled:
        places.append((JITFunction, "run", _interpret))
        places.append((JITFunction, "__call__", lambda self, *a, **o: _interpreted(self)(*a, **o)))
    places.append((BackwardCFunction, "apply", arguments.within(BackwardCFunction.apply)))
    init = torch.autocast.__init__

    def autocast(self: Any, device_type: str, *args: Any, **options: Any) -> None:
        init(self, "cpu" if is_gpu(device_type) else device_type, *args, **options)

    places.append((torch.autocast, "__init__", functools.wraps(init)(autocast)))
    for name in ("is_autocast_enabled", "get_autocast_dtype"):
        places.append((torch, name, _of_the_cpu(getattr(torch, name))))
    places.append((torch, "get_autocast_gpu_dtype", lambda: torch.get_autocast_dtype("cpu")))
    # The first operation under a mode imports it, and that must not meet our stand-ins.
    importlib.import_module("torch._dynamo")
    places.append((importlib.import_module("torch._dynamo.config"), "disable", True))
    driver = triton.runtime.driver
    before = [(owner, name, getattr(owner, name, _MISSING)) for owner, name, _ in places]
    active = driver._active
    half = torch.get_autocast_dtype("cpu")
    for owner, name, value in places:
        setattr(owner, name, value)
    if compiled and not launch.door().evaluating:
        native.activate()
    elif not compiled:
        driver.set_active(Driver())
    torch.set_autocast_dtype("cpu", torch.float16)  # a GPU's; the CPU's is bfloat16
    try:
        yield
    finally:
        torch.set_autocast_dtype("cpu", half)
        for owner, name, value in reversed(before):
            if value is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
        driver._active = active


def _interpret(kernel: Any, *args: Any, **options: Any) -> Any:
    """Stand for the launch of a kernel that was decorated before it was known that none compile."""
    return _interpreted(kernel).run(*args, **options)


def _interpreted(kernel: Any) -> Any:
    if kernel not in _were_compiled:
        _were_compiled[kernel] = InterpretedFunction(kernel.fn)
    return _were_compiled[kernel]


_were_compiled: dict[Any, Any] = {}


def _empty_strided(size: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty_strided(size, stride, dtype=dtype, device="cuda")


def _of_the_cpu(function: Callable[[str], Any]) -> Callable[..., Any]:
    return lambda device="cuda": function("cpu" if is_gpu(device) else device)


def _load_to_cpu(load: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `torch.load`: what is to go to the GPU is read to the CPU, and put there."""

    def load_to_cpu(*args: Any, map_location: Any = None, **options: Any) -> Any:
        if not is_gpu(map_location):
            return load(*args, map_location=map_location, **options)
        return put_on_gpu(load(*args, map_location="cpu", **options))

    return load_to_cpu


def _not_compiled(model: Any = None, **options: Any) -> Any:
    """Stand for `torch.compile`: nothing is compiled, since launches must be seen."""
    return (lambda function: function) if model is None else model
