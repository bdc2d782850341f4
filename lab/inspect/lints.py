"""Faults of speed that machine code shows without any model of its timing.

Each names the instruction and a remedy. They are about one compiled kernel, but for "same kernel",
which compares the configurations of one list. What a list accepts, with a reason, stands in
accepted.toml; of this project's own kernels every other one fails `gptwin inspect`.
"""

import dataclasses
import functools
import hashlib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .sass import Instruction, Loop, loops
from .targets import (
    PARTITIONS,
    REGISTER_GRANULARITY,
    REGISTERS_PER_LANE,
    Architecture,
    occupancy,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NARROW, DRAINED, ALONE, SAME, BYTES, SERIAL = (
    "narrow product", "drained copies", "one block", "same kernel", "two-byte copies",
    "serial products",
)  # fmt: skip
KINDS = (NARROW, DRAINED, ALONE, SAME, BYTES, SERIAL)
# Those whose remedy costs nothing; and where the others' can be weighed by lab/predict.
CERTAIN, WEIGHED = (SAME, BYTES), ("sm_80", "sm_90")
# A warpgroup's product of fewer columns waits for its left factor, 64 x 32 bytes, from shared
# memory (128 bytes a clock): 16 cycles beside N/2 of multiplying.
FEWEST_COLUMNS = 64
ACCEPTED = Path(__file__).with_name("accepted.toml")


@dataclasses.dataclass(frozen=True)
class Lint:
    """One finding.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    instruction : str
        As in `--show sass`, with its address and source line; or the numbers it is about.
    remedy : str
    """

    kind: str
    instruction: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.instruction}: {self.remedy}"


def of_code(program: Sequence[Instruction]) -> list[Lint]:
    """Look through the loops of one kernel.

    Parameters
    ----------
    program : sequence of Instruction

    Returns
    -------
    list of Lint
        At most one of each kind, the first that there is.
    """
    found: dict[str, Lint] = {}
    for loop in loops(program):
        if loop.innermost:
            for lint in _of_loop(program, loop):
                found.setdefault(lint.kind, lint)
    return list(found.values())


def _of_loop(program: Sequence[Instruction], loop: Loop) -> Iterator[Lint]:
    body = [i for i in loop.body(program) if not i.never_runs]
    products = [i for i in body if i.tile() is not None]
    yield from _narrow(products)
    yield from _drained(body)
    if products:
        yield from _two_bytes(body)
        yield from _serial(body)


def _narrow(products: Iterable[Instruction]) -> Iterator[Lint]:
    for i in products:
        tile = i.tile()
        if not (i.is_warpgroup_product and i.left_from_shared_memory) or tile is None:
            continue
        if tile[1] < FEWEST_COLUMNS:
            remedy = (
                f"{tile[1]} columns multiply in {tile[1] // 2} cycles, and their left factor "
                "takes 16 of shared memory: a wider tile, or fewer warps for it"
            )
            yield Lint(NARROW, _place(i), remedy)


def _drained(body: Sequence[Instruction]) -> Iterator[Lint]:
    """Copies into shared memory, of which a turn begins with waiting for the last."""
    if not any(i.base == "LDGSTS" for i in body):
        return
    for i in body:
        if i.base == "DEPBAR" and re.match(r"SB\d, 0x0\b", i.operands):
            remedy = "no copy is in flight while the turn computes: one more of num_stages"
            yield Lint(DRAINED, _place(i), remedy)


def _two_bytes(body: Sequence[Instruction]) -> Iterator[Lint]:
    loads = [i for i in body if i.base in ("LDG", "STS") and i.bytes_of_lane == 2]
    if {i.base for i in loads} == {"LDG", "STS"}:
        remedy = (
            "a product's factor comes through registers, two bytes at a time: lay it out along the "
            "axis that is contiguous in memory, or transpose it once"
        )
        yield Lint(BYTES, _place(next(i for i in loads if i.base == "LDG")), remedy)


