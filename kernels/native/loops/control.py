"""Loops and branches, and what they carry.

A tile that a loop carries has two buffers that change places with each turn: the turn reads one and
writes the other, so nothing is copied and nothing is overwritten too early. A sum has one, in
place. Pointers and integers that grow by the same amount in each turn stay what they were, plus one
scalar.
"""

import dataclasses

from ..instructions.arithmetic import ELEMENTWISE, pointee_bytes
from ..instructions.forms import FIRST, Index, Uniform
from ..instructions.ttir import Block, Op, Value
from ..instructions.writer import Scope, llvm_type
from .choices import Choices
from .evaluation import VIRTUAL, Buffer
from .nests import COSTLY
from .roots import Copy, Keep, Load, Store

_NOTHING = {
    "tt.return", "scf.yield", "scf.condition", "llvm.intr.assume", "gpu.barrier", "ttg.barrier",
    "tt.map_elementwise.return",
}  # fmt: skip
_REARRANGED = {"tt.reshape", "tt.cat", "tt.join", "tt.split", "tt.gather", "tt.histogram"}


@dataclasses.dataclass
class Carried:
    """What a loop carries: its name inside, how it begins, what follows, and the result."""

    argument: Value
    start: Value
    following: Value
    result: Value


class Control(Choices):
    """Executes operations in their order."""

    waits = False  # whether programs wait for one another

    # -- operations ----------------------------------------------------------------------------

    def execute_block(self, block: Block) -> None:
        """Write a block, and the roots that wait at its end."""
        with self.row_by_row(block):
            self.execute_operations(block)
            self.flush()
        if block.parent is None:
            self.report_what_was_noted()

    def execute_operations(self, block: Block) -> None:
        """Write a block; the last roots still wait."""
        for op in block.ops:
            self.execute(op)

    def execute(self, op: Op) -> None:
        """Write one operation, or let it wait, or leave it to those who need it."""
        name = op.name
        is_scalar = all(v.shape is None for v in (*op.operands, *op.results))
        if name in _NOTHING:
            return
        if name == "scf.for":
            self.for_loop(op)
        elif name == "scf.if":
            self.branch_of(op)
        elif name == "scf.while":
            self.while_loop(op)
        elif name == "tt.load" and not is_scalar:
            self.enqueue(Load([op.results[0]], op))
            return
        elif name == "tt.store" and not is_scalar:
            self.enqueue(Store(list(op.operands), op))
            return
        elif name == "tt.reduce":
            self.execute_reduction(op)
            return
        elif name in VIRTUAL or name == "tt.store":
            if name == "arith.select":
                self.execute_what_was_put_off(op)
            if is_scalar:
                self.execute_scalar(op)
            return
        elif name == "tt.dot":
            self.dot(op)
        elif name == "tt.scan":
            self.scan(op)
        elif name in _REARRANGED:
            self.rearrange(op)
        elif name in ("tt.atomic_rmw", "tt.atomic_cas"):
            self.execute_atomic(op)
        elif name == "tt.unsplat":
            buffer = self.materialise(op.operands[0])
            self.out = self.scopes[self.control]
            self.scalars[op.results[0]] = self.read(buffer, (FIRST,) * len(buffer.shape)).v
        elif name == "tt.assert":
            self.assertion(op)
        elif name == "tt.print":
            self.print_values(op)
        elif name == "tt.map_elementwise":
            self.map_elementwise(op)
        elif name == "tt.get_program_id":
            self.scalars[op.results[0]] = "%p" + op.text.strip()[0]
        elif name == "tt.get_num_programs":
            self.scalars[op.results[0]] = "%g" + op.text.strip()[0]
        else:
            raise op.unsupported()
        self.done.add(op)

    def execute_scalar(self, op: Op) -> None:
        """Write an operation on scalars where it stands."""
        if self.depends_on_pending(op.operands):
            self.flush()
        if op.name == "tt.store" or (
            op.name == "tt.load" and any(isinstance(root, Store) for root in self.pending)
        ):
            self.flush()
        self.out = self.scopes[self.control]
        if op.name == "arith.constant":
            self.scalars[op.results[0]] = self.constant(op)
            return
        forms = [Uniform(self.scalars[v]) for v in op.operands]
        if op.name == "tt.store":
            self.store(op, forms[0], forms[1], forms[2] if len(forms) > 2 else None, None)
        elif op.name == "tt.load":
            mask, other = (forms[i] if len(forms) > i else None for i in (1, 2))
            self.scalars[op.results[0]] = self.load(op, forms[0], mask, other, None).v
        else:
            self.check_range(op, forms, None)
            self.scalars[op.results[0]] = self.elementwise(op, forms).v
        self.done.add(op)

    # -- loops ---------------------------------------------------------------------------------

    def before_region(self, op: Op) -> None:
        """Compute, before a loop or branch, the costly values that its body needs from outside."""
        self.flush()
        inner: set[Block] = set()
        captured: list[Value] = []

        def collect(block: Block) -> None:
            inner.add(block)
            for o in block.ops:
                for region in o.regions:
                    collect(region)
                captured.extend(o.operands)

        for region in op.regions:
            collect(region)
        seen: set[Value] = set()

        def walk(value: Value) -> None:
            if value in seen or value.shape is None or value in self.buffers:
                return
            seen.add(value)
            if value in self.bumped:
                walk(self.bumped[value][0])
            elif self.cost(value) >= COSTLY:
                self.materialise(value)
            elif value.op is not None:
                for operand in value.op.operands:
                    walk(operand)

        for value in captured:
            if value.block not in inner:
                walk(value)

    def for_loop(self, op: Op) -> None:
        """Write a loop."""
        self.before_region(op)
        low, high, step = (self.scalars[v] for v in op.operands[:3])
        body = op.regions[0]
        index, *arguments = body.arguments
        every = [
            Carried(*four)
            for four in zip(arguments, op.operands[3:], body.yielded, op.results, strict=True)
        ]
        scalars = [c for c in every if c.argument.shape is None]
        tiles = [c for c in every if c.argument.shape is not None]
        fixed = [c for c in tiles if c.following is c.argument]
        bumped = {c.argument: bump for c in tiles if (bump := bump_of(c, body)) is not None}
        swapped = [c for c in tiles if c not in fixed and c.argument not in bumped]

        for c in fixed:
            self.buffers[c.argument] = self.buffers[c.result] = self.materialise(c.start)
        for c in tiles:
            if c.argument in bumped and self.cost(c.start) >= COSTLY:
                self.materialise(c.start)
        pairs = {c.argument: self.pair_of_buffers(c, body) for c in swapped}
        for c in swapped:
            self.enqueue(
                Copy(c.start, Buffer(pairs[c.argument][0], c.argument.element, c.argument.shape))
            )
        self.flush()

        outer = self.scopes[self.control]
        scope, head, end = Scope(self.fresh("body")), self.fresh("head"), self.fresh("end")
        control_before, buffers_before, homes_before = (
            self.control,
            dict(self.buffers),
            dict(self.homes),
        )
        self.scopes.append(scope)
        self.control, self.out = len(self.scopes) - 1, scope
        phis: list[tuple[str, str, str, str]] = []  # name, type, first, then

        counter = self.scalars[index] = "%" + self.fresh("turn")
        for c in scalars:
            self.scalars[c.argument] = "%" + self.fresh("carried")
        offsets = {}
        for c in tiles:
            if c.argument in bumped:
                offsets[c.argument] = "%" + self.fresh("offset")
                self.bumped[c.argument] = (c.start, offsets[c.argument])
        now, then = {}, {}
        for c in swapped:
            first, second = pairs[c.argument]
            now[c.argument], then[c.argument] = (
                ("%" + self.fresh("now"), "%" + self.fresh("then"))
                if first != second
                else (first, second)
            )
            element, shape = c.argument.element, c.argument.shape
            self.buffers[c.argument] = Buffer(now[c.argument], element, shape)
            if c.following.block is body and c.following not in self.homes:
                self.homes[c.following] = Buffer(then[c.argument], element, shape)
        with self.row_by_row(body):
            self.execute_operations(body)
            for c in swapped:
                home = Buffer(then[c.argument], c.argument.element, c.argument.shape)
                held, wanted = self.buffers.get(c.following), self.homes.get(c.following)
                if held is None and wanted is not None and wanted.pointer == home.pointer:
                    self.enqueue(Keep([c.following]))
                elif held is None or held.pointer != home.pointer:
                    self.homes.pop(c.following, None)
                    self.enqueue(Copy(c.following, home))
            self.flush()
        self.out = scope
        if body.ops and body.ops[-1].name == "scf.yield":
            self.done.add(body.ops[-1])

        kind = llvm_type(index.element)
        phis.append((counter, kind, low, self.set(f"add {kind} {counter}, {step}")))
        for c in scalars:
            first, following = self.scalars[c.start], self.scalars[c.following]
            phis.append((self.scalars[c.argument], llvm_type(c.argument.element), first, following))
            self.scalars[c.result] = self.scalars[c.argument]
        for argument, offset in offsets.items():
            grown = self.grown(argument, offset, bumped[argument])
            phis.append((offset, llvm_type(argument.element), "0", grown))
        for argument, (first, second) in pairs.items():
            if first == second:
                continue
            phis.append((now[argument], "ptr", first, then[argument]))
            phis.append((then[argument], "ptr", second, now[argument]))
        self.scopes.pop()
        self.control, self.buffers, self.homes = control_before, buffers_before, homes_before
        comparison = "ult" if op.text.lstrip().startswith("unsigned") else "slt"
        outer.lines += [
            f"  br label %{head}",
            f"{head}:",
            *(
                f"  {name} = phi {t} [ {first}, %{outer.label} ], [ {then_}, %{scope.label} ]"
                for name, t, first, then_ in phis
            ),
            f"  {counter}.more = icmp {comparison} {kind} {counter}, {high}",
            f"  br i1 {counter}.more, label %{scope.first}, label %{end}",
            f"{scope.first}:",
            *scope.lines,
            f"  br label %{head}",
            f"{end}:",
        ]
        outer.label, self.out = end, outer
        for c in tiles:
            if c.argument in offsets:
                self.bumped[c.result] = (c.start, offsets[c.argument])
        for c in swapped:
            self.buffers[c.result] = Buffer(now[c.argument], c.argument.element, c.argument.shape)

    def pair_of_buffers(self, carried: Carried, body: Block) -> tuple[str, str]:
        """Reserve memory for what a loop carries: this turn's, and the next one's or the same."""
        shape, element = carried.argument.shape, carried.argument.element
        now = self.arena(shape, element)
        return now, now if grows_in_place(carried, body) else self.arena(shape, element)

    def grown(self, argument: Value, offset: str, step: Value) -> str:
        """Add a turn's growth to an offset: in bytes, for pointers."""
        if step.shape is not None:
            amount = self.ev(step, (FIRST,) * len(step.shape)).v
        else:
            amount = self.scalars[step]
        self.out = self.scopes[self.control]
        if argument.type.is_pointer:
            amount = self.resized(amount, step.element, "i64")
            amount = self.integer("mul", "i64", amount, str(pointee_bytes(argument.type)))
        return self.integer("add", argument.element, offset, amount)

    def while_loop(self, op: Op) -> None:
        """Write a loop that ends when a condition fails.

        What the condition hands on is in buffers before it is tested: the body reads it there, and
        so does whatever stands behind the loop.
        """
        before, after = op.regions
        self.before_region(op)
        tiles = [v for v in before.arguments if v.shape is not None]
        pairs = {v: (self.new_buffer(v), self.new_buffer(v)) for v in tiles}
        for start, value in zip(op.operands, before.arguments, strict=True):
            if value in pairs:
                self.enqueue(Copy(start, pairs[value][0]))
        self.flush()
        outer, end = self.scopes[self.control], self.fresh("end")
        phis = [
            (value, self.scalars[start])
            for start, value in zip(op.operands, before.arguments, strict=True)
            if value not in pairs
        ]
        control_before, buffers_before = self.control, dict(self.buffers)
        for value, _ in phis:
            self.scalars[value] = "%" + self.fresh("carried")
        then = {}
        for value in tiles:
            now, then[value] = (
                Buffer("%" + self.fresh(name), value.element, value.shape)
                for name in ("now", "then")
            )
            self.buffers[value] = now

        test = self.region_scope("test")
        self.execute_block(before)
        condition, *forwarded = before.ops[-1].operands
        handed_on = [self.scalars[v] if v.shape is None else self.materialise(v) for v in forwarded]
        self.done.add(before.ops[-1])
        body = self.region_scope("body")
        if _reads_memory(before):  # what another program writes: let that one go on
            self.waits = True
            self.call("i32", "sched_yield")
        self.hand_on(after.arguments, handed_on)
        self.execute_block(after)
        for value, following in zip(before.arguments, after.yielded, strict=True):
            if value in pairs:
                self.enqueue(Copy(following, then[value]))
        self.flush()
        self.done.add(after.ops[-1])
        next_one = dict(zip(before.arguments, after.yielded, strict=True))
        joined = [
            (self.scalars[v], llvm_type(v.element), first, self.scalars[next_one[v]])
            for v, first in phis
        ]
        for value in tiles:
            a, b = self.buffers[value].pointer, then[value].pointer
            first, second = (buffer.pointer for buffer in pairs[value])
            joined += [(a, "ptr", first, b), (b, "ptr", second, a)]
        del self.scopes[-2:]
        self.control, self.buffers = control_before, buffers_before
        outer.lines += [f"  br label %{test.first}", f"{test.first}:"]
        outer.lines += [
            f"  {name} = phi {kind} [ {a}, %{outer.label} ], [ {b}, %{body.label} ]"
            for name, kind, a, b in joined
        ]
        outer.lines += [
            *test.lines,
            f"  br i1 {self.scalars[condition]}, label %{body.first}, label %{end}",
            f"{body.first}:",
            *body.lines,
            f"  br label %{test.first}",
            f"{end}:",
        ]
        outer.label, self.out = end, outer
        self.hand_on(op.results, handed_on)

    def hand_on(self, values: list[Value], held: list[str | Buffer]) -> None:
        """Let values be what is held already: scalars, or tiles in buffers."""
        for value, what in zip(values, held, strict=True):
            if isinstance(what, Buffer):
                self.buffers[value] = what
            else:
                self.scalars[value] = what

    # -- a function of scalars, for each element ------------------------------------------------

    def map_elementwise(self, op: Op) -> None:
        """Write tl.map_elementwise: its function, branches and all, inside a loop over elements."""
        sources = [self.materialise(v) for v in op.operands]
        results = [self.new_buffer(v) for v in op.results]
        region, pack = op.regions[0], op.integer("pack", 1)
        flat = (op.results[0].type.size,)
        self.flush()
        self.out = self.scopes[self.control]
        control_before = self.control
        turn = self.open_loop(flat[0], pack) if flat[0] > pack else "0"
        self.control = len(self.scopes) - 1
        places = [
            (Index(self.integer("add", "i64", turn, str(i)), self.control),) for i in range(pack)
        ]
        arguments = iter(region.arguments)
        for source in sources:
            whole = Buffer(source.pointer, source.element, flat)
            for place in places:
                self.scalars[next(arguments)] = self.read(whole, place).v
        self.execute_block(region)
        returned = iter(region.ops[-1].operands)
        self.out = self.scopes[-1]
        for result in results:
            whole = Buffer(result.pointer, result.element, flat)
            for place in places:
                self.write(whole, place, Uniform(self.scalars[next(returned)]))
        self.control = control_before
        if turn != "0":
            self.close_loop()
        self.buffers.update(zip(op.results, results, strict=True))

    # -- branches ------------------------------------------------------------------------------

    def branch_of(self, op: Op) -> None:
        """Write an if; tiles that it yields are copied into buffers from both sides."""
        self.before_region(op)
        condition = self.scalars[op.operands[0]]
        outer, end = self.scopes[self.control], self.fresh("end")
        targets = {
            v: Buffer(self.arena(v.shape, v.element), v.element, v.shape)
            for v in op.results if v.shape is not None
        }  # fmt: skip
        names = [self.fresh("then"), self.fresh("else")]
        lines: list[str] = []
        ends: list[tuple[str, list[str]]] = []  # label, scalars yielded
        for i, name in enumerate(names):
            scope = Scope(name)
            self.scopes.append(scope)
            control_before, buffers_before = self.control, dict(self.buffers)
            self.control, self.out = len(self.scopes) - 1, scope
            scalars = []
            if i < len(op.regions):
                region = op.regions[i]
                self.execute_block(region)
                for value, result in zip(region.yielded, op.results, strict=True):
                    if result in targets:
                        self.enqueue(Copy(value, targets[result]))
                    else:
                        scalars.append(self.scalars[value])
                self.flush()
                if region.yielded:
                    self.done.add(region.ops[-1])
            self.scopes.pop()
            self.control, self.buffers = control_before, buffers_before
            lines += [f"{name}:", *scope.lines, f"  br label %{end}"]
            ends.append((scope.label, scalars))
        outer.lines += [
            f"  br i1 {condition}, label %{names[0]}, label %{names[1]}", *lines, f"{end}:",
        ]  # fmt: skip
        outer.label, self.out = end, outer
        self.buffers |= targets
        (label_a, scalars_a), (label_b, scalars_b) = ends
        left = [v for v in op.results if v not in targets]
        for value, a, b in zip(left, scalars_a, scalars_b, strict=True):
            kind = llvm_type(value.element)
            self.scalars[value] = self.set(f"phi {kind} [ {a}, %{label_a} ], [ {b}, %{label_b} ]")


