"""Read SASS: instructions, the control fields that ptxas left in their encoding, and loops.

Since Volta an instruction is 128 bits. `nvdisasm -hex` prints both halves as comments; the upper
half carries what the hardware needs to issue without looking at registers (Jia et al. 2018, arXiv
1804.06826, section 2.1):

    bits 105-108  stall: cycles before this warp may issue its next instruction
    bit  109      0: the scheduler is asked to prefer another warp
    bits 110-112  write barrier: scoreboard released when the result is there (7: none)
    bits 113-115  read barrier: scoreboard released when the operands were read (7: none)
    bits 116-121  mask of scoreboards to wait for before issue
    bits 122-125  operands to keep in the reuse cache

A result of fixed latency is safe to read after the stall counts in between; one of variable latency
(memory, exponentials, Hopper's tensor cores) only after its scoreboard. So timing needs no table of
dependences: the compiler wrote them down.
"""

import dataclasses
import re
from collections.abc import Sequence

_FIRST_HALF = re.compile(r"\s+/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;\s+/\* 0x([0-9a-f]{16}) \*/")
_SECOND_HALF = re.compile(r"\s+/\* 0x([0-9a-f]{16}) \*/")
_LABEL = re.compile(r"^(\.L_\w+):")
_TARGET = re.compile(r"`\((\.L_\w+)\)")
_TEXT = re.compile(r"(?:@(!?U?P\w+)\s+)?([A-Z][A-Za-z0-9_.]*)\s*(.*)", re.DOTALL)
# Printed by nvdisasm -g; of what was inlined, the innermost function's line.
_SOURCE = re.compile(r'\s*//## File "([^"]+)", line (\d+)')
_REGISTER = re.compile(r"(?<![A-Z])R(\d+)")
_SHAPE = re.compile(r"\.(\d+)x(\d+)x(\d+)")

NO_BARRIER = 7
BRANCHES = ("BRA", "CALL")
# A loop of fewer instructions that sleeps or polls is a wait, and no loop of the program.
LONGEST_SPIN = 8


@dataclasses.dataclass
class Instruction:
    """One instruction with its control fields.

    Attributes
    ----------
    address : int
    predicate : str
        "", "P0", "!PT", "UP1", ...
    opcode : str
        With its modifiers: "HGMMA.64x64x16.F32.BF16".
    operands : str
    stall : int
        Cycles before the warp may issue the next one.
    yields : bool
    write_barrier, read_barrier : int or None
        Scoreboards that it releases.
    wait_mask, reuse : int
    file, line : str, int
        Where it came from; "" and 0 if the kernel does not say.
    target : int or None
        Of a branch: an index into the program.
    """

    address: int
    predicate: str
    opcode: str
    operands: str
    stall: int
    yields: bool
    write_barrier: int | None
    read_barrier: int | None
    wait_mask: int
    reuse: int
    file: str = ""
    line: int = 0
    target: int | None = None

    @property
    def base(self) -> str:
        """The opcode without its modifiers."""
        return self.opcode.partition(".")[0]

    @property
    def modifiers(self) -> list[str]:
        """What stands behind the opcode's dots."""
        return self.opcode.split(".")[1:]

    @property
    def never_runs(self) -> bool:
        """Whether its predicate is false by its name."""
        return self.predicate in ("!PT", "!UPT")

    @property
    def text(self) -> str:
        """The instruction as nvdisasm writes it."""
        guard = f"@{self.predicate} " if self.predicate else ""
        return f"{guard}{self.opcode} {self.operands}".strip()

    def source_registers(self) -> list[int]:
        """List the general registers that are read; the first operand is the result."""
        return [int(n) for part in self.operands.split(",")[1:] for n in _REGISTER.findall(part)]

    def tile(self) -> tuple[int, int, int] | None:
        """Return m, n, k of a product of the tensor cores; None for anything else."""
        if found := _SHAPE.search(self.opcode):  # HGMMA.64x128x16
            return int(found[1]), int(found[2]), int(found[3])
        for name in self.modifiers if self.base in ("HMMA", "IMMA", "QMMA", "DMMA") else ():
            if re.fullmatch(r"168\d+", name):  # HMMA.16816: 16x8x16
                return 16, 8, int(name[3:])
            if name == "884":
                return 8, 8, 4
        return None

    @property
    def is_warpgroup_product(self) -> bool:
        """Whether four warps multiply together, from shared memory: Hopper's HGMMA."""
        return self.base in ("HGMMA", "IGMMA", "QGMMA", "BGMMA")

    @property
    def left_from_shared_memory(self) -> bool:
        """Of a warpgroup's product: whether its left factor is in shared memory."""
        return self.operands.split(",")[1].strip().startswith("gdesc")

    @property
    def bytes_of_lane(self) -> int:
        """How many bytes a load or store moves for each lane."""
        if self.base in ("LDSM", "STSM"):
            return 4 * int(next((m for m in self.modifiers if m in ("2", "4")), 1))
        for name in self.modifiers:
            if name in ("128", "64"):
                return int(name) // 8
            if name in ("U16", "S16", "16"):
                return 2
            if name in ("U8", "S8", "8"):
                return 1
        return 4


