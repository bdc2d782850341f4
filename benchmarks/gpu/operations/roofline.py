"""The roofline: how fast this device copies and multiplies, measured in the same run.

A call that must move so many bytes and compute so many FLOPs takes at least

    max(bytes / copy bandwidth, FLOPs / matmul rate of the dtype)

and the share of it that a kernel reaches is that time over its own. The vendor's figures stand
beside the measured ones; of a device that is not listed they are unknown.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ....lab.twins.roofline import DATASHEETS
from ....lab.twins.twin import Case, Cost
from ...timing import Finding, spread
from .clock import Clock

Peaks = Mapping[str, Any]

MATMULS = ("bfloat16", "float16", "tf32", "float32")
# A figure above the measured peak by no more than this is the noise of that peak.
TOLERANCE = 1.03

# The vendor's peaks by the device's name, under the names of those that are measured.
DATASHEET: dict[str, dict[str, float]] = {
    device.driver_name: {"copy": device.bytes_per_second, **device.flops_per_second}
    for device in DATASHEETS
}


def measure_roofline(clock: Clock, device: str, *, tiny: bool = False) -> Iterator[Finding]:
    """Time a copy and matmuls of random numbers.

    Parameters
    ----------
    clock : Clock
    device : str
    tiny : bool
        For a dry run.

    Yields
    ------
    dict
        "copy" in bytes/s, read and written; the others in FLOP/s.
    """
    generator = torch.Generator(device).manual_seed(0)
    n = 2**20 if tiny else 2**28
    source = torch.randn(n, generator=generator, device=device)
    target = torch.empty_like(source)
    timing = clock.time(functools.partial(target.copy_, source))
    yield rate("copy", "bytes/s", 2 * source.nbytes, timing.seconds, f"{source.nbytes} bytes")
    side = 256 if tiny else 8192
    before = torch.get_float32_matmul_precision()
    for name in MATMULS:
        dtype = torch.float32 if name == "tf32" else getattr(torch, name)
        a, b = (torch.randn(side, side, generator=generator, device=device) for _ in range(2))
        a, b = a.to(dtype), b.to(dtype)
        torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
        try:
            timing = clock.time(functools.partial(torch.mm, a, b))
        finally:
            torch.set_float32_matmul_precision(before)
        yield rate(name, "FLOP/s", 2 * side**3, timing.seconds, f"{side} x {side} x {side}")


def rate(name: str, unit: str, work: int, seconds: list[float], size: str) -> Finding:
    """Make the finding of a rate: work over time."""
    return {
        "name": name, "status": "measured", "reason": None, "unit": unit,
        "value": spread([work / s for s in seconds]), "samples": len(seconds), "size": size,
    }  # fmt: skip


def peaks_of(findings: list[Finding], device: str) -> Peaks:
    """Return the peaks for `roofline_of`; see results.py.

    Parameters
    ----------
    findings : list of dict
        Of `measure_roofline`.
    device : str
        The device's name.
    """
    measured = {found["name"]: found["value"]["median"] for found in findings}
    return measured | {"datasheet": DATASHEET.get(device)}


def rate_of_matmuls(dtype: str, case: Case) -> str:
    """Name the peak of a case's matmuls."""
    return "tf32" if dtype == "float32" and case.get("precision") == "tf32" else dtype


def least_seconds(cost: Cost, peaks: Mapping[str, float], matmul: str) -> tuple[float, str]:
    """Return the least time by the given peaks, and what bounds it: "bytes" or "flops"."""
    by_bytes, by_flops = cost.bytes / peaks["copy"], cost.flops / peaks[matmul]
    return max(by_bytes, by_flops), "bytes" if by_bytes >= by_flops else "flops"


def roofline_of(
    cost: Cost, seconds: float, peaks: Peaks, matmul: str, cache_bytes: int
) -> dict[str, Any]:
    """Compare a time with the roofline.

    Parameters
    ----------
    cost : Cost
    seconds : float
        Measured.
    peaks : dict
        From `peaks_of`.
    matmul : str
        From `rate_of_matmuls`.
    cache_bytes : int
        The device's level-2 cache.

    Returns
    -------
    dict
        "seconds", "bound", "share" and "label", as in results.py; "rejected" is a reason if the
        device cannot have been that fast.
    """
    least, bound = least_seconds(cost, peaks, matmul)
    share = least / seconds
    label = rejected = None
    if share > TOLERANCE:
        label = "above the measured peak"
        if bound == "bytes" and cost.bytes <= cache_bytes:
            label = "cache-resident"  # its last writes are still on their way to memory
        elif peaks["datasheet"] is None:
            rejected = f"{share:.2f} times the measured peak of {bound}"
        else:
            by_vendor, _ = least_seconds(cost, peaks["datasheet"], matmul)
            if by_vendor > seconds:
                rejected = f"{by_vendor / seconds:.2f} times the datasheet's peak of {bound}"
    return {
        "seconds": least, "bound": bound, "share": share, "label": label, "rejected": rejected,
    }  # fmt: skip
