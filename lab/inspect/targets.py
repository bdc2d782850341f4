"""GPUs that need not be there: what each has, and how to compile for it.

Sources of the numbers: NVIDIA, CUDA C++ Programming Guide, "Technical Specifications per Compute
Capability", and `cuda_occupancy.h` for the granularities; AMD, CDNA3 ISA reference (3.6 "GPRs and
LDS") and LLVM's AMDGPU back end (`AMDGPUBaseInfo.cpp`, target gfx942).
"""

import dataclasses
from typing import Any

from ...core.checks import refuse

# Every architecture here has four of these in a multiprocessor (AMD: SIMDs in a compute unit),
# and each of them has 512 registers for every lane of a warp.
PARTITIONS = 4
REGISTERS_PER_LANE = 512
REGISTER_GRANULARITY = 8  # a lane's registers are given out in eights (NVIDIA: 256 per warp)
MAX_THREADS_PER_BLOCK = 1024


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What one multiprocessor has and what one block may ask of it.

    Attributes
    ----------
    name : str
        "sm_90", "gfx942", ...
    backend : str
        Triton's name for the maker: "cuda" or "hip".
    target : int or str
        Triton's name for the architecture.
    warp_size : int
        Threads in a warp (AMD: a wavefront).
    warps, blocks : int
        The most that reside on one multiprocessor (AMD: a compute unit).
    warps_together : int
        Registers are given to this many warps of a block at a time.
    shared_memory : int
        Bytes of one multiprocessor.
    shared_memory_per_block : int
        Bytes one block may ask for.
    shared_memory_reserved : int
        Bytes the driver takes from the multiprocessor for each block besides.
    shared_memory_granularity : int
        Bytes; what a block asks for is rounded up to a multiple.
    tensor_memory_columns : int
        Columns of tensor memory in a multiprocessor; 0 where there is none.
    """

    name: str
    backend: str
    target: int | str
    warp_size: int
    warps: int
    blocks: int
    warps_together: int
    shared_memory: int
    shared_memory_per_block: int
    shared_memory_reserved: int
    shared_memory_granularity: int
    tensor_memory_columns: int = 0


def _nvidia(
    name: str, target: int, shared_kib: int, tensor_memory_columns: int = 0
) -> Architecture:
    return Architecture(
        name=name,
        backend="cuda",
        target=target,
        warp_size=32,
        warps=64,
        blocks=32,
        warps_together=PARTITIONS,
        shared_memory=shared_kib * 1024,
        # A block may have all of it but the 1 KiB that the driver reserves.
        shared_memory_per_block=(shared_kib - 1) * 1024,
        shared_memory_reserved=1024,
        shared_memory_granularity=128,
        tensor_memory_columns=tensor_memory_columns,
    )


ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        _nvidia("sm_80", 80, shared_kib=164),  # A100
        _nvidia("sm_90", 90, shared_kib=228),  # H100, H200
        # B200. Tensor memory: PTX ISA, "Tensor Memory": 512 columns of 128 lanes of 32 bits.
        _nvidia("sm_100", 100, shared_kib=228, tensor_memory_columns=512),
        Architecture(  # MI300X
            name="gfx942",
            backend="hip",
            target="gfx942",
            warp_size=64,
            warps=8 * PARTITIONS,
            blocks=32,
            warps_together=1,
            shared_memory=64 * 1024,
            shared_memory_per_block=64 * 1024,
            shared_memory_reserved=0,
            shared_memory_granularity=512,
        ),
    )
}


def architecture(name: str) -> Architecture:
    """Look an architecture up.

    Parameters
    ----------
    name : str
        "sm_80", "sm_90", "sm_100" or "gfx942".

    Returns
    -------
    Architecture

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if name not in ARCHITECTURES:
        refuse("arch", f"one of {', '.join(ARCHITECTURES)}", repr(name))
    return ARCHITECTURES[name]


class TargetOnly:
    """A Triton driver that says which GPU to compile for, and can do nothing else.

    Parameters
    ----------
    target : triton.backends.compiler.GPUTarget
        The GPU that is not there.
    """

    def __init__(self, target: Any) -> None:
        self.target = target

    @staticmethod
    def is_active() -> bool:
        """Return True: this driver needs nothing of the machine."""
        return True

    def get_current_target(self) -> Any:
        """Return the target."""
        return self.target

    def get_current_device(self) -> tuple[str, int | str]:
        """Return a name that no real device has: Triton caches compiled kernels under it."""
        return ("target only", self.target.arch)

    def get_current_stream(self, device: Any) -> int:
        """Return the default stream; nothing is launched on it."""
        return 0

    def get_active_torch_device(self) -> Any:
        """Return where PyTorch would put tensors."""
        import torch

        return torch.device("meta")

    def map_python_to_cpp_type(self, ty: str) -> str:
        """Return the type unchanged; it names the types of a launcher that is never built."""
        return ty

    def get_benchmarker(self) -> Any:
        """Return a stand-in: the autotuner asks for it when a kernel is declared."""
        return lambda call, **options: [0.0, 0.0, 0.0]


def compile_for(name: str) -> None:
    """Make this process compile Triton kernels for an architecture, whatever GPU it has.

    Call it before `gptwin.kernels` is imported: a kernel's list of configurations may depend on
    the target. It lasts for the life of the process.

    Parameters
    ----------
    name : str
        As in `architecture`.

    Raises
    ------
    ValueError
        If the architecture is unknown.
    """
    wanted = architecture(name)
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    target = GPUTarget(wanted.backend, wanted.target, wanted.warp_size)
    driver.set_active(TargetOnly(target))


def occupancy(
    on: Architecture,
    *,
    warps: int,
    registers: int,
    shared_bytes: int,
    tensor_memory_columns: int = 0,
) -> float:
    """Compute the share of a multiprocessor's warps that can reside at once.

    Parameters
    ----------
    on : Architecture
        Whose multiprocessor.
    warps : int
        Of one block.
    registers : int
        Of one thread.
    shared_bytes, tensor_memory_columns : int
        Of one block.

    Returns
    -------
    float
        From 0 (one block does not fit) to 1.
    """
    blocks = min(on.blocks, on.warps // warps)
    if registers:
        per_partition = REGISTERS_PER_LANE // _round_up(registers, REGISTER_GRANULARITY)
        blocks = min(blocks, per_partition * PARTITIONS // _round_up(warps, on.warps_together))
    taken = _round_up(shared_bytes + on.shared_memory_reserved, on.shared_memory_granularity)
    if taken:
        blocks = min(blocks, on.shared_memory // taken)
    if tensor_memory_columns:
        blocks = min(blocks, on.tensor_memory_columns // tensor_memory_columns)
    return blocks * warps / on.warps


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
