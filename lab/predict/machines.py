"""What the model knows of the hardware: one table, each number with its source and its kind.

Occupancies are cycles of one sub-partition of a multiprocessor (there are four) for one warp's
instruction, all four doing the same at the same time: what the four share counts fourfold.

A number is *measured* (by others, on the hardware), from a *datasheet* (the maker's), *calibrated*
(set so that published times of whole kernels come out), or a *guess*.
"""

import dataclasses
from collections.abc import Mapping

from ...core.checks import refuse
from .measured import read

MEASURED, DATASHEET, CALIBRATED, GUESS = "measured", "datasheet", "calibrated", "guess"
KINDS = (MEASURED, DATASHEET, CALIBRATED, GUESS)

NOTES = "rates of one sub-partition in a public SASS assembler's notes, 2026-09"
GUIDE = "CUDA C++ Programming Guide, throughput of native arithmetic instructions"
WHITEPAPER = "NVIDIA's whitepapers of A100 and H100"
LUO = "Luo et al. 2024, arXiv 2402.13499 and 2501.12084"


@dataclasses.dataclass(frozen=True)
class Number:
    """One number that the model uses.

    Attributes
    ----------
    name : str
        A field of `Machine`.
    values : dict of str to float
        By architecture.
    kind : str
        One of `KINDS`.
    source : str
        Where it is from, or what a guess is about.
    """

    name: str
    values: dict[str, float]
    kind: str
    source: str


def _both(name: str, value: float, kind: str, source: str) -> Number:
    return Number(name, {"sm_80": value, "sm_90": value}, kind, source)


def _of(name: str, arch: str, value: float, kind: str, source: str) -> Number:
    return Number(name, {arch: value}, kind, source)


TABLE: tuple[Number, ...] = (
    # The whole GPU. sm_80: A100 SXM, sm_90: H100 SXM.
    Number("sms", {"sm_80": 108, "sm_90": 132}, DATASHEET, "multiprocessors"),
    _of("clock", "sm_80", 1.41e9, DATASHEET, "Hz; A100's boost clock, which it holds"),
    _of("clock", "sm_90", 1.755e9, GUESS, "Hz under load; the datasheet's boost is 1.83e9"),
    _of("dram", "sm_80", 1.75e12, MEASURED, "bytes a second that published copies reach"),
    _of("dram", "sm_90", 3.0e12, MEASURED, "bytes a second that published copies reach"),
    _of("l2", "sm_80", 5120, DATASHEET, "bytes a clock of reads from L2; A100's whitepaper"),
    _of("l2", "sm_90", 5120, GUESS, "bytes a clock of reads from L2; taken to be A100's"),
    _both("launch_seconds", 2.5e-6, GUESS, "between two events around an empty kernel"),
    _both("block_cycles", 400, GUESS, "from a block's end to the next one's first instruction"),
    # Cycles that a warp's instruction occupies a pipe.
    _of("fp32", "sm_80", 2, MEASURED, NOTES),
    _of("fp32", "sm_90", 1, MEASURED, f"{NOTES}; 2 if one register bank has two operands"),
    _both("imad", 2, MEASURED, f"{NOTES}; half of that rate: IMAD.WIDE and .HI"),
    _both("alu", 2, MEASURED, f"{NOTES}; comparisons, selects, shifts, logic, F2FP"),
    _both("xu", 8, MEASURED, f"{NOTES}; and {GUIDE}: 16 a clock and multiprocessor"),
    _of("hmma", "sm_80", 10, CALIBRATED, f"16x8x16; 8 by {WHITEPAPER}, which products reach"),
    _of("hmma", "sm_90", 8, CALIBRATED, f"16x8x16; 6.4 by {LUO}"),
    _of("gmma_column", "sm_90", 0.5, DATASHEET, f"64xNx16 takes N/2; {WHITEPAPER}, {LUO}"),
    _both("fp64", 4, DATASHEET, GUIDE),
    _both("hfma2_mma", 2, GUESS, "HFMA2.MMA, taken to be the double-precision pipe's"),
    _both("dmma", 16, GUESS, "a double-precision product"),
    _both("shared_bytes", 128, DATASHEET, f"a clock and multiprocessor; {WHITEPAPER}"),
    _both("shuffle", 4, DATASHEET, f"{GUIDE}: 32 a clock and multiprocessor"),
    _both("uniform", 2, GUESS, "an instruction of the uniform datapath; a TMA copy's issue"),
    _both("constant", 1, GUESS, "a load of a constant, a read of a special register"),
    # Latencies, in cycles, beyond the occupancy.
    Number("l2_latency", {"sm_80": 260, "sm_90": 270}, MEASURED, LUO),
    _of("dram_latency", "sm_80", 600, GUESS, f"under load; 480 idle by {LUO}"),
    _of("dram_latency", "sm_90", 650, GUESS, f"under load; 480 idle by {LUO}"),
    _both("smem_latency", 30, MEASURED, f"{LUO}: 29"),
    _both("shuffle_latency", 24, MEASURED, LUO),
    _both("xu_latency", 20, GUESS, "an exponential, beyond its 8"),
    _both("constant_latency", 30, GUESS, "a load of a constant, a read of a special register"),
    _both("barrier_latency", 25, GUESS, "from the last warp's arrival"),
    _both("fence_latency", 20, GUESS, "MEMBAR, FENCE"),
    _of("gmma_latency", "sm_90", 30, GUESS, "a warpgroup's product, beyond its occupancy"),
    _both("jump", 8, GUESS, "a taken branch"),
    # How many a warp may have issued before the unit starts them.
    _of("gmma_queue", "sm_90", 4, GUESS, "warpgroup products"),
    _both("mio_queue", 8, GUESS, "loads, stores, shuffles, exponentials"),
)  # fmt: skip


