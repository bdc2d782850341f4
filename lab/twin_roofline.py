"""What a twin's cost predicts for a GPU that need not be there: the roofline of its datasheet.

A call that moves `bytes` and computes `flops` takes at least as long as the slower of the two would
take alone. The peaks are the makers' figures, which no kernel reaches; so a prediction is a lower
bound, and no measurement.
"""

import dataclasses

from .twin import Case, Cost, Twin


@dataclasses.dataclass(frozen=True)
class Device:
    """A GPU's peaks, from its datasheet.

    Attributes
    ----------
    name, arch : str
        As sold, and as compilers call it.
    bytes_per_second : float
        Of its memory.
    flops_per_second : dict of str to float
        By dtype, without sparsity: half precision on tensor cores, float32 beside them.
    """

    name: str
    arch: str
    bytes_per_second: float
    flops_per_second: dict[str, float]


# NVIDIA, "H100 Tensor Core GPU" (SXM) and "A100 Tensor Core GPU" (80 GB SXM) datasheets.
DEVICES = (
    Device("H100", "sm_90", 3.35e12, {"bfloat16": 989e12, "float16": 989e12, "float32": 67e12}),
    Device("A100", "sm_80", 2.039e12, {"bfloat16": 312e12, "float16": 312e12, "float32": 19.5e12}),
)
ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2}


def predicted_seconds(cost: Cost, dtype: str, device: Device) -> float:
    """Return the least time that the roofline allows.

    Parameters
    ----------
    cost : Cost
    dtype : str
    device : Device

    Returns
    -------
    float
        Seconds.
    """
    return max(
        cost.bytes / device.bytes_per_second,
        cost.flops / device.flops_per_second[dtype],
    )


def ridge(dtype: str, device: Device) -> float:
    """Return the FLOPs per byte below which memory is the limit.

    Parameters
    ----------
    dtype : str
    device : Device

    Returns
    -------
    float
    """
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
    """Pick a twin's first named shape, its dtype of fewest bits, and what they cost.

    Parameters
    ----------
    twin : Twin

    Returns
    -------
    Typical
    """
    shape, case = next(iter(twin.shapes.items()))
    dtype = twin.dtypes[-1]
    forward, backward = twin.cost(case, ITEMSIZE[dtype])
    costs = {"forward": forward} | ({} if backward is None else {"backward": backward})
    return Typical(shape, case, dtype, costs)
