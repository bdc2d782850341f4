"""What stands for a GPU: its properties, streams, events, and Triton's driver."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import triton

from .places import GPU, is_gpu

MULTIPROCESSORS = 4
_CAPABILITY = (9, 0)
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


class _Stream:
    """Work is done at once: there is nothing to wait for."""

    cuda_stream = 0
    stream_id = 0
    device = GPU
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


class Driver:
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
        return GPU

    def get_device_interface(self) -> Any:
        """Return what events and streams are asked of."""
        return torch.cuda

    def get_benchmarker(self) -> Callable[..., Any]:
        """Return what times a function: once, for times in an interpreter mean nothing."""
        return do_bench

    def get_empty_cache_for_benchmark(self) -> torch.Tensor:
        """Return what is cleared between two timings."""
        return torch.empty(1, dtype=torch.int32)

    def clear_cache(self, cache: torch.Tensor) -> None:
        """Do nothing."""


def do_bench(function: Callable[[], Any], *args: Any, quantiles: Any = None, **options: Any) -> Any:
    """Time a function once, for times in an interpreter mean nothing.

    Parameters
    ----------
    function : callable
    quantiles : sequence of float, optional
        How many times are to be returned.
    *args, **options
        Triton's others.
    """
    start = time.perf_counter()
    function()
    milliseconds = (time.perf_counter() - start) * 1e3
    return milliseconds if quantiles is None else [milliseconds] * len(quantiles)


def _seed(seed: int) -> None:
    torch.default_generator.manual_seed(int(seed))


def cuda_attributes() -> dict[str, Any]:
    """What `torch.cuda` says instead."""
    stream = _Stream()

    def nothing(*args: Any, **options: Any) -> None:
        pass

    def zero(*args: Any, **options: Any) -> int:
        return 0

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
            "current_device", "utilization", "_exchange_device", "_maybe_exchange_device",
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


def accelerator_attributes() -> dict[str, Any]:
    """What `torch.accelerator` says instead: there is one, and it is the GPU."""
    cuda = cuda_attributes()
    said = cuda | {
        "current_accelerator": lambda check_available=False: torch.device(GPU.type),
        "current_device_index": cuda["current_device"],
        "set_device_index": cuda["set_device"],
        "device_index": cuda["device"],
    }
    del said["get_device_capability"]  # here it is something else than a pair of numbers
    return {name: value for name, value in said.items() if hasattr(torch.accelerator, name)}


class Generator(torch.Generator):
    """Random numbers of the CPU, whichever device is named."""

    def __new__(cls, device: Any = "cpu") -> "Generator":
        """Take the place of PyTorch's."""
        return super().__new__(cls, "cpu" if is_gpu(device) else device)  # type: ignore[call-arg]
