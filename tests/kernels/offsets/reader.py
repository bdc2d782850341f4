"""Read a kernel's Triton IR: which 32-bit products feed a pointer's offset? See test_offsets.py."""

import dataclasses
import math
import re
from typing import Any

LIMIT = 2**31


@dataclasses.dataclass(frozen=True)
class Value:
    """What is known of one value in the IR.

    `bound` is the largest magnitude of its elements; `argument` says that it is a kernel argument
    (perhaps extended or broadcast), `constant` that the compiler knew it; `faults` are the
    forbidden multiplications among its ancestors.
    """

    bound: float = math.inf
    argument: bool = False
    constant: bool = False
    faults: frozenset[str] = frozenset()


ASSIGNMENT = re.compile(r"^\s*(?:(%[\w.]+)(?::\d+)?(?:, %[\w.]+)* = )?\"?([\w.]+)\"?(.*)$")
ARGUMENT = re.compile(r"%([\w.]+): (!?[\w.<>]+)(?: \{[^}]*\})?(?: loc\(\"([\w.]+)\")?")
SAME_VALUE = (
    "arith.extsi", "arith.extui", "arith.index_cast", "tt.splat", "tt.broadcast",
    "tt.expand_dims", "tt.reshape", "tt.trans", "tt.unsplat", "ttg.convert_layout",
)  # fmt: skip


