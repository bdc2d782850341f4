"""Loads, stores and atomics of the tensors that a kernel was given.

Where all lanes are active and neighbours, a vector is read or written at once; the rest goes
through a helper that looks at each lane. A lane that is masked off touches nothing, and holds an
undefined number if the load has no `other`. With `checked`, an access beyond the tensor that its
pointer came from is reported and not made: one comparison of each end of a vector.
"""

from .arithmetic import Arithmetic
from .forms import FALSE, TRUE, Affine, Form, Mask, Uniform, Vector
from .ttir import BITS, Op, Value
from .writer import BYTES, literal, llvm_type, memory_type

ATOMIC = {"exch": "xchg"} | {
    name: name for name in ("and", "or", "xor", "add", "fadd", "max", "min", "umax", "umin")
}
# Report the first fault alone: its place in the list of sites, and the program's number.
COMPLAIN = """
define internal void @complain(ptr %report, i64 %site, i64 %program) noinline cold {
  %before = load i64, ptr %report
  %is_first = icmp eq i64 %before, 0
  br i1 %is_first, label %write, label %end
write:
  store i64 %site, ptr %report
  %second = getelementptr i64, ptr %report, i64 1
  store i64 %program, ptr %second
  br label %end
end:
  ret void
}
"""
# Masked accesses, out of line: LLVM writes them lane by lane where the processor has none.
HELPERS = {
    "load": """
define internal {V} @load.{T}.{w}(i64 %p, <{w} x i1> %mask, {V} %other) noinline {{
  %from = inttoptr i64 %p to ptr
  %x = call {V} @llvm.masked.load.{S}.p0(ptr %from, i32 {b}, <{w} x i1> %mask, {V} %other)
  ret {V} %x
}}
declare {V} @llvm.masked.load.{S}.p0(ptr, i32, <{w} x i1>, {V})
""",
    "store": """
define internal void @store.{T}.{w}(i64 %p, <{w} x i1> %mask, {V} %x) noinline {{
  %to = inttoptr i64 %p to ptr
  call void @llvm.masked.store.{S}.p0({V} %x, ptr %to, i32 {b}, <{w} x i1> %mask)
  ret void
}}
declare void @llvm.masked.store.{S}.p0({V}, ptr, i32, <{w} x i1>)
""",
    "gather": """
define internal {V} @gather.{T}.{w}(<{w} x i64> %p, <{w} x i1> %mask, {V} %other) noinline {{
  %from = inttoptr <{w} x i64> %p to <{w} x ptr>
  %x = call {V} @llvm.masked.gather.{S}.v{w}p0(
    <{w} x ptr> %from, i32 {b}, <{w} x i1> %mask, {V} %other)
  ret {V} %x
}}
declare {V} @llvm.masked.gather.{S}.v{w}p0(<{w} x ptr>, i32, <{w} x i1>, {V})
""",
    "scatter": """
define internal void @scatter.{T}.{w}(<{w} x i64> %p, <{w} x i1> %mask, {V} %x) noinline {{
  %to = inttoptr <{w} x i64> %p to <{w} x ptr>
  call void @llvm.masked.scatter.{S}.v{w}p0({V} %x, <{w} x ptr> %to, i32 {b}, <{w} x i1> %mask)
  ret void
}}
declare void @llvm.masked.scatter.{S}.v{w}p0({V}, <{w} x ptr>, i32, <{w} x i1>)
""",
}
SUFFIX = {"float": "f32", "double": "f64", "half": "f16"}


