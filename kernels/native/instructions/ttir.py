"""Triton's IR, read from its text: the Python bindings show neither types nor all attributes.

The text has one operation a line; its regions follow in braces. The operands are the `%names`
before the colon and the types stand behind it. Other attributes are looked up in the line by name
when they are wanted, so that a new operation or attribute needs no new grammar.
"""

import dataclasses
import functools
import math
import re
from pathlib import Path

KERNELS = Path(__file__).parents[2]  # links are not resolved, as in what Python says of its code
BITS = {
    "i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64, "index": 64, "ptr": 64,
    "f16": 16, "bf16": 16, "f32": 32, "f64": 64,
    "f8E5M2": 8, "f8E4M3FN": 8, "f8E4M3FNUZ": 8, "f8E5M2FNUZ": 8,
}  # fmt: skip


class Unsupported(NotImplementedError):
    """An operation that this backend lacks, named with its line."""


@dataclasses.dataclass(frozen=True)
class Type:
    """A scalar, if `shape` is None, or a tile. `pointee` is what a pointer points to."""

    element: str
    shape: tuple[int, ...] | None = None
    pointee: str = ""

    @property
    def is_float(self) -> bool:
        """Whether elements are floating-point numbers."""
        return self.element[0] in "fb"

    @property
    def is_pointer(self) -> bool:
        """Whether elements are addresses."""
        return self.element == "ptr"

    @property
    def size(self) -> int:
        """How many elements there are."""
        return math.prod(self.shape or ())


@dataclasses.dataclass(eq=False)
class Value:
    """A value that is assigned once. `op` is None for arguments of functions and regions."""

    name: str
    type: Type
    op: "Op | None" = None
    block: "Block | None" = None
    index: int = 0
    users: list["Op"] = dataclasses.field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The tile's shape, None for a scalar."""
        return self.type.shape

    @property
    def element(self) -> str:
        """The type of its elements."""
        return self.type.element


@dataclasses.dataclass(eq=False)
class Op:
    """One operation. `text` is its line after the name, with the ends of its regions."""

    name: str
    operands: list[Value]
    results: list[Value]
    text: str
    block: "Block"
    position: int
    where: str = ""
    regions: list["Block"] = dataclasses.field(default_factory=list)

    def integer(self, name: str, default: int | None = None) -> int:
        """Return an attribute that is an integer."""
        found = re.search(rf"\b{name} = (-?\d+)", self.text)
        if found is None and default is None:
            raise self.unsupported(f"attribute {name} is missing")
        return int(found[1]) if found else default

    def word(self, name: str, default: str = "") -> str:
        """Return an attribute that is a word."""
        found = re.search(rf'\b{name} = "?(\w+)', self.text)
        return found[1] if found else default

    def integers(self, name: str) -> tuple[int, ...]:
        """Return an attribute that is a list of integers."""
        found = re.search(rf"\b{name} = array<i\d+: ([^>]*)>", self.text)
        if found is None:
            raise self.unsupported(f"attribute {name} is missing")
        return tuple(int(n) for n in found[1].split(","))

    @property
    def predicate(self) -> str:
        """The first word: of a comparison, or an atomic operation."""
        return self.text.split(",")[0].strip()

    def unsupported(self, why: str = "") -> Unsupported:
        """Make the error that names this operation and its line."""
        return Unsupported(
            f"{self.where or 'unknown line'}: the native CPU backend has no {self.name}"
            f"{f' ({why})' if why else ''}: {self.text.strip()[:120]} "
            "(TRITON_INTERPRET=1 runs it in the interpreter)"
        )


@dataclasses.dataclass(eq=False)
class Block:
    """A sequence of operations: the body of the function or of a region."""

    arguments: list[Value] = dataclasses.field(default_factory=list)
    ops: list[Op] = dataclasses.field(default_factory=list)
    parent: Op | None = None

    @property
    def yielded(self) -> list[Value]:
        """What the region's last operation hands on."""
        last = self.ops[-1] if self.ops else None
        return last.operands if last is not None and last.name == "scf.yield" else []