def with_measured(
    table: tuple[Number, ...], found: Mapping[tuple[str, str], tuple[float, str]]
) -> tuple[Number, ...]:
    """Put what a calibration found in place of what stands in the table.

    Parameters
    ----------
    table : tuple of Number
    found : dict
        As from `measured.read`.

    Returns
    -------
    tuple of Number
        A number of two architectures is two, if one of them was measured.
    """
    numbers: list[Number] = []
    for number in table:
        known = {arch for arch in number.values if (number.name, arch) in found}
        left = {arch: x for arch, x in number.values.items() if arch not in known}
        if left:
            numbers.append(dataclasses.replace(number, values=left))
        for arch in sorted(known):
            value, source = found[number.name, arch]
            numbers.append(_of(number.name, arch, value, MEASURED, source))
    return tuple(numbers)


TABLE = with_measured(TABLE, read())


@dataclasses.dataclass(frozen=True)
class Machine:
    """One GPU's numbers, by the names of `TABLE`; what it has not got is 0."""

    arch: str
    name: str
    sms: float
    clock: float
    dram: float
    l2: float
    launch_seconds: float
    block_cycles: float
    fp32: float
    imad: float
    alu: float
    xu: float
    hmma: float
    fp64: float
    dmma: float
    hfma2_mma: float
    shared_bytes: float
    shuffle: float
    uniform: float
    constant: float
    l2_latency: float
    dram_latency: float
    smem_latency: float
    shuffle_latency: float
    xu_latency: float
    constant_latency: float
    barrier_latency: float
    fence_latency: float
    jump: float
    mio_queue: float
    gmma_column: float = 0
    gmma_latency: float = 0
    gmma_queue: float = 0

    @property
    def fma_shares(self) -> bool:
        """Whether FP32 and IMAD are one pipe, as on Ampere."""
        return self.arch == "sm_80"

    def dram_bytes_per_cycle(self) -> float:
        """Return one multiprocessor's share of what memory gives in a cycle."""
        return self.dram / self.sms / self.clock

    def l2_bytes_per_cycle(self) -> float:
        """Return one multiprocessor's share of what L2 gives in a cycle."""
        return self.l2 / self.sms


def _machine(arch: str, name: str) -> Machine:
    numbers = {n.name: n.values[arch] for n in TABLE if arch in n.values}
    return Machine(arch, name, **numbers)


MACHINES = {"sm_90": _machine("sm_90", "H100 SXM"), "sm_80": _machine("sm_80", "A100 SXM")}

# Share by which whole kernels' published times differ from the model's: docs/predict.md.
ERROR = {"sm_90": 0.15, "sm_80": 0.30}
# Rankings closer than that mean nothing.
AHEAD = {"sm_90": 1.2, "sm_80": 1.3}
BOUNDS_ALONE = ("sm_100", "gfx942")


def machine(arch: str) -> Machine:
    """Look a GPU up.

    Parameters
    ----------
    arch : str
        "sm_90" or "sm_80".

    Returns
    -------
    Machine

    Raises
    ------
    ValueError
        If the model knows none of that architecture.
    """
    if arch not in MACHINES:
        refuse("arch", f"one of {', '.join(MACHINES)}, whose pipes are known", repr(arch))
    return MACHINES[arch]
