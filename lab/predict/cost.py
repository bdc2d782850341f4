"""What one instruction costs: how long it occupies which pipes of a sub-partition, and then waits.

An instruction that is in no list here is an error: counted as nothing, it would make a kernel look
faster than it is.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence

from ..inspect.sass import Instruction, Loop
from .machines import Machine

PIPES = ("issue", "tensor", "xu", "alu", "fma", "fp32", "shared", "l2", "dram", "uniform", "fp64")
MEMORY = ("l2", "dram")  # queues behind the load-store unit: they delay data, not issue
LANES = 32


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


FP32 = _names("FFMA FADD FMUL FFMA32I FADD32I FMUL32I FSWZADD FHADD")
MULTIPLY = _names("IMAD IMUL IDP HFMA2 HADD2 HMUL2")
FP64 = _names("DADD DFMA DMUL DSETP")
XU = _names("MUFU F2F F2I I2F FRND POPC FLO BREV")
ALU = _names(
    "IADD3 IADD LOP3 LOP SHF SHL SHR ISETP FSETP FMNMX IMNMX VIMNMX SEL FSEL PRMT MOV MOV32I LEA "
    "F2FP I2FP I2I I2IP SGXT BMSK IABS PLOP3 P2R R2P FSET VIADD CS2R IADD32I LOP32I FCHK PSETP "
    "HMNMX2 HSETP2 HSET2 VIADDMNMX R2UR VOTE VOTEU F2IP"
)
SHUFFLES = _names("SHFL REDUX MATCH")
SHARED = _names("LDS STS LDSM STSM ATOMS")
GLOBAL = _names("LDG STG LDGSTS RED ATOM ATOMG LD ST LDL STL")
LOCAL = _names("LDL STL")
STORES = _names("STG ST RED")
CONSTANT = _names("LDC S2R S2UR ULDC LDCU")
TMA = _names("UTMALDG UTMASTG UTMACMDFLUSH UTMAREDG UBLKCP UTMAPF UTMACCTL")
UNIFORM = _names(
    "UIADD3 UIADD UIMAD ULOP3 ULOP USHF USHL USHR UISETP USEL UMOV ULEA UPRMT UPLOP3 USGXT UBMSK "
    "UFLO UPOPC UBREV UP2UR UR2UP R2UR UIABS UVIMNMX"
)
CONTROL = _names(
    "BRA BRX BRXU JMP PREEXIT BAR EXIT BSSY BSYNC CALL RET WARPSYNC DEPBAR LDGDEPBAR MEMBAR FENCE "
    "WARPGROUP ERRBAR CCTL YIELD NANOSLEEP BMOV WARPGROUPSET ELECT SYNCS USETMAXREG ACQBULK KILL "
    "BREAK ARRIVES BPT UCGABAR_ARV UCGABAR_WAIT"
)


class UnknownInstruction(ValueError):
    """An instruction whose throughput nobody has told the model."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What an instruction of one warp takes.

    Attributes
    ----------
    pipes : dict of str to float
        Cycles of each pipe.
    kind : str
        "fixed": issue waits for the pipe; "queued", "gmma", "load", "store", "copy", "tma": a queue
        takes it; "bar": the block's warps meet; "control".
    latency : float
        Cycles beyond the occupancy until its result is there.
    """

    pipes: dict[str, float]
    kind: str = "fixed"
    latency: float = 0


NOTHING = Cost({})


def cost(i: Instruction, m: Machine, dram_share: float = 0.0) -> Cost:
    """Look an instruction up.

    Parameters
    ----------
    i : Instruction
    m : Machine
    dram_share : float
        Share of the bytes of global loads and stores that go to memory; all go through L2.

    Returns
    -------
    Cost

    Raises
    ------
    UnknownInstruction
        If nobody has told what it takes.
    """
    if i.never_runs or i.base == "NOP":
        return NOTHING
    for costs in (_product, _arithmetic, _traffic, _control):
        found = costs(i, m, dram_share)
        if found is not None:
            return found
    raise UnknownInstruction(
        f"predict: expected an instruction whose throughput is known, got {i.text} at "
        f"{i.address:#x} (likely cause: a new compiler or architecture; lab/predict/cost.py lists "
        "what is known)"
    )


def _product(i: Instruction, m: Machine, dram_share: float) -> Cost | None:
    """Products of the tensor cores."""
    tile = i.tile()
    if i.is_warpgroup_product and tile and m.gmma_column:
        n = tile[1]
        # Every type's k is 32 bytes: those of each of n columns, and of A's 64 rows if they are not
        # in registers.
        shared = (n + (64 if i.left_from_shared_memory else 0)) * 32 / m.shared_bytes
        tensor = max(n * m.gmma_column, shared)
        return Cost({"tensor": tensor, "shared": shared}, "gmma", m.gmma_latency)
    if i.base == "DMMA":
        return Cost({"tensor": m.dmma})
    if i.base in ("HMMA", "IMMA", "QMMA") and tile:
        rate = 2 if "TF32" in i.modifiers else 0.5 if i.base != "HMMA" else 1
        return Cost({"tensor": m.hmma * rate * tile[0] * tile[1] * tile[2] / (16 * 8 * 16)})
    return None


def _arithmetic(i: Instruction, m: Machine, dram_share: float) -> Cost | None:
    if i.base in FP32:
        return Cost({"fma" if m.fma_shares else "fp32": max(m.fp32, _cycles_to_collect(i))})
    if i.base == "HFMA2" and "MMA" in i.modifiers:
        return Cost({"fp64": m.hfma2_mma})
    if i.base in MULTIPLY:
        twice = i.base in ("IMAD", "IMUL") and {"WIDE", "HI"} & set(i.modifiers)
        return Cost({"fma": m.imad * (2 if twice else 1)})
    if i.base in FP64:
        return Cost({"fp64": m.fp64})
    if i.base in XU:
        return Cost({"xu": m.xu}, "queued", m.xu_latency)
    if i.base in UNIFORM:
        return Cost({"uniform": m.uniform})
    if i.base in ALU:
        return Cost({"alu": m.alu})
    return None


def _traffic(i: Instruction, m: Machine, dram_share: float) -> Cost | None:
    """Loads, stores and copies."""
    moved = i.bytes_of_lane * LANES
    # What a multiprocessor's four sub-partitions share counts fourfold.
    port = 4 * max(1, moved / m.shared_bytes)
    if i.base in SHUFFLES:
        return Cost({"shared": m.shuffle}, "queued", m.shuffle_latency)
    if i.base in SHARED:
        return Cost({"shared": port}, "queued", m.smem_latency)
    if i.base in LOCAL:
        return Cost({"shared": port}, "queued" if i.base == "LDL" else "store", m.smem_latency)
    if i.base in GLOBAL:
        occupied = {"shared": port, "l2": 4 * moved / m.l2_bytes_per_cycle()}
        if dram_share:
            occupied["dram"] = dram_share * 4 * moved / m.dram_bytes_per_cycle()
        kind = {"LDGSTS": "copy", "LDG": "load", "LD": "load"}.get(i.base, "store")
        # What has to come from memory is waited for longer.
        latency = m.l2_latency + dram_share * (m.dram_latency - m.l2_latency)
        return Cost(occupied, kind, latency)
    if i.base in TMA:
        return Cost({"uniform": m.uniform}, "tma")
    if i.base in CONSTANT:
        return Cost({"shared": m.constant}, "queued", m.constant_latency)
    return None


def _control(i: Instruction, m: Machine, dram_share: float) -> Cost | None:
    if i.base == "BAR" and i.modifiers[:1] in (["SYNC"], ["RED"]):
        return Cost({}, "bar", m.barrier_latency)
    if i.base in ("MEMBAR", "FENCE"):
        return Cost({}, "queued", m.fence_latency)
    return Cost({}, "control") if i.base in CONTROL else None


def _cycles_to_collect(i: Instruction) -> int:
    """Count cycles to read operands: one a cycle from each of two banks, even and odd registers."""
    read = set(i.source_registers())
    return max(1, sum(r % 2 == 0 for r in read), sum(r % 2 for r in read))


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What each pipe needs at least for one turn of a loop, by all resident warps.

    Attributes
    ----------
    instructions : int
    counts : Counter
        Instructions by opcode.
    pipes : dict of str to float
        Cycles.
    """

    instructions: int
    counts: "Counter[str]"
    pipes: dict[str, float]

    @property
    def limit(self) -> tuple[str, float]:
        """The busiest pipe and its cycles: no turn is shorter."""
        return max(self.pipes.items(), key=lambda item: item[1])


