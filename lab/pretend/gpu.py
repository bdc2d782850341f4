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
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
import triton
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils import _device
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction

MULTIPROCESSORS = 4
_CAPABILITY = (9, 0)
_GPU = torch.device("cuda", 0)
_PROPERTIES = SimpleNamespace(
    name="NVIDIA H100 (gptwin: the CPU)",
    major=_CAPABILITY[0],
    minor=_CAPABILITY[1],
    total_memory=80 << 30,
    multi_processor_count=MULTIPROCESSORS,
    warp_size=32,
    max_threads_per_block=1024,
    max_threads_per_multi_processor=2048,
    regs_per_multiprocessor=65536,
    shared_memory_per_block=48 << 10,
    shared_memory_per_block_optin=227 << 10,
    shared_memory_per_multiprocessor=228 << 10,
    L2_cache_size=50 << 20,
    gcnArchName="",
)


@contextlib.contextmanager
def pretend_gpu() -> Iterator[None]:
    """Let "cuda" mean the CPU while the context lasts.

    Enter it before a program is imported: modules ask for a GPU when they are loaded. Triton's
    kernels are interpreted, those too that were decorated earlier. A second, inner context does
    nothing.
    """
    if _pretending:
        yield
        return
    _pretending.append(True)
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is decorated
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_Results())
            arguments = _Arguments()
            stack.enter_context(_replaced(arguments))
            stack.enter_context(arguments)
            yield
            if _is_gpu(_device.CURRENT_DEVICE):
                torch.set_default_device(None)
    finally:
        _pretending.clear()
        if before is None:
            del os.environ["TRITON_INTERPRET"]
        else:
            os.environ["TRITON_INTERPRET"] = before


_pretending: list[bool] = []


# --- where a tensor is ----------------------------------------------------------------------------


def on_gpu(tensor: torch.Tensor) -> bool:
    """Say whether a program has put a tensor on "cuda".

    Parameters
    ----------
    tensor : torch.Tensor
    """
    with torch._C.DisableTorchFunction():
        if tensor.layout != torch.strided or tensor.device.type == "meta":
            return False
        return hasattr(tensor.untyped_storage(), "_gptwin_on_gpu")


def put_on_gpu(value: Any) -> Any:
    """Let tensors, alone or in tuples, lists and dicts, lie on "cuda" from now on.

    Parameters
    ----------
    value : object

    Returns
    -------
    object
        The same.
    """
    with torch._C.DisableTorchFunction():
        for tensor in _tensors(value):
            tensor.untyped_storage()._gptwin_on_gpu = True  # type: ignore[attr-defined]
    return value


def _take_off_gpu(value: Any, given: Any) -> Any:
    """Let what was made on the CPU say so, though it was made like a tensor on the GPU."""
    with torch._C.DisableTorchFunction():
        starts = {tensor.untyped_storage().data_ptr() for tensor in _tensors(given)}
        for tensor in _tensors(value):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in starts and hasattr(storage, "_gptwin_on_gpu"):
                del storage._gptwin_on_gpu
    return value


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    for leaf in tree_leaves(value):
        strided = isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided
        if strided and leaf.device.type == "cpu":
            yield leaf


class _Results(TorchDispatchMode):
    """What is computed from a tensor on the GPU is on the GPU; autograd's own operations, too."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        given = list(_tensors((args, kwargs)))
        result = func(*args, **kwargs)
        if any(map(on_gpu, given)):
            put_on_gpu(result)
        return result


class _Arguments(TorchFunctionMode):
    """Translate the devices that a program names, and answer where its tensors are."""

    def __init__(self) -> None:
        super().__init__()
        tensor = torch.Tensor
        self._answers: dict[Any, Callable[..., Any]] = {
            tensor.is_cuda.__get__: on_gpu,  # type: ignore[attr-defined]
            tensor.is_cpu.__get__: lambda t: not on_gpu(t),  # type: ignore[attr-defined]
            tensor.device.__get__: _device_of,
            tensor.get_device: lambda t: 0 if on_gpu(t) else -1,
            tensor.cuda: lambda t, device=None, *rest, **options: _move(t, True),
            tensor.cpu: lambda t, *rest, **options: _move(t, False),
            tensor.to: _to,
            tensor.pin_memory: lambda t, *rest: t,
            tensor.is_pinned: lambda t, *rest: False,
        }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        answer = self._answers.get(func)
        if answer is not None:
            return answer(*args, **kwargs)
        if func is torch.device:
            return func(*args, **kwargs)
        kwargs.pop("pin_memory", None)
        device = kwargs.get("device")
        if device is None and func in _device_constructors():
            device = _device.CURRENT_DEVICE  # torch.set_default_device, with torch.device(...)
        named = any(_is_gpu(value) for value in args)
        if not named and not _is_gpu(device) and type(device) is not int:
            result = func(*args, **kwargs)
            return result if device is None else _take_off_gpu(result, args)
        args = tuple(_CPU if _is_gpu(value) else value for value in args)
        if device is not None:
            kwargs["device"] = _CPU
        return put_on_gpu(func(*args, **kwargs))

    def within(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap what a function under this mode calls back, such as a backward pass.

        While the mode handles `loss.backward()`, it is off.
        """

        def call(*args: Any, **options: Any) -> Any:
            if self in _get_current_function_mode_stack():
                return function(*args, **options)
            with self:
                return function(*args, **options)

        return call


