"""GPUs' peaks by their datasheets, and the least time that they allow a twin's cost.

A call that moves `bytes` and computes `flops` takes at least as long as the slower of the two would
take alone. The peaks are the makers' figures, which no kernel reaches; so a prediction is a lower
bound, and no measurement. Benchmarks on a GPU hold their figures against the same peaks.
"""

import dataclasses

from .twin import Case, Cost, Twin


@dataclasses.dataclass(frozen=True)
class Device:
    """A GPU's peaks, from its datasheet.

    Attributes
    ----------
    name, arch : str
        As people and as compilers call it.
    driver_name : str
        As its driver and `torch.cuda.get_device_name` call it.
    bytes_per_second : float
        Of its memory.
    flops_per_second : dict of str to float
        By dtype, dense, with float32 sums; "float32" without tensor cores, "tf32" on them.
    """

    name: str
    arch: str
    driver_name: str
    bytes_per_second: float
    flops_per_second: dict[str, float]


def _peaks(half: float, tf32: float, float32: float) -> dict[str, float]:
    return {"bfloat16": half, "float16": half, "tf32": tf32, "float32": float32}


_HOPPER, _AMPERE = _peaks(989e12, 495e12, 67e12), _peaks(312e12, 156e12, 19.5e12)
# NVIDIA's datasheets of H100, H200 and A100. Predictions are made for the first two.
H100 = Device("H100", "sm_90", "NVIDIA H100 80GB HBM3", 3.35e12, _HOPPER)
A100 = Device("A100", "sm_80", "NVIDIA A100-SXM4-80GB", 2.039e12, _AMPERE)
DEVICES = (H100, A100)
DATASHEETS = (
    *DEVICES,
    Device("H100 PCIe", "sm_90", "NVIDIA H100 PCIe", 2.0e12, _peaks(756e12, 378e12, 51e12)),
    Device("H200", "sm_90", "NVIDIA H200", 4.8e12, _HOPPER),
    Device("A100 40GB", "sm_80", "NVIDIA A100-SXM4-40GB", 1.555e12, _AMPERE),
    # NVIDIA's datasheet of HGX B200, AMD's of MI300X.
    Device("B200", "sm_100", "NVIDIA B200", 8.0e12, _peaks(2250e12, 1125e12, 75e12)),
    Device("MI300X", "gfx942", "AMD Instinct MI300X", 5.3e12, _peaks(1307e12, 654e12, 163e12)),
)
ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2}


def predicted_seconds(cost: Cost, dtype: str, device: Device) -> float:
    """Return the least time, in seconds, that the roofline allows."""
    return max(
        cost.bytes / device.bytes_per_second,
        cost.flops / device.flops_per_second[dtype],
    )


def ridge(dtype: str, device: Device) -> float:
    """Return the FLOPs per byte below which memory is the limit."""
    return device.flops_per_second[dtype] / device.bytes_per_second


@dataclasses.dataclass(frozen=True)
class Typical:
    """A twin as people run it: what `inspect --typical` compiles.

    Attributes
    ----------
    shape : str
        Name of the twin's first named shape.
    case : Case
        That shape.
    dtype : str
        bfloat16 if the twin takes it.
    costs : dict of str to Cost
        Of "forward" and, where there is one, "backward".
    """

    shape: str
    case: Case
    dtype: str
    costs: dict[str, Cost]


def typical(twin: Twin) -> Typical:
    """Pick a twin's first named shape, its dtype of fewest bits, and what they cost."""
    shape, case = next(iter(twin.shapes.items()))
    dtype = twin.dtypes[-1]
    forward, backward = twin.cost(case, ITEMSIZE[dtype])
    costs = {"forward": forward} | ({} if backward is None else {"backward": backward})
    return Typical(shape, case, dtype, costs)