_TYPE = re.compile(
    r"tensor<(?P<dims>(?:\d+x)*)(?P<element>!tt\.ptr<[^<>]+>|\w+)[^<>]*>"
    r"|!tt\.ptr<(?P<pointee>[^<>,]+)[^<>]*>"
    r"|\b(?P<scalar>index|i\d+|f\d+\w*|bf16)\b"
)
_NAME = re.compile(r"%[\w.$-]+(?:#\d+)?")
_OP = re.compile(r'(?:(?P<results>%.*?) = )?"?(?P<name>[a-z_]+\.[\w.]+)"?(?P<rest>.*)', re.S)
_SYMBOL = r'@(?:"[^"]*"|[\w.$-]+)'  # in quotes if there are brackets in it
_CALL = re.compile(rf"(?:(?P<results>%.*?) = )?tt\.call (?P<name>{_SYMBOL})\((?P<given>[^)]*)\)")
_LOCATION = re.compile(r"^(#loc\d*) = loc\((.*)\)$")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_WITH_WORDS = ("tt.print", "tt.assert")  # a user's words, which may look like anything
_JUMP = re.compile(r"(\^\w+)(?:\(([^)]*)\))?")
_ENDS = ("tt.return", "tt.map_elementwise.return")  # of a function; elsewhere blocks are not parted
_WITH_REGIONS = (
    "scf.for", "scf.if", "scf.while", "tt.reduce", "tt.scan", "tt.map_elementwise",
)  # fmt: skip


def types_in(text: str) -> list[Type]:
    """Return the types that a text names, in order."""
    return [_type(found) for found in _TYPE.finditer(text)]


def _type(found: re.Match[str]) -> Type:
    if found["pointee"]:
        return Type("ptr", None, found["pointee"])
    if found["scalar"]:
        return Type(found["scalar"])
    shape = tuple(int(d) for d in found["dims"].split("x") if d)
    if found["element"].startswith("!tt.ptr<"):
        return Type("ptr", shape, found["element"][8:-1].split(",")[0])
    return Type(found["element"], shape)


def parse(text: str) -> Block:
    """Parse a module with one kernel.

    Parameters
    ----------
    text : str
        The module, as MLIR prints it.

    Returns
    -------
    Block
        The kernel's body; its arguments are the kernel's.

    Raises
    ------
    Unsupported
        If a line is none of an operation that is known.
    """
    return _Parser(text).kernel()