class Reader:
    """Follow every value of one kernel's TTIR, in order, and collect what goes wrong.

    Parameters
    ----------
    ttir : str
        The kernel's IR.
    arguments : dict
        Argument name to value; only the integers are looked at. Within a tuple the name is the
        compiler's: "x.strides.0".
    grid : tuple of int
        Of the launch.
    """

    def __init__(self, ttir: str, arguments: dict[str, Any], grid: tuple[int, ...]) -> None:
        self.arguments = arguments
        self.grid = (*grid, 1, 1)
        self.places = dict(re.findall(r"^(#loc\d*) = loc\((.*)\)$", ttir, re.MULTILINE))
        self.faults: set[str] = set()
        self.offsets = 0
        # A loop carries values around: what its end yields is known only the second time.
        self.yielded: dict[int, frozenset[str]] = {}
        for _ in range(2):
            self.scopes: list[dict[str, Value]] = [{}]
            self.headers: list[int] = []
            self.offsets = 0
            for number, line in enumerate(ttir.splitlines()):
                if not line.startswith("#"):
                    self.read_line(number, line)

    def look_up(self, name: str) -> Value:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return Value()

    def read_line(self, number: int, line: str) -> None:
        code = re.sub(r" loc\([^)]*\)+(?= \{$|$)", "", line)
        if code.strip().startswith("}"):
            self.scopes.pop()
            self.headers.pop()
        opens = code.rstrip().endswith("{")
        match = ASSIGNMENT.match(code)
        if match and not code.strip().startswith(("}", "^")):
            result, operation, rest = match.groups()
            if operation == "tt.func":
                self.scopes[0] = self.read_arguments(line)
            elif opens:
                self.open_region(number, result, operation, rest)
                return
            else:
                value = self.evaluate(number, line, operation, rest)
                if result:
                    self.scopes[-1][result] = value
        if opens:
            self.headers.append(number)
            self.scopes.append({})

    def read_arguments(self, line: str) -> dict[str, Value]:
        values = {}
        for name, kind, known_as in ARGUMENT.findall(line):
            given = self.arguments.get(known_as or name)
            bound = abs(given) if isinstance(given, int) else math.inf
            values[f"%{name}"] = Value(bound, argument=not kind.startswith("!tt.ptr"))
        return values

    def open_region(self, number: int, result: str | None, operation: str, rest: str) -> None:
        """Enter a loop or a branch, with what comes in and what its end yields."""
        inputs = [self.look_up(name) for name in re.findall(r"%[\w.]+", rest)]
        carried = self.yielded.get(number, frozenset()).union(*(v.faults for v in inputs))
        if result:
            self.scopes[-1][result] = Value(LIMIT - 1, faults=carried)
        self.headers.append(number)
        self.scopes.append({})
        loop = re.match(r" (?:unsigned )?(%[\w.]+) = (%[\w.]+) to (%[\w.]+) step (%[\w.]+)", rest)
        if operation == "scf.for" and loop:
            index, start, stop, _ = loop.groups()
            ends = [self.look_up(start), self.look_up(stop)]
            faults = ends[0].faults | ends[1].faults
            self.scopes[-1][index] = Value(max(v.bound for v in ends), faults=faults)
            for name, initial in re.findall(r"(%[\w.]+) = (%[\w.]+)[,)]", rest):
                faults = carried | self.look_up(initial).faults
                self.scopes[-1][name] = Value(LIMIT - 1, faults=faults)

    def evaluate(self, number: int, line: str, operation: str, rest: str) -> Value:
        inputs = [self.look_up(name) for name in re.findall(r"%[\w.]+", rest)]
        faults = frozenset[str]().union(*(value.faults for value in inputs))
        if operation in ("tt.addptr", "tt.make_tensor_descriptor") or "descriptor_" in operation:
            self.offsets += 1
            self.faults |= faults
            return Value()  # what is wrong with a pointer has been said here
        if operation == "scf.yield":
            # Through a branch to the loop around it.
            for header in self.headers:
                self.yielded[header] = self.yielded.get(header, frozenset()) | faults
            return Value()

        wide = re.search(r"i64>?\s*$", rest.split(" : ")[-1]) is not None
        value = dataclasses.replace(self.arithmetic(operation, rest, inputs), faults=faults)
        why = "" if wide else self.objection(operation, value, inputs)
        if why:
            place = f"{self.place(line)}: 32-bit {operation.removeprefix('arith.')} {why}"
            value = dataclasses.replace(value, faults=faults | {place})
        return value

    def objection(self, operation: str, value: Value, inputs: list[Value]) -> str:
        """Say which of the rules at the top a 32-bit operation breaks."""
        if operation in ("arith.muli", "arith.shli"):
            if any(operand.argument for operand in inputs):
                return "of an argument"
            if not any(operand.constant for operand in inputs):
                return "of two run-time values"
        elif operation != "arith.trunci":
            return ""
        return f"up to {value.bound:,}" if value.bound >= LIMIT else ""

    def arithmetic(self, operation: str, rest: str, inputs: list[Value]) -> Value:
        """Bound an operation's result by what goes into it."""
        bounds = [value.bound for value in inputs]
        known = bool(inputs) and all(value.constant for value in inputs)
        if operation == "arith.constant":
            number = re.match(r" (?:dense<)?(-?\d+)>? :", rest)
            return Value(abs(int(number[1])) if number else 1, constant=True)
        if operation == "tt.make_range":
            end = re.search(r"end = (\d+)", rest)
            assert end is not None
            return Value(int(end[1]) - 1, constant=True)
        if operation in ("tt.get_program_id", "tt.get_num_programs"):
            programs = self.grid["xyz".index(rest.split()[0])]
            return Value(programs - (operation == "tt.get_program_id"))
        if operation in SAME_VALUE:
            return dataclasses.replace(inputs[0], constant=known)
        if operation == "arith.cmpi":
            return Value(1)
        if operation in ("arith.addi", "arith.subi"):
            return Value(sum(bounds), constant=known)
        if operation == "arith.muli":
            return Value(math.prod(bounds) if 0 not in bounds else 0, constant=known)
        if operation == "arith.shli":
            return Value(bounds[0] * 2.0 ** bounds[1], constant=known)
        if operation in ("arith.divsi", "arith.divui"):
            by = max(bounds[1], 1) if inputs[1].constant else 1
            return Value(bounds[0] // by if bounds[0] < math.inf else math.inf, constant=known)
        if operation in ("arith.remsi", "arith.remui"):
            return Value(min(bounds), constant=known)
        if operation in ("arith.minsi", "arith.maxsi", "arith.minui", "arith.maxui"):
            return Value(max(bounds), constant=known)
        if operation == "arith.select":
            return Value(max(bounds[1:]), constant=known)
        if operation == "arith.trunci":
            return Value(bounds[0], constant=known)
        return Value(LIMIT - 1 if "i32" in rest.split(" : ")[-1] else math.inf)

    def place(self, line: str) -> str:
        """Find the line of source that a line of IR came from."""
        found = re.search(r"loc\((#loc\d*)\)\s*$", line)
        text = found[1] if found else ""
        for _ in range(8):
            if source := re.search(r'([\w.]+)":(\d+):\d+', text):
                return f"{source[1]}:{source[2]}"
            inner = re.search(r"#loc\d*", text)
            if inner is None:
                break
            text = self.places.get(inner[0], "")
        return "(unknown line)"