_CPU = torch.device("cpu")


def _is_gpu(device: Any) -> bool:
    if isinstance(device, torch.device):
        return device.type == "cuda"
    return isinstance(device, str) and device.partition(":")[0] == "cuda"


def _device_of(tensor: torch.Tensor) -> torch.device:
    with torch._C.DisableTorchFunction():
        real = tensor.device
    return _GPU if real.type == "cpu" and on_gpu(tensor) else real


def _move(tensor: torch.Tensor, to_gpu: bool) -> torch.Tensor:
    if on_gpu(tensor) == to_gpu:
        return tensor
    return _copied(tensor, to_gpu)


def _copied(tensor: torch.Tensor, to_gpu: bool) -> torch.Tensor:
    copy = tensor.clone()
    return put_on_gpu(copy) if to_gpu else _take_off_gpu(copy, ())


def _to(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Convert as PyTorch does, and copy if the tensor changes its place."""
    to_gpu = on_gpu(tensor)
    first = kwargs.get("device", args[0] if args else None)
    if isinstance(first, torch.Tensor):
        to_gpu = on_gpu(first)
    elif isinstance(first, (str, torch.device)) or type(first) is int:
        to_gpu = type(first) is int or _is_gpu(first)
        if "device" in kwargs:
            kwargs = kwargs | {"device": _CPU if to_gpu else first}
        else:
            args = (_CPU if to_gpu else first, *args[1:])
    with torch._C.DisableTorchFunction():
        converted = torch.Tensor.to(tensor, *args, **kwargs)
    return _move(converted, to_gpu)


# --- what stands for a GPU ------------------------------------------------------------------------


class _Stream:
    """Work is done at once: there is nothing to wait for."""

    cuda_stream = 0
    stream_id = 0
    device = _GPU
    priority = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        pass

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *args: Any) -> None:
        pass

    def synchronize(self) -> None:
        """Do nothing."""

    def query(self) -> bool:
        """Say that all is done."""
        return True

    def wait_stream(self, stream: Any) -> None:
        """Do nothing."""

    def wait_event(self, event: Any) -> None:
        """Do nothing."""

    def record_event(self, event: "_Event | None" = None) -> "_Event":
        """Note the time."""
        event = event or _Event()
        event.record()
        return event


class _Event:
    """A time on the CPU's clock."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.time = time.perf_counter()

    def record(self, stream: Any = None) -> None:
        """Note the time."""
        self.time = time.perf_counter()

    def elapsed_time(self, end: "_Event") -> float:
        """Return the milliseconds from here to there; never 0, since programs divide by it."""
        return max((end.time - self.time) * 1e3, 1e-3)

    def synchronize(self) -> None:
        """Do nothing."""

    def query(self) -> bool:
        """Say that all is done."""
        return True

    def wait(self, stream: Any = None) -> None:
        """Do nothing."""


class _Within:
    """A context, such as `torch.cuda.device(0)`, in which nothing is different."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.idx = 0

    def __enter__(self) -> "_Within":
        return self

    def __exit__(self, *args: Any) -> None:
        pass


class _NoGraph:
    """CUDA graphs replay launches that nobody sees."""

    def __init__(self, *args: Any, **options: Any) -> None:
        raise RuntimeError(
            "torch.cuda.CUDAGraph: expected launches that can be watched, got a graph, which "
            "replays them unseen (likely cause: a benchmark; leave it out of what is sanitized)"
        )


class _Driver:
    """Triton's driver of the GPU that is not there."""

    def __init__(self) -> None:
        shared = _PROPERTIES.shared_memory_per_block_optin
        properties = {
            "max_shared_mem": shared,
            "max_num_regs": 65536,
            "multiprocessor_count": MULTIPROCESSORS,
            "warpSize": 32,
            "sm_clock_rate": 1_980_000,
            "mem_clock_rate": 2_619_000,
            "mem_bus_width": 5120,
        }
        self.utils = SimpleNamespace(get_device_properties=lambda device: properties)

    def get_current_device(self) -> int:
        """Return the only device."""
        return 0

    def set_current_device(self, device: int) -> None:
        """Do nothing."""

    def get_current_stream(self, device: Any = None) -> int:
        """Return the only stream."""
        return 0

    def get_current_target(self) -> Any:
        """Return an H100."""
        target = triton.backends.compiler.GPUTarget
        return target("cuda", 10 * _CAPABILITY[0] + _CAPABILITY[1], 32)

    def get_device_capability(self, device: Any = None) -> tuple[int, int]:
        """Return an H100's."""
        return _CAPABILITY

    def get_active_torch_device(self) -> torch.device:
        """Return the only device."""
        return _GPU

    def get_device_interface(self) -> Any:
        """Return what events and streams are asked of."""
        return torch.cuda

    def get_benchmarker(self) -> Callable[..., Any]:
        """Return what times a function: once, for times in an interpreter mean nothing."""
        return _do_bench

    def get_empty_cache_for_benchmark(self) -> torch.Tensor:
        """Return what is cleared between two timings."""
        return torch.empty(1, dtype=torch.int32)

    def clear_cache(self, cache: torch.Tensor) -> None:
        """Do nothing."""


def _do_bench(
    function: Callable[[], Any], *args: Any, quantiles: Any = None, **options: Any
) -> Any:
    start = time.perf_counter()
    function()
    milliseconds = (time.perf_counter() - start) * 1e3
    return milliseconds if quantiles is None else [milliseconds] * len(quantiles)


def _seed(seed: int) -> None:
    torch.default_generator.manual_seed(int(seed))


def _cuda_attributes() -> dict[str, Any]:
    """What `torch.cuda` says instead."""
    stream = _Stream()
    nothing = lambda *args, **options: None  # noqa: E731
    zero = lambda *args, **options: 0  # noqa: E731
    attributes: dict[str, Any] = dict.fromkeys(
        (
            "init", "_lazy_init", "synchronize", "set_device", "empty_cache", "ipc_collect",
            "reset_peak_memory_stats", "reset_max_memory_allocated", "set_stream",
            "reset_accumulated_memory_stats", "set_per_process_memory_fraction",
        ),
        nothing,
    )  # fmt: skip
    attributes |= dict.fromkeys(
        (
            "memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved",
            "current_device", "utilization",
        ),
        zero,
    )  # fmt: skip
    return attributes | {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "get_device_properties": lambda *args: _PROPERTIES,
        "get_device_capability": lambda *args: _CAPABILITY,
        "get_device_name": lambda *args: _PROPERTIES.name,
        "get_arch_list": lambda: ["sm_90"],
        "is_bf16_supported": lambda *args, **options: True,
        "is_current_stream_capturing": lambda: False,
        "mem_get_info": lambda *args: (_PROPERTIES.total_memory,) * 2,
        "memory_stats": lambda *args: {},
        "current_stream": lambda *args: stream,
        "default_stream": lambda *args: stream,
        "manual_seed": _seed,
        "manual_seed_all": _seed,
        "seed": torch.seed,
        "get_rng_state": lambda *args: torch.get_rng_state(),
        "set_rng_state": lambda state, *args: torch.set_rng_state(state),
        "Stream": _Stream,
        "Event": _Event,
        "stream": lambda given: given or stream,
        "StreamContext": _Within,
        "device": _Within,
        "device_of": _Within,
        "CUDAGraph": _NoGraph,
        "graph": _NoGraph,
    }


class _Generator(torch.Generator):
    """Random numbers of the CPU, whichever device is named."""

    def __new__(cls, device: Any = "cpu") -> "_Generator":
        return super().__new__(cls, "cpu" if _is_gpu(device) else device)  # type: ignore[call-arg]


@contextlib.contextmanager
def _replaced(arguments: _Arguments) -> Iterator[None]:
    """Replace what a TorchFunctionMode is not asked about."""
    places: list[tuple[Any, str, Any]] = [
        (torch.cuda, name, value) for name, value in _cuda_attributes().items()
    ]
    places += [
        (torch, "Generator", _Generator),
        (torch, "compile", _not_compiled),
        (torch.version, "cuda", torch.version.cuda or "12.8"),
        (triton.testing, "do_bench", _do_bench),
        (triton.testing, "do_bench_cudagraph", _do_bench),
    ]
    places.append((JITFunction, "run", _interpret))
    places.append((JITFunction, "__call__", lambda self, *a, **o: _interpreted(self)(*a, **o)))
    places.append((BackwardCFunction, "apply", arguments.within(BackwardCFunction.apply)))
    init = torch.autocast.__init__

    def autocast(self: Any, device_type: str, *args: Any, **options: Any) -> None:
        init(self, "cpu" if _is_gpu(device_type) else device_type, *args, **options)

    places.append((torch.autocast, "__init__", functools.wraps(init)(autocast)))
    for name in ("is_autocast_enabled", "get_autocast_dtype"):
        places.append((torch, name, _of_the_cpu(getattr(torch, name))))
    places.append((torch, "get_autocast_gpu_dtype", lambda: torch.get_autocast_dtype("cpu")))
    # The first operation under a mode imports it, and that must not meet our stand-ins.
    importlib.import_module("torch._dynamo")
    places.append((importlib.import_module("torch._dynamo.config"), "disable", True))
    driver = triton.runtime.driver
    before = [(owner, name, getattr(owner, name, None)) for owner, name, _ in places]
    active = driver._active
    for owner, name, value in places:
        setattr(owner, name, value)
    driver.set_active(_Driver())
    try:
        yield
    finally:
        for owner, name, value in reversed(before):
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


def _of_the_cpu(function: Callable[[str], Any]) -> Callable[..., Any]:
    return lambda device="cuda": function("cpu" if _is_gpu(device) else device)


def _not_compiled(model: Any = None, **options: Any) -> Any:
    """Stand for `torch.compile`: nothing is compiled, since launches must be seen."""
    return (lambda function: function) if model is None else model