def bounds(
    program: Sequence[Instruction], loop: Loop, m: Machine, warps: float, dram_share: float = 0.0
) -> Bounds:
    """Sum up what one turn of a loop occupies.

    Parameters
    ----------
    program : sequence of Instruction
    loop : Loop
    m : Machine
    warps : float
        On one sub-partition, of all resident blocks.
    dram_share : float
        As in `cost`.

    Returns
    -------
    Bounds
    """
    body = loop.body(program)
    pipes: dict[str, float] = defaultdict(float, issue=len(body) * warps)
    for i in body:
        for pipe, cycles in cost(i, m, dram_share).pipes.items():
            pipes[pipe] += cycles * warps
    return Bounds(len(body), Counter(i.base for i in body), dict(pipes))


@dataclasses.dataclass(frozen=True)
class Work:
    """What a stretch of code does for one block: FLOPs of products, bytes read and written."""

    flops: float
    read: float
    written: float

    @property
    def bytes(self) -> float:
        """Both together."""
        return self.read + self.written


def work(code: Sequence[Instruction], warps: int) -> Work:
    """Count a block's products and traffic in a stretch of code.

    Parameters
    ----------
    code : sequence of Instruction
    warps : int
        Of a block.

    Returns
    -------
    Work
        FLOPs are those of the tensor cores.
    """
    flops = read = written = 0.0
    for i in code:
        tile = None if i.never_runs else i.tile()
        if tile:
            per_warp = 4 if i.is_warpgroup_product else 1
            flops += 2 * tile[0] * tile[1] * tile[2] * warps / per_warp
        elif i.base in GLOBAL - LOCAL and not i.never_runs:
            moved = i.bytes_of_lane * LANES * warps
            if i.base in STORES:
                written += moved
            else:
                read += moved
    return Work(flops, read, written)