class _Parser:
    """Reads the lines in order; a scope holds the names of each open region.

    Where a function returns early, its region is parted into blocks that jump forwards. Each path
    through them is read anew: a fork becomes an scf.if, and what both sides go on to stands in
    both. Calls that Triton has not inlined are read in their place, too.
    """

    def __init__(self, text: str) -> None:
        self.lines: list[tuple[str, str]] = []  # each without its locations, and the last of those
        self.locations: dict[str, str] = {}
        self.places: dict[str, str] = {}  # what `where` has resolved
        for line in text.splitlines():
            if found := _LOCATION.match(line):
                self.locations[found[1]] = found[2]
            elif line.strip():
                self.lines.append(_without_locations(line.strip()))
        self.at = 0
        self.scopes: list[dict[str, Value]] = [{}]
        self.n_names = 0
        self.closing: dict[int, int] = {}  # the line that opens a region to the one that closes it
        self.labels: dict[int, dict[str, int]] = {}  # the line that opens a region to its blocks
        self.functions: dict[str, int] = {}
        self.survey()

    def survey(self) -> None:
        """Find where regions and their blocks begin and end."""
        opened: list[int] = []
        for i, (line, _) in enumerate(self.lines):
            if line.startswith("}"):
                self.closing[opened.pop()] = i
            if line.startswith("^"):
                self.labels[opened[-1]][line[: re.match(r"\^\w+", line).end()]] = i
            if line.startswith("tt.func"):
                self.functions[re.search(_SYMBOL, line)[0]] = i
            if line.endswith("{"):
                opened.append(i)
                self.labels[i] = {}

    def kernel(self) -> Block:
        kernels = [i for i in self.functions.values() if "tt.func public" in self.lines[i][0]]
        if len(kernels) != 1:
            raise Unsupported(f"{len(kernels)} kernels in a module")
        (self.at,) = kernels
        line, _ = self.next_line()
        body = Block()
        self.declare(body, line[re.search(_SYMBOL, line).end() :])
        self.region(body)
        return body

    def next_line(self) -> tuple[str, str]:
        self.at += 1
        return self.lines[self.at - 1]

    # -- names ---------------------------------------------------------------------------------

    def look_up(self, name: str) -> Value:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        raise Unsupported(f"TTIR names {name} before it is defined")

    def define(self, value: Value) -> Value:
        self.scopes[-1][value.name] = value
        return value

    def declare(self, block: Block, text: str) -> None:
        """Define the arguments `%name: type` that a text lists."""
        for found in re.finditer(r"(%[\w.$-]+): ([^%]+)", text):
            kind = types_in(found[2])[0]
            block.arguments.append(Value(found[1], kind, None, block, len(block.arguments)))

    def where(self, location: str) -> str:
        """Resolve a location to "file:line", that of the innermost call."""
        if location not in self.places:
            self.places[location] = self.resolved(location)
        return self.places[location]

    def resolved(self, location: str) -> str:
        for _ in range(20):
            if found := re.search(r'"([^"]+)":(\d+)', location):
                return f"{in_this_checkout(found[1])}:{found[2]}"
            if not (found := re.search(r"#loc\d*", location)):
                return ""
            location = self.locations.get(found[0], "")
        return ""

    # -- structure -----------------------------------------------------------------------------

    def region(self, block: Block, op: Op | None = None) -> str:
        """Parse operations up to the closing brace; return that line, which locates `op`."""
        opened = self.at - 1
        self.scopes.append({})
        for value in block.arguments:
            self.define(value)
        if any(first != self.at for first in self.labels[opened].values()):
            self.path(block, self.labels[opened])
            self.at = self.closing[opened]
        while True:
            line, location = self.next_line()
            if line.startswith("}"):
                self.scopes.pop()
                if op is not None:
                    op.where = self.where(location)
                return line
            if line.startswith("^"):
                self.declare(block, line)
                for value in block.arguments:
                    self.define(value)
            else:
                self.add(line, location, block)

    def add(self, line: str, location: str, block: Block) -> Op | None:
        """Parse an operation and add it to a block: for a call, those of the function."""
        if found := _CALL.match(line):
            self.inline(found, location, block)
            return None
        op = self.operation(line, location, block)
        block.ops.append(op)
        return op

    def inline(self, call: re.Match[str], location: str, block: Block) -> None:
        """Read a function where it is called; what it returns takes its results' names."""
        given = [self.look_up(n) for n in _NAME.findall(call["given"])]
        before, self.scopes = (self.at, self.scopes), [{}]
        opened = self.functions[call["name"]]
        declared = Block()
        line = self.lines[opened][0]
        self.declare(declared, line[re.search(_SYMBOL, line).end() :])
        self.scopes[0] = {v.name: g for v, g in zip(declared.arguments, given, strict=True)}
        self.at = opened + 1
        end = self.path(block, self.labels[opened])
        block.ops.pop()
        self.at, self.scopes = before
        for value in end.operands:
            value.users.remove(end)
        names = _labels(call["results"]) if call["results"] else []
        self.scopes[-1].update(zip(names, end.operands, strict=True))

    def path(self, block: Block, labels: dict[str, int]) -> Op:
        """Follow the blocks of a region to the end of the function; return that operation."""
        while True:
            line, location = self.next_line()
            if line.startswith("cf.br"):
                self.jump(_JUMP.search(line), labels)
            elif line.startswith("cf.cond_br"):
                return self.fork(line, location, block, labels)
            elif line.startswith("^"):  # a region's first block: others are jumped to
                self.declare(block, line)
                for value in block.arguments:
                    self.define(value)
            else:
                op = self.add(line, location, block)
                if op is not None and op.name in _ENDS:
                    return op

    def jump(self, target: re.Match[str], labels: dict[str, int]) -> None:
        """Go on behind a label, with the values that its block is given."""
        self.at = labels[target[1]]
        line, _ = self.next_line()
        given = [self.look_up(n) for n in _NAME.findall((target[2] or "").partition(" : ")[0])]
        names = re.findall(r"(%[\w.$-]+): ", line)
        self.scopes[-1].update(zip(names, given, strict=True))

    def fork(self, line: str, location: str, block: Block, labels: dict[str, int]) -> Op:
        """Make an scf.if of a jump to one of two blocks; it yields what the function returns."""
        condition = self.look_up(_NAME.search(line)[0])
        op = Op("scf.if", [condition], [], line, block, len(block.ops), self.where(location))
        condition.users.append(op)
        block.ops.append(op)
        for target in _JUMP.finditer(line):
            region = Block(parent=op)
            op.regions.append(region)
            self.scopes.append({})
            self.jump(target, labels)
            end = self.path(region, labels)
            name, end.name = end.name, "scf.yield"
            self.scopes.pop()
        for i, value in enumerate(end.operands):
            self.n_names += 1
            op.results.append(Value(f"%returned{self.n_names}", value.type, op, block, i))
        last = Op(name, list(op.results), [], "", block, len(block.ops), op.where)
        for value in op.results:
            value.users.append(last)
        block.ops.append(last)
        return last

    def operation(self, line: str, location: str, block: Block) -> Op:
        found = _OP.fullmatch(line)
        if not found:
            raise Unsupported(f"{self.where(location)}: TTIR line {line!r}")
        name, rest = found["name"], found["rest"]
        op = Op(name, [], [], rest, block, len(block.ops), self.where(location))
        if name in _WITH_REGIONS and rest.endswith("{"):
            types = self.for_loop(op) if name == "scf.for" else self.with_regions(op)
        else:
            types = self.plain(op, bool(found["results"]))
        for operand in op.operands:
            operand.users.append(op)
        if found["results"]:
            self.name_results(op, found["results"], types)
        return op

    def plain(self, op: Op, has_results: bool) -> list[Type]:
        text = _QUOTED.sub('""', op.text) if op.name in _WITH_WORDS else op.text
        head, _, tail = text.rpartition(" : ")
        if op.name == "arith.constant":
            head, tail = "", tail or op.text
        op.operands = [self.look_up(n) for n in _NAME.findall(head or text)]
        return _result_types(op, tail) if has_results else []

    def name_results(self, op: Op, names: str, types: list[Type]) -> None:
        labels = _labels(names)
        if op.name == "tt.split":
            types = types * 2
        for i, (label, kind) in enumerate(zip(labels, types, strict=True)):
            op.results.append(self.define(Value(label, kind, op, op.block, i)))

    def with_regions(self, op: Op) -> list[Type]:
        """Parse an scf.if or scf.while, or a reduction: its operands, then its regions."""
        header = op.text
        before_types = header.split(" -> ")[0]
        op.operands = (
            [self.look_up(n) for n in _NAME.findall(before_types)]
            if (op.name != "scf.while")
            else []
        )
        types = types_in(header.rsplit(" -> ", 1)[1]) if " -> " in header else []
        carried = re.findall(r"(%[^\s,()]+) = (%[^\s,()]+)", header)
        end = "{"
        while end.endswith("{"):
            body = Block(parent=op)
            if op.name == "scf.while" and not op.regions:
                op.operands = [self.look_up(initial) for _, initial in carried]
                kinds = types_in(before_types.rsplit(" : ", 1)[1]) if carried else []
                for i, ((label, _), kind) in enumerate(zip(carried, kinds, strict=True)):
                    body.arguments.append(Value(label, kind, None, body, i))
            op.regions.append(body)
            end = self.region(body, op)
            op.text += " " + end
        if end.startswith("})"):  # a reduction names its types behind its region
            types = types_in(end.rsplit(" -> ", 1)[1])
        return types

    def for_loop(self, op: Op) -> list[Type]:
        """Parse a loop. Operands: low, high, step, initial values. Arguments: index, carried."""
        header = op.text
        pattern = r"\s*(?:unsigned )?(%\S+) = (%\S+) to (%\S+) step (%\S+)(.*)\{$"
        found = re.match(pattern, header)
        if found is None:
            raise op.unsupported()
        index, *bounds, tail = found.groups()
        op.operands = [self.look_up(n) for n in bounds]
        body = Block(parent=op)
        kinds = types_in(tail.rsplit(" : ", 1)[1]) if " : " in tail.split("->")[-1] else []
        body.arguments.append(Value(index, kinds[0] if kinds else Type("i32"), None, body, 0))
        types: list[Type] = []
        if carried := re.search(r"iter_args\((.*?)\) -> \(", tail):
            types = types_in(tail.split(" -> ", 1)[1].rsplit(") ", 1)[0])
            pairs = re.findall(r"(%\S+) = (%[^\s,]+)", carried[1])
            for i, (name, initial) in enumerate(pairs):
                op.operands.append(self.look_up(initial))
                body.arguments.append(Value(name, types[i], None, body, i + 1))
        op.regions.append(body)
        op.text += " " + self.region(body, op)
        return types