def _serial(body: Sequence[Instruction]) -> Iterator[Lint]:
    """A wait for all products, and exponentials, before the next product may begin."""
    kinds = [
        "product" if i.is_warpgroup_product
        else "wait" if i.opcode.startswith("WARPGROUP.DEPBAR") and i.operands.endswith("0x0")
        else "exp" if i.opcode.startswith("MUFU.EX2")
        else ""
        for i in body
    ]  # fmt: skip
    for at, kind in enumerate(kinds):
        if kind != "wait" or "product" not in kinds[:at]:
            continue
        rest = [k for k in kinds[at + 1 :] if k in ("product", "exp")]
        if rest[:1] == ["exp"] and "product" in rest:
            remedy = (
                "tensor cores are idle while this warpgroup exponentiates: have the next tile's "
                "product in flight, or two warpgroups half a turn apart"
            )
            yield Lint(SERIAL, _place(body[at]), remedy)
            return


def _place(i: Instruction) -> str:
    where = f" ({Path(i.file).name}:{i.line})" if i.file else ""
    return f"{i.text} at {i.address:#x}{where}"


def register_limit(
    on: Architecture, *, warps: int, registers: int, shared_bytes: int
) -> int | None:
    """Return the registers of a thread that let two blocks reside where now one does; or None.

    Parameters
    ----------
    on : Architecture
    warps, registers, shared_bytes : int
        Of the kernel.

    Returns
    -------
    int or None
        None if more than one resides, or if something else allows one alone.
    """
    if on.backend != "cuda" or warps < PARTITIONS:
        return None
    size = {"warps": warps, "shared_bytes": shared_bytes}
    if round(occupancy(on, registers=registers, **size) * on.warps / warps) != 1:
        return None
    most = REGISTERS_PER_LANE * PARTITIONS // (2 * warps)
    limit = most // REGISTER_GRANULARITY * REGISTER_GRANULARITY
    if round(occupancy(on, registers=limit, **size) * on.warps / warps) < 2:
        return None
    return limit


def one_block(limit: int, registers: int) -> Lint:
    """Say that a limit of registers, tried and without spills, lets two blocks reside."""
    return Lint(
        ALONE,
        f"{registers} registers, one block on a multiprocessor",
        f"maxnreg={limit} gives two and does not spill",
    )


def fingerprint(compiled: Any) -> str:
    """Tell a kernel's code from that of others, whatever its constants are called.

    Parameters
    ----------
    compiled : triton.compiler.CompiledKernel

    Returns
    -------
    str
    """
    text = compiled.asm["ptx" if "ptx" in compiled.asm else "amdgcn"]
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def same_as(first: int) -> Lint:
    """Say that a configuration compiles to the code of an earlier one."""
    return Lint(
        SAME,
        f"the code of configuration {first}",
        "the tuner times one kernel twice: leave it out of the list",
    )


@functools.cache
def accepted() -> tuple[dict[str, Any], ...]:
    """Read the list of what is accepted: kernel, kind, architectures if not all, and the reason."""
    return tuple(tomllib.loads(ACCEPTED.read_text(encoding="utf-8")).get("accepted", ()))


def reason_to_accept(kernel: str, arch: str, lint: Lint) -> str:
    """Return why a finding is accepted; empty if it is not.

    Of an architecture that nothing here can weigh, a finding whose remedy costs something else is
    advice.

    Parameters
    ----------
    kernel, arch : str
    lint : Lint

    Returns
    -------
    str
    """
    if arch not in WEIGHED and lint.kind not in CERTAIN:
        return f"advice alone: no model of {arch} weighs what the remedy costs"
    for entry in accepted():
        same = (entry["kernel"], entry["kind"]) == (kernel, lint.kind)
        if same and arch in entry.get("archs", [arch]):
            return str(entry["reason"])
    return ""