@dataclasses.dataclass(frozen=True)
class Loop:
    """Instructions `first` to `last`, the last being the branch back; `innermost`: holds none."""

    first: int
    last: int
    innermost: bool

    def body(self, program: Sequence[Instruction]) -> Sequence[Instruction]:
        """Return its instructions."""
        return program[self.first : self.last + 1]


def parse(text: str) -> list[Instruction]:
    """Parse what `nvdisasm -hex -c` prints of one kernel.

    Parameters
    ----------
    text : str
        With `-g`, the source lines are read, too.

    Returns
    -------
    list of Instruction

    Raises
    ------
    ValueError
        If an instruction lacks its second half: the text was not made with -hex.
    """
    program: list[Instruction] = []
    labels: dict[str, int] = {}
    jumps: dict[int, str] = {}
    file, line_number = "", 0
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if label := _LABEL.match(line):
            labels[label[1]] = len(program)
        elif source := _SOURCE.match(line):
            file, line_number = source[1], int(source[2])
        elif found := _FIRST_HALF.match(line):
            upper = _SECOND_HALF.match(lines[number + 1]) if number + 1 < len(lines) else None
            if upper is None:
                raise ValueError(f"sass: expected the second half of an instruction below {line!r}")
            instruction = decode(int(found[1], 16), found[2], int(upper[1], 16))
            instruction.file, instruction.line = file, line_number
            to = _TARGET.search(instruction.operands)
            if instruction.base in BRANCHES and to:
                jumps[len(program)] = to[1]
            program.append(instruction)
    for index, name in jumps.items():
        program[index].target = labels.get(name)
    return program


def decode(address: int, text: str, upper: int) -> Instruction:
    """Read one instruction.

    Parameters
    ----------
    address : int
    text : str
        As nvdisasm writes it.
    upper : int
        The upper 64 of its bits; the control fields are the highest 23.

    Returns
    -------
    Instruction

    Raises
    ------
    ValueError
        If the text is no instruction.
    """
    found = _TEXT.match(text)
    if found is None:
        raise ValueError(f"sass: expected an instruction, got {text!r}")
    predicate, opcode, operands = found.groups()
    control = upper >> 41
    write, read = control >> 5 & 7, control >> 8 & 7
    return Instruction(
        address, predicate or "", opcode, operands,
        stall=control & 15, yields=not control >> 4 & 1,
        write_barrier=None if write == NO_BARRIER else write,
        read_barrier=None if read == NO_BARRIER else read,
        wait_mask=control >> 11 & 63, reuse=control >> 17 & 15,
    )  # fmt: skip


def loops(program: Sequence[Instruction]) -> list[Loop]:
    """Find the loops, in the order of their code.

    ptxas lays each one out as one stretch that ends with a branch back. A branch to itself (the
    trap after EXIT) and a spin of a few instructions on a barrier are none.

    Parameters
    ----------
    program : sequence of Instruction

    Returns
    -------
    list of Loop
    """
    ends: dict[int, int] = {}
    for index, instruction in enumerate(program):
        start = instruction.target
        if instruction.base != "BRA" or start is None or start >= index:
            continue
        if not _is_spin(program, start, index):
            # Of several branches to one header the last ends the loop.
            ends[start] = max(index, ends.get(start, 0))
    spans = sorted(ends.items())
    return [
        Loop(a, b, not any((c, d) != (a, b) and a <= c and d <= b for c, d in spans))
        for a, b in spans
    ]


def _is_spin(program: Sequence[Instruction], first: int, last: int) -> bool:
    """Say whether a branch back waits for a barrier, in place or from a stub behind the code."""
    body = program[first : last + 1]
    if len(body) < LONGEST_SPIN and any(i.base in ("SYNCS", "NANOSLEEP") for i in body):
        return True
    before = program[last - 1].target  # a stub: try again; then back to where it was needed
    return not program[last].predicate and before is not None and last - 4 < before < last