class Memory(Arithmetic):
    """Writes accesses. `argument_of` says which argument a pointer came from."""

    def __init__(self, *, checked: bool) -> None:
        super().__init__()
        self.checked = checked
        self.helpers: dict[str, str] = {}
        self.sites: list[tuple[str, str]] = []  # what is reported by its number: what, and where
        self.noted = ""  # a slot with the number of what is to be reported at a program's end

    def argument_of(self, pointer: Value) -> int | None:
        """Return the number of the argument that a pointer came from, if that is known."""
        raise NotImplementedError

    def helper(self, kind: str, element: str, width: int) -> str:
        """Return the name of an out-of-line access."""
        scalar = memory_type(element)
        key = f"{kind}.{scalar}.{width}"
        self.helpers.setdefault(key, HELPERS[kind].format(
            V=f"<{width} x {scalar}>", T=scalar, S=f"v{width}{SUFFIX.get(scalar, scalar)}",
            w=width, b=BYTES[element],
        ))  # fmt: skip
        return f"@{key}"

    # -- faults --------------------------------------------------------------------------------

    def complain_if(self, wrong: str, what: str, where: str) -> None:
        """Report a fault if a condition holds; the program goes on."""
        if literal(wrong) == 0:
            return
        self.sites.append((what, where))
        bad, fine = self.fresh("bad"), self.fresh("fine")
        self.fork(wrong, bad, fine, likely=False)
        self.begin(bad)
        self.line(f"call void @complain(ptr %report, i64 {len(self.sites)}, i64 %program)")
        self.jump(fine)
        self.begin(fine)

    def note_if(self, wrong: str, what: str, where: str) -> None:
        """Remember a fault if a condition holds, without a branch; it is reported at the end."""
        if literal(wrong) == 0:
            return
        self.sites.append((what, where))
        if not self.noted:
            self.noted = self.alloca("i64")
        before = self.set(f"load i64, ptr {self.noted}")
        after = self.set(f"select i1 {wrong}, i64 {len(self.sites)}, i64 {before}")
        self.line(f"store i64 {after}, ptr {self.noted}")

    def report_what_was_noted(self) -> None:
        """Report, at a program's end, the last fault that it noted."""
        if not self.noted:
            return
        program = self.out = self.scopes[1]
        program.lines.insert(0, f"  store i64 0, ptr {self.noted}")
        site = self.set(f"load i64, ptr {self.noted}")
        bad, fine = self.fresh("bad"), self.fresh("fine")
        self.fork(self.set(f"icmp ne i64 {site}, 0"), bad, fine, likely=False)
        self.begin(bad)
        self.line(f"call void @complain(ptr %report, i64 {site}, i64 %program)")
        self.jump(fine)
        self.begin(fine)

    def inside(self, number: int, first: str, end: str) -> str:
        """Test whether the bytes from `first` to `end` lie in an argument's tensor."""
        above = self.set(f"icmp uge i64 {first}, %low{number}")
        below = self.set(f"icmp ule i64 {end}, %high{number}")
        return self.set(f"and i1 {above}, {below}")

    def kept_lanes(self, op: Op, what: str, pointers: str, mask: str, size: int, width: int) -> str:
        """Report active lanes that are out of bounds; return the mask without them."""
        number = self.argument_of(op.operands[0]) if self.checked else None
        if number is None:
            return mask
        lanes, masks = f"<{width} x i64>", f"<{width} x i1>"
        last = self.set(f"sub i64 %high{number}, {size}")
        above = self.set(
            f"icmp uge {lanes} {pointers}, {self.splat(f'%low{number}', 'i64', width)}"
        )
        below = self.set(f"icmp ule {lanes} {pointers}, {self.splat(last, 'i64', width)}")
        within = self.set(f"and {masks} {above}, {below}")
        # an empty tensor has no last element
        some = self.set(f"icmp ugt i64 %high{number}, %low{number}")
        within = self.set(f"and {masks} {within}, {self.splat(some, 'i1', width)}")
        kept = self.set(f"and {masks} {mask}, {within}")
        lost = self.set(f"xor {masks} {mask}, {kept}")
        self.complain_if(self.any_lane(lost, width), what, op.where)
        return kept

    def kept_scalar(self, op: Op, what: str, pointer: str, mask: str, size: int) -> str:
        """Do the same for one element."""
        number = self.argument_of(op.operands[0]) if self.checked else None
        if number is None:
            return mask
        within = self.inside(number, pointer, self.set(f"add i64 {pointer}, {size}"))
        kept = within if mask == "true" else self.set(f"and i1 {mask}, {within}")
        self.complain_if(self.set(f"xor i1 {mask}, {kept}"), what, op.where)
        return kept

    # -- masks ---------------------------------------------------------------------------------

    def any_lane(self, mask: str, width: int) -> str:
        """Test whether some lane is active."""
        bits = self.set(f"bitcast <{width} x i1> {mask} to i{width}")
        return self.set(f"icmp ne i{width} {bits}, 0")

    def any_active(self, mask: Form, width: int | None) -> str:
        """Do the same for a mask of any form."""
        if isinstance(mask, Uniform):
            return mask.v
        return self.any_lane(self.vector(mask, "i1", width), width)

    def all_lanes(self, mask: str, width: int) -> str:
        """Test whether all lanes are active."""
        bits = self.set(f"bitcast <{width} x i1> {mask} to i{width}")
        return self.set(f"icmp eq i{width} {bits}, -1")

    def whole(
        self, op: Op, pointer: Form, mask: Form, size: int, width: int, row: str
    ) -> tuple[str, str] | None:
        """Test at run time whether a vector can be accessed at once.

        `row` is an i1, if it was tested already that a whole loop's vectors are within bounds.
        Where they are not, each lane is looked at: in a tensor's last row, say, of a wider block.

        Returns
        -------
        condition : str
            An i1, "true" if that is known.
        address : str
            Of the first lane. None in all if it never can.
        """
        conditions = []
        if isinstance(pointer, Affine):
            if pointer.stride != size:
                return None
            first = pointer.base
        else:  # general addresses happen to be neighbours, as where a row number was divided
            first = self.set(f"extractelement <{width} x i64> {pointer.v}, i64 0")
            expected = self.vector(Affine(first, size, width), "ptr", width)
            same = self.set(f"icmp eq <{width} x i64> {pointer.v}, {expected}")
            conditions.append(self.all_lanes(same, width))
        if isinstance(mask, Mask):
            conditions.append(mask.every)
        elif isinstance(mask, Vector):
            conditions.append(self.all_lanes(mask.v, width))
        elif mask != TRUE:
            conditions.append(self.vector(mask, "i1", None))
        number = self.argument_of(op.operands[0]) if self.checked else None
        if number is not None and row:
            conditions += [] if row == "true" else [row]
        elif number is not None:
            end = self.set(f"add i64 {first}, {size * width}")
            conditions.append(self.inside(number, first, end))
        result = conditions[0] if conditions else "true"
        for condition in conditions[1:]:
            result = self.set(f"and i1 {result}, {condition}")
        return result, first

    # -- loads ---------------------------------------------------------------------------------

    def load(
        self, op: Op, pointer: Form, mask: Form | None, other: Form | None, width: int | None,
        row: str = "",
    ) -> Form:  # fmt: skip
        """Write a load; `row` as in `whole`."""
        element = op.results[0].element
        mask, other = mask or TRUE, other or Uniform(self.undefined(element))
        if mask == FALSE:
            return other
        if isinstance(pointer, Uniform):
            return self.load_one(op, pointer, mask, other, width)
        size, kind = BYTES[element], llvm_type(element, width)
        whole = self.whole(op, pointer, mask, size, width, row)
        if whole is not None and whole[0] == "true":
            return Vector(self.load_from(op, whole[1], kind, size), width)
        filler = self.vector(other, element, width)
        if whole is None:
            return Vector(self.load_lanes(op, pointer, mask, filler, width), width)
        condition, first = whole
        fast, slow, end = self.fresh("whole"), self.fresh("lanes"), self.fresh("end")
        self.fork(condition, fast, slow, likely=True)
        self.begin(fast)
        x = self.load_from(op, first, kind, size)
        self.jump(end)
        self.begin(slow)
        with self.apart():
            y = self.load_lanes(op, pointer, mask, filler, width)
        slow = self.out.label  # a report may have ended the block
        self.jump(end)
        self.begin(end)
        return Vector(self.set(f"phi {kind} [ {x}, %{fast} ], [ {y}, %{slow} ]"), width)

    def load_one(
        self, op: Op, pointer: Uniform, mask: Form, other: Form, width: int | None
    ) -> Form:
        """Write a load of one element, for all lanes that are active."""
        element = op.results[0].element
        size, scalar = BYTES[element], llvm_type(element)
        active = self.any_active(mask, width)
        active = self.kept_scalar(op, "load", pointer.v, active, size)
        if active == "true":
            return Uniform(self.load_from(op, pointer.v, scalar, size))
        safe = self.set(f"select i1 {active}, i64 {pointer.v}, i64 %nowhere")
        x = self.load_from(op, safe, scalar, size)
        if isinstance(mask, Uniform) and isinstance(other, Uniform):
            return Uniform(self.set(f"select i1 {active}, {scalar} {x}, {scalar} {other.v}"))
        kind, spread = llvm_type(element, width), self.splat(x, element, width)
        lanes = self.vector(mask, "i1", width)
        filler = self.vector(other, element, width)
        return Vector(
            self.set(f"select <{width} x i1> {lanes}, {kind} {spread}, {kind} {filler}"), width
        )

    def load_lanes(self, op: Op, pointer: Form, mask: Form, filler: str, width: int) -> str:
        """Write a load that looks at each lane."""
        element = op.results[0].element
        size, kind = BYTES[element], llvm_type(element, width)
        addresses = self.vector(pointer, "ptr", width)
        lanes = self.vector(mask, "i1", width)
        lanes = self.kept_lanes(op, "load", addresses, lanes, size, width)
        masks = f"<{width} x i1>"
        if isinstance(pointer, Affine) and pointer.stride == size:
            helper, place = self.helper("load", element, width), f"i64 {pointer.base}"
        else:
            helper, place = self.helper("gather", element, width), f"<{width} x i64> {addresses}"
        return self.set(f"call {kind} {helper}({place}, {masks} {lanes}, {kind} {filler})")

    def load_from(self, op: Op, address: str, kind: str, align: int) -> str:
        """Load from an address; again in each turn of a loop, if others may write there."""
        at = self.set(f"inttoptr i64 {address} to ptr")
        volatile = "volatile " if "isVolatile = true" in op.text else ""
        return self.set(f"load {volatile}{kind}, ptr {at}, align {align}")

    # -- stores --------------------------------------------------------------------------------

    def store(
        self, op: Op, pointer: Form, value: Form, mask: Form | None, width: int | None,
        row: str = "",
    ) -> None:  # fmt: skip
        """Write a store; `row` as in `whole`."""
        element, mask = op.operands[1].element, mask or TRUE
        size, kind = BYTES[element], llvm_type(element, width)
        if mask == FALSE:
            return
        if isinstance(pointer, Uniform):
            self.store_one(op, pointer, value, mask, width)
            return
        x = self.vector(value, element, width)
        whole = self.whole(op, pointer, mask, size, width, row)
        if whole is None:
            self.store_lanes(op, pointer, x, mask, width)
            return
        condition, first = whole
        if condition == "true":
            self.store_to(first, kind, x, size)
            return
        fast, slow, end = self.fresh("whole"), self.fresh("lanes"), self.fresh("end")
        self.fork(condition, fast, slow, likely=True)
        self.begin(fast)
        self.store_to(first, kind, x, size)
        self.jump(end)
        self.begin(slow)
        with self.apart():
            self.store_lanes(op, pointer, x, mask, width)
        self.jump(end)
        self.begin(end)

    def store_one(
        self, op: Op, pointer: Uniform, value: Form, mask: Form, width: int | None
    ) -> None:
        """Write a store to one place; of lanes that differ, the last active one stays."""
        element = op.operands[1].element
        size, kind = BYTES[element], llvm_type(element)
        active = self.any_active(mask, width)
        active = self.kept_scalar(op, "store", pointer.v, active, size)
        x = value.v if isinstance(value, Uniform) else ""
        if not x:
            lanes, lane = self.vector(value, element, width), str(width - 1)
            if not isinstance(mask, Uniform):
                held = self.vector(mask, "i1", width)
                bits = self.set(f"bitcast <{width} x i1> {held} to i{width}")
                zeros = self.call(
                    f"i{width}", f"llvm.ctlz.i{width}", (f"i{width}", bits), ("i1", "false")
                )
                lane = self.set(f"sub i{width} {width - 1}, {zeros}")
            x = self.set(
                f"extractelement {llvm_type(element, width)} {lanes}, i{width or 64} {lane}"
            )
        self.branch(active, lambda: self.store_to(pointer.v, kind, x, size))

    def store_lanes(self, op: Op, pointer: Form, x: str, mask: Form, width: int) -> None:
        """Write a store that looks at each lane."""
        element = op.operands[1].element
        size, kind = BYTES[element], llvm_type(element, width)
        addresses = self.vector(pointer, "ptr", width)
        lanes = self.vector(mask, "i1", width)
        lanes = self.kept_lanes(op, "store", addresses, lanes, size, width)
        if isinstance(pointer, Affine) and pointer.stride == size:
            helper, place = self.helper("store", element, width), f"i64 {pointer.base}"
        else:
            helper, place = self.helper("scatter", element, width), f"<{width} x i64> {addresses}"
        self.line(f"call void {helper}({place}, <{width} x i1> {lanes}, {kind} {x})")

    def store_to(self, address: str, kind: str, x: str, align: int) -> None:
        """Store to an address."""
        at = self.set(f"inttoptr i64 {address} to ptr")
        self.line(f"store {kind} {x}, ptr {at}, align {align}")

    # -- atomics, one lane at a time -----------------------------------------------------------

    def atomic(
        self, op: Op, pointer: str, value: str, mask: str = "true", expected: str | None = None
    ) -> str:
        """Write an atomic operation on one element; return what was there before."""
        element = op.results[0].element
        kind, slot = llvm_type(element), self.alloca(llvm_type(element))
        mask = self.kept_scalar(op, "atomic", pointer, mask, BYTES[element])
        self.line(f"store {kind} {self.undefined(element)}, ptr {slot}")

        def write() -> None:
            at = self.set(f"inttoptr i64 {pointer} to ptr")
            if expected is not None:
                old, _ = self.swapped(at, element, expected, value)
            elif op.predicate not in ATOMIC:
                raise op.unsupported(op.predicate)
            elif element == "bf16" and op.predicate == "fadd":
                old = self.bfloat16_added(op, at, value)
            else:
                what = ATOMIC[op.predicate]
                old = self.set(f"atomicrmw {what} ptr {at}, {kind} {value} seq_cst")
            self.line(f"store {kind} {old}, ptr {slot}")

        self.branch(mask, write)
        return self.set(f"load {kind}, ptr {slot}")

    def swapped(self, at: str, element: str, expected: str, value: str) -> tuple[str, str]:
        """Compare bits and swap if they are equal; return what was there, and whether they were."""
        kind, bits = llvm_type(element), f"i{BITS[element]}"
        if kind != bits:
            expected, value = (self.set(f"bitcast {kind} {v} to {bits}") for v in (expected, value))
        pair = self.set(f"cmpxchg ptr {at}, {bits} {expected}, {bits} {value} seq_cst seq_cst")
        old = self.set(f"extractvalue {{ {bits}, i1 }} {pair}, 0")
        old = old if kind == bits else self.set(f"bitcast {bits} {old} to {kind}")
        return old, self.set(f"extractvalue {{ {bits}, i1 }} {pair}, 1")

    def bfloat16_added(self, op: Op, at: str, value: str) -> str:
        """Add until nobody has come between: no processor adds bfloat16 in memory."""
        amount = self.bfloat16_widened(value, None)
        first = self.set(f"load atomic i16, ptr {at} monotonic, align 2")
        again, done, seen = self.fresh("again"), self.fresh("done"), "%" + self.fresh()
        before = self.out.label
        self.jump(again)
        self.begin(again)
        old = self.set(f"phi i16 [ {first}, %{before} ], [ {seen}, %{again} ]")
        total = self.set(f"fadd float {self.bfloat16_widened(old, None)}, {amount}")
        found, is_swapped = self.swapped(at, "bf16", old, self.bfloat16_narrowed(total, None))
        self.line(f"{seen} = add i16 {found}, 0")
        self.fork(is_swapped, done, again)
        self.begin(done)
        return old