def _reads_memory(block: Block) -> bool:
    """Say whether a loop's condition may depend on what others write."""
    return any(
        op.name == "tt.load"
        or op.name.startswith("tt.atomic")
        or any(map(_reads_memory, op.regions))
        for op in block.ops
    )


def grows_in_place(carried: Carried, body: Block) -> bool:
    """Say whether a turn reads an element of a tile for the last time where it writes it anew.

    So it is with sums: nothing else reads the tile, nor its elements in another order.
    """
    value = carried.argument
    while value is not carried.following:
        if len(value.users) != 1:
            return False
        (user,) = value.users
        if user.block is not body or user.name not in ELEMENTWISE:
            return False
        (value,) = user.results
    return len(value.users) == 1


def bump_of(carried: Carried, body: Block) -> Value | None:
    """Return by how much a tile of pointers or integers grows evenly with each turn."""
    op = carried.following.op
    if op is None or op.name not in ("tt.addptr", "arith.addi") or op.block is not body:
        return None
    for a, b in ((0, 1), (1, 0)) if op.name == "arith.addi" else ((0, 1),):
        step = op.operands[b]
        if op.operands[a] is carried.argument and step.op is not None:
            if step.op.name == "tt.splat":
                return step.op.operands[0]
            if step.op.name == "arith.constant":
                return step
    return None