def _labels(names: str) -> list[str]:
    """Return each name of an operation's results: `%a:2` is `%a#0` and `%a#1`."""
    labels: list[str] = []
    for label in names.split(", "):
        base, _, count = label.partition(":")
        labels += [f"{base}#{i}" for i in range(int(count))] if count else [base]
    return labels


@functools.cache
def in_this_checkout(file: str) -> str:
    """Name a file of kernels/ as it is named here.

    Triton's cache holds what two checkouts compile as one, if source and line are the same, and it
    names the files of whichever came first.

    Parameters
    ----------
    file : str

    Returns
    -------
    str
        Files elsewhere, or of a name that this checkout lacks, as they are.
    """
    _, folder, inner = file.rpartition("/kernels/")
    here = KERNELS / inner
    return str(here) if folder and here.is_file() else file


def _without_locations(line: str) -> tuple[str, str]:
    """Return a line without its ` loc(...)`, and the last of those."""
    head, _, tail = line.partition(" loc(")
    if tail.find(")") == len(tail) - 1:  # most lines have one, with a name, at their end
        return head, tail[:-1]
    last = ""
    while (start := line.find(" loc(")) >= 0:
        depth, end = 0, start + 4
        while True:
            depth += {"(": 1, ")": -1}.get(line[end], 0)
            end += 1
            if depth == 0:
                break
        last = line[start + 5 : end - 1]
        line = line[:start] + line[end:]
    return line, last


def _result_types(op: Op, tail: str) -> list[Type]:
    """Find the types of an operation's results among those that its line names."""
    for arrow in (" -> ", " to "):
        if arrow in tail:
            return types_in(tail.rsplit(arrow, 1)[1])
    types = types_in(tail)
    if op.name == "arith.constant" and not types:
        return [Type("i1")]  # true and false are written without a type
    first = types[0]
    if op.name == "tt.load":
        return [Type(first.pointee, first.shape)]
    if op.name in ("arith.cmpi", "arith.cmpf"):
        return [Type("i1", first.shape)]
    return [first if op.name == "tt.addptr" else types[-1]]
