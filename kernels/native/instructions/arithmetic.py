"""One elementwise operation: on simple forms where that is possible, else LLVM instructions."""

from collections.abc import Sequence

from . import functions, libdevice
from .casts import CASTS, Casts, _wrapped, computed_in
from .forms import Affine, Form, Mask, Uniform, Vector
from .ttir import BITS, Op, Type
from .writer import bits_literal, float_literal, literal, llvm_type

INTEGER = {
    "arith.addi": "add", "arith.subi": "sub", "arith.muli": "mul", "arith.andi": "and",
    "arith.ori": "or", "arith.xori": "xor", "arith.shli": "shl", "arith.shrsi": "ashr",
    "arith.shrui": "lshr",
}  # fmt: skip
SHIFT = ("arith.shli", "arith.shrsi", "arith.shrui")
SIGNED = "tt.signed"  # an attribute: a result beyond the signed type is a fault (see signs.py)
DIVISION = {
    "arith.divsi": "sdiv", "arith.divui": "udiv", "arith.remsi": "srem", "arith.remui": "urem",
}  # fmt: skip
INTEGER_INTRINSIC = {
    "arith.maxsi": "smax", "arith.minsi": "smin", "arith.maxui": "umax", "arith.minui": "umin",
    "math.absi": "abs", "math.ctpop": "ctpop",
}  # fmt: skip
FLOAT = {
    "arith.addf": "fadd", "arith.subf": "fsub", "arith.mulf": "fmul", "arith.divf": "fdiv",
    "tt.precise_divf": "fdiv", "arith.remf": "frem",
}  # fmt: skip
FLOAT_INTRINSIC = {
    "arith.maxnumf": "maxnum", "arith.minnumf": "minnum", "arith.maximumf": "maximum",
    "arith.minimumf": "minimum", "math.absf": "fabs", "math.sqrt": "sqrt", "math.floor": "floor",
    "tt.precise_sqrt": "sqrt", "math.ceil": "ceil", "math.fma": "fma", "math.trunc": "trunc",
    "math.copysign": "copysign", "math.roundeven": "roundeven",
}  # fmt: skip
# Functions of `functions`, and, in other types than float32, of the C library under the same name.
MATH = {
    "math.exp2": functions.exp2, "math.exp": functions.exp, "math.log2": functions.log2,
    "math.log": functions.log, "math.erf": functions.erf, "math.rsqrt": functions.rsqrt,
    "math.tanh": functions.tanh,
}  # fmt: skip
C_LIBRARY = {
    f"math.{name}": name
    for name in (
        "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh",
        "log1p", "expm1", "cbrt", "pow", "atan2", "hypot", "fmod", "erfc", "lgamma", "tgamma",
        "log10", "exp10", "nearbyint", "rint", "round", "ldexp", "remainder", "fdim", "nextafter",
        "logb", "j0", "j1", "y0", "y1",
    )
}  # fmt: skip
C_LIBRARY |= {"math.powf": "pow"}
LIBDEVICE = {  # libdevice's name, without __nv_ and the f of float32: ours
    "fast_exp": "math.exp", "fast_log": "math.log", "fast_log2": "math.log2", "fabs": "math.absf",
    "fast_tanh": "math.tanh", "fast_sin": "math.sin", "fast_cos": "math.cos",
    "fast_pow": "math.pow", "sqrt_rn": "math.sqrt", "rsqrt_rn": "math.rsqrt",
}  # fmt: skip
# Of |x| and infinity, as LLVM names comparisons.
TESTS = {
    "__nv_isnanf": "uno", "__nv_isnand": "uno", "__nv_isinff": "oeq", "__nv_isinfd": "oeq",
    "__nv_finitef": "olt", "__nv_isfinited": "olt",
}  # fmt: skip
ELEMENTWISE = {
    *INTEGER, *DIVISION, *INTEGER_INTRINSIC, *FLOAT, *FLOAT_INTRINSIC, *MATH, *C_LIBRARY, *CASTS,
    "arith.cmpi", "arith.cmpf", "arith.select", "arith.negf", "tt.addptr", "tt.clampf",
    "tt.mulhiui", "tt.extern_elementwise",
}  # fmt: skip
# Comparisons that hold for all lanes if for the last one of ascending, or of descending numbers;
# not the unsigned ones: below 0 such numbers begin anew.
RISING, FALLING = ("slt", "sle"), ("sgt", "sge")
# What an element costs, in instructions, where it is not one.
COST = dict.fromkeys([*MATH, *C_LIBRARY, "tt.extern_elementwise"], 20) | dict.fromkeys(DIVISION, 8)
COST |= dict.fromkeys(["arith.divf", "tt.precise_divf", "math.sqrt", "tt.precise_sqrt"], 6)
COST |= {"tt.mulhiui": 3, "arith.truncf": 3}
# What stands in lanes that nothing defines: not a number, and a large negative integer.
UNDEFINED = {"f16": 0x7F58, "bf16": 0x7FEB, "f32": 0x7FEB0000, "f64": 0x7FFD600000000000}


class Arithmetic(Casts):
    """Writes one operation, given the forms of its operands."""

    # -- forms to LLVM values ------------------------------------------------------------------

    def vector(self, form: Form, element: str, width: int | None) -> str:
        """Return an LLVM value with all lanes of a form."""
        match form:
            case Uniform(v):
                return self.splat(v, element, width) if width else v
            case Affine(base, stride):
                scalar = llvm_type(element)
                lanes = ", ".join(f"{scalar} {i * stride}" for i in range(form.width))
                if literal(base) == 0:
                    return f"<{lanes}>"
                spread = self.splat(base, element, form.width)
                return self.set(f"add {llvm_type(element, form.width)} {spread}, <{lanes}>")
            case Mask(write=write):
                if form not in self.out.memo:
                    self.out.memo[form] = write()
                return self.out.memo[form]
        return form.v

    def splat(self, v: str, element: str, width: int) -> str:
        """Return a vector whose lanes are all `v`."""
        if not v.startswith("%"):
            return f"splat ({llvm_type(element)} {v})"
        key = ("splat", v, element, width)
        if key not in self.out.memo:
            kind = llvm_type(element, width)
            one = self.set(f"insertelement {kind} poison, {llvm_type(element)} {v}, i64 0")
            self.out.memo[key] = self.set(
                f"shufflevector {kind} {one}, {kind} poison, <{width} x i32> zeroinitializer"
            )
        return self.out.memo[key]

    def undefined(self, element: str) -> str:
        """Return the constant that stands in a lane that nothing defines."""
        if element in UNDEFINED:
            return bits_literal(UNDEFINED[element], element)
        return "true" if element == "i1" else str(_wrapped(int("80" * 8, 16), BITS[element]))

    # -- integers that stay simple -------------------------------------------------------------

    def integer(self, opcode: str, element: str, a: str, b: str) -> str:
        """Compute on scalar integers; fold what is known."""
        x, y = literal(a), literal(b)
        if x is not None and y is not None and opcode in ("add", "sub", "mul"):
            result = {"add": x + y, "sub": x - y, "mul": x * y}[opcode]
            return str(_wrapped(result, BITS[element]))
        if y == 0 and opcode in ("add", "sub"):
            return a
        if x == 0 and opcode == "add":
            return b
        if opcode == "mul" and 1 in (x, y):
            return b if x == 1 else a
        return self.set(f"{opcode} {llvm_type(element)} {a}, {b}")

    def simple(self, op: Op, forms: Sequence[Form]) -> Form | None:
        """Compute on affine forms, if the result is affine."""
        name, element = op.name, op.results[0].element
        if name in ("arith.addi", "arith.subi"):
            opcode, sign = INTEGER[name], 1 if name == "arith.addi" else -1
            match forms:
                case [Affine(x, s, w), Affine(y, t)]:
                    base, stride = self.integer(opcode, element, x, y), s + sign * t
                    return Affine(base, stride, w) if stride else Uniform(base)
                case [Affine(x, s, w), Uniform(y)]:
                    return Affine(self.integer(opcode, element, x, y), s, w)
                case [Uniform(x), Affine(y, t, w)]:
                    return Affine(self.integer(opcode, element, x, y), sign * t, w)
        if name == "arith.muli":
            for a, b in (forms, reversed(forms)):
                if isinstance(a, Affine) and isinstance(b, Uniform):
                    factor = literal(b.v)
                    if factor is not None:
                        base = self.integer("mul", element, a.base, b.v)
                        stride = a.stride * factor
                        return Affine(base, stride, a.width) if stride else Uniform(base)
        if name in ("arith.extsi", "arith.index_cast", "arith.trunci"):
            a = forms[0]
            if isinstance(a, Affine):
                base = self.resized(a.base, op.operands[0].element, element)
                return Affine(base, a.stride, a.width)
        if name == "arith.select" and isinstance(forms[0], Uniform):
            match forms[1:]:
                case [Affine(x, s, w), Affine(y, t)] if s == t:
                    kind = llvm_type(element)
                    chosen = self.set(f"select i1 {forms[0].v}, {kind} {x}, {kind} {y}")
                    return Affine(chosen, s, w)
        return None

    # -- one operation -------------------------------------------------------------------------

    def elementwise(self, op: Op, forms: Sequence[Form]) -> Form:
        """Write an operation whose operands have these forms."""
        width = next((f.width for f in forms if not isinstance(f, Uniform)), None)
        if width is None:
            return Uniform(self.instruction(op, [f.v for f in forms], None))
        if op.name == "tt.addptr":
            return self.add_pointer(op, *forms)
        simple = self.simple(op, forms)
        if simple is not None:
            return simple

        def write() -> str:
            elements = [v.element for v in op.operands]
            vectors = [self.vector(f, e, width) for f, e in zip(forms, elements, strict=True)]
            return self.instruction(op, vectors, width)

        every = self.every_lane(op, forms, width) if op.results[0].element == "i1" else ""
        return Mask(every, width, write) if every else Vector(write(), width)

    def every_lane(self, op: Op, forms: Sequence[Form], width: int) -> str:
        """Return whether all lanes of a mask are active, where that takes no look at each."""
        match op.name, forms:
            case "arith.andi", [a, b]:
                parts = [
                    f.every if isinstance(f, Mask) else f.v if isinstance(f, Uniform) else ""
                    for f in (a, b)
                ]
                return self.set(f"and i1 {parts[0]}, {parts[1]}") if all(parts) else ""
            case "arith.cmpi", [Affine(base, stride), Uniform(limit)] if (
                op.predicate in RISING if stride > 0 else op.predicate in FALLING
            ):
                element = op.operands[0].element
                last = self.integer("add", element, base, str((width - 1) * stride))
                return self.set(f"icmp {op.predicate} {llvm_type(element)} {last}, {limit}")
        return ""

    def check_range(self, op: Op, forms: Sequence[Form], width: int | None) -> None:
        """Note it if a sum, difference or product of signed integers leaves their type's range.

        Lanes that are a base plus multiples of a stride have their extremes at their ends.
        """
        element = op.results[0].element
        if not self.checked or SIGNED not in op.text:
            return
        if all(isinstance(f, Uniform) and literal(f.v) is not None for f in forms):
            return
        what = f"{element.replace('i', 'int')} overflow in {op.name[6:9]}"
        if any(isinstance(f, Vector) for f in forms) or is_quadratic(op, forms):
            vectors = [self.vector(f, element, width) for f in forms]
            lanes = self.overflows(op, vectors, width)
            bits = self.set(f"bitcast <{width} x i1> {lanes} to i{width}")
            self.note_if(self.set(f"icmp ne i{width} {bits}, 0"), what, op.where)
            return
        wrong = self.overflows(op, [_lane(f) for f in forms], None)
        if width is not None:
            last = [
                self.integer("add", element, f.base, str((width - 1) * f.stride))
                if isinstance(f, Affine)
                else f.v
                for f in forms
            ]
            wrong = self.set(f"or i1 {wrong}, {self.overflows(op, last, None)}")
        self.note_if(wrong, what, op.where)

    def overflows(self, op: Op, operands: list[str], width: int | None) -> str:
        """Return an i1, or lanes of them: whether a signed operation overflows."""
        element, opcode = op.results[0].element, INTEGER[op.name]
        kind, mask = llvm_type(element, width), llvm_type("i1", width)
        lanes, pair = (f"v{width}" if width else ""), f"{{ {kind}, {mask} }}"
        name = f"llvm.s{opcode}.with.overflow.{lanes}{element}"
        both = self.call(pair, name, *((kind, v) for v in operands))
        return self.set(f"extractvalue {pair} {both}, 1")

    def note_if(self, wrong: str, what: str, where: str) -> None:
        """Remember a fault if a condition holds."""
        raise NotImplementedError

    def add_pointer(self, op: Op, pointer: Form, offset: Form) -> Form:
        """Move a pointer by a number of elements."""
        size, element = pointee_bytes(op.operands[0].type), op.operands[1].element
        width = next((f.width for f in (pointer, offset) if not isinstance(f, Uniform)), None)
        if isinstance(offset, Vector):
            wide = self.resized(offset.v, element, "i64", width)
            lanes = f"<{width} x i64>"
            moved = self.set(f"mul {lanes} {wide}, {self.number(size, 'i64', width)}")
            start = self.vector(pointer, "ptr", width)
            return Vector(self.set(f"add {lanes} {start}, {moved}"), width)
        base, stride = (offset.base, offset.stride) if isinstance(offset, Affine) else (offset.v, 0)
        base = self.integer("mul", "i64", self.resized(base, element, "i64"), str(size))
        stride *= size
        if isinstance(pointer, Vector):
            moved = self.vector(
                Affine(base, stride, width) if stride else Uniform(base), "ptr", width
            )
            return Vector(self.set(f"add <{width} x i64> {pointer.v}, {moved}"), width)
        first, step = (
            (pointer.base, pointer.stride) if isinstance(pointer, Affine) else (pointer.v, 0)
        )
        start = self.integer("add", "i64", first, base)
        return Affine(start, step + stride, width) if step + stride else Uniform(start)

    def instruction(self, op: Op, operands: list[str], width: int | None) -> str:
        """Write the LLVM instructions of one operation, on scalars or on vectors."""
        name, element = op.name, op.results[0].element
        source = op.operands[0].element if op.operands else element
        kind = llvm_type(element, width)
        if name == "tt.addptr":
            return self.add_pointer(op, *map(Uniform, operands)).v
        if name in SHIFT and self.checked and literal(operands[1]) is None:
            return self.shifted(name, element, operands[0], operands[1], width)
        if name in INTEGER:
            if width is None:
                return self.integer(INTEGER[name], element, *operands)
            return self.set(f"{INTEGER[name]} {kind} {operands[0]}, {operands[1]}")
        if name in DIVISION:
            return self.divided(name, element, operands[0], operands[1], width)
        if name in INTEGER_INTRINSIC:
            more = [("i1", "false")] if name == "math.absi" else []
            return self.intrinsic(INTEGER_INTRINSIC[name], element, width, operands, *more)
        if name == "tt.mulhiui":
            return self.high_product(element, operands[0], operands[1], width)
        if name == "arith.cmpi":
            compared = llvm_type(source, width)
            return self.set(f"icmp {op.predicate} {compared} {operands[0]}, {operands[1]}")
        if name == "arith.cmpf":
            a, b = (self.widened(v, source, width) for v in operands)
            return self.set(f"fcmp {op.predicate} {llvm_type(computed_in(source), width)} {a}, {b}")
        if name == "arith.select":
            mask = llvm_type("i1", width)
            return self.set(
                f"select {mask} {operands[0]}, {kind} {operands[1]}, {kind} {operands[2]}"
            )
        if name in CASTS:
            return self.cast(op, operands[0], width)
        if name == "tt.extern_elementwise" and op.word("symbol") in TESTS:
            return self.float_test(TESTS[op.word("symbol")], op, operands[0], width)
        if name == "tt.extern_elementwise" and (function := libdevice.name_of(op)):
            return libdevice.call(self, function, op, operands, width)
        wide = computed_in(element)
        operands = [self.widened(v, element, width) for v in operands]
        return self.narrowed(op, self.float_operation(op, operands, wide, width), element, width)

    def divided(self, name: str, element: str, a: str, b: str, width: int | None) -> str:
        """Divide integers; nothing traps. By zero the result is undefined, as on a GPU."""
        kind, mask = llvm_type(element, width), llvm_type("i1", width)

        def k(n: int) -> str:
            return self.number(n, element, width)

        if literal(b) not in (None, 0, -1):
            return self.set(f"{DIVISION[name]} {kind} {a}, {b}")
        by_zero = self.set(f"icmp eq {kind} {b}, {k(0)}")
        unsafe = by_zero
        if name.endswith("si"):  # the least integer divided by -1 overflows, and traps
            by_minus_one = self.set(f"icmp eq {kind} {b}, {k(-1)}")
            unsafe = self.set(f"or {mask} {by_zero}, {by_minus_one}")
        safe = self.set(f"select {mask} {unsafe}, {kind} {k(1)}, {kind} {b}")
        result = self.set(f"{DIVISION[name]} {kind} {a}, {safe}")
        if name.endswith("si"):
            negated = self.set(f"sub {kind} {k(0)}, {a}") if "div" in name else k(0)
            result = self.set(f"select {mask} {by_minus_one}, {kind} {negated}, {kind} {result}")
        nothing = k(int(self.undefined(element))) if element != "i1" else k(0)
        return self.set(f"select {mask} {by_zero}, {kind} {nothing}, {kind} {result}")

    def shifted(self, name: str, element: str, a: str, b: str, width: int | None) -> str:
        """Shift; by the type's width or more the result is undefined."""
        kind, mask, bits = llvm_type(element, width), llvm_type("i1", width), BITS[element]
        inside = self.set(f"icmp ult {kind} {b}, {self.number(bits, element, width)}")
        safe = self.set(f"and {kind} {b}, {self.number(bits - 1, element, width)}")
        result = self.set(f"{INTEGER[name]} {kind} {a}, {safe}")
        nothing = self.number(int(self.undefined(element)), element, width)
        return self.set(f"select {mask} {inside}, {kind} {result}, {kind} {nothing}")

    def high_product(self, element: str, a: str, b: str, width: int | None) -> str:
        """Return the upper half of an unsigned product."""
        bits, kind = BITS[element], llvm_type(element, width)
        wide = f"<{width} x i{2 * bits}>" if width else f"i{2 * bits}"
        a, b = (self.set(f"zext {kind} {v} to {wide}") for v in (a, b))
        shift = f"splat (i{2 * bits} {bits})" if width else str(bits)
        high = self.set(f"lshr {wide} {self.set(f'mul {wide} {a}, {b}')}, {shift}")
        return self.set(f"trunc {wide} {high} to {kind}")

    def float_operation(self, op: Op, operands: list[str], element: str, width: int | None) -> str:
        """Write an operation on floating-point numbers."""
        name, kind = op.name, llvm_type(element, width)
        if name == "tt.extern_elementwise":
            name = libdevice_name(op)
        if name in FLOAT:
            return self.set(f"{FLOAT[name]} {kind} {operands[0]}, {operands[1]}")
        if name == "saturate":
            zero, one = (
                self.vector(Uniform(float_literal(x, element)), element, width) for x in (0, 1)
            )
            raised = self.extreme("maxnum", [operands[0], zero], element, width)
            return self.extreme("minnum", [raised, one], element, width)
        if name == "arith.negf":
            return self.set(f"fneg {kind} {operands[0]}")
        if name in ("arith.maxnumf", "arith.minnumf"):
            return self.extreme(FLOAT_INTRINSIC[name], operands, element, width)
        if name in FLOAT_INTRINSIC:
            return self.intrinsic(FLOAT_INTRINSIC[name], element, width, operands)
        if name == "tt.clampf":
            every = "propagateNan = all" in op.text
            low, high = ("maximum", "minimum") if every else ("maxnum", "minnum")
            raised = self.extreme(low, operands[:2], element, width)
            return self.extreme(high, [raised, operands[2]], element, width)
        if name not in MATH and name not in C_LIBRARY:
            raise op.unsupported()
        if element == "f16":  # computed in float32 and rounded once
            wide = [self.converted(v, "f16", "f32", width) for v in operands]
            return self.converted(self.function(name, wide, "f32", width), "f32", "f16", width)
        return self.function(name, operands, element, width)

    def extreme(self, intrinsic: str, operands: list[str], element: str, width: int | None) -> str:
        """Write a maximum or minimum; if it forgets a NaN, then not one that means undefined."""
        result = self.intrinsic(intrinsic, element, width, operands)
        if not self.checked or intrinsic in ("maximum", "minimum"):
            return result
        kind, mask, bits = llvm_type(element, width), llvm_type("i1", width), BITS[element]
        words, word = llvm_type(f"i{bits}", width), f"i{bits}"
        all_but_the_sign = self.number((1 << bits - 1) - 1, word, width)
        undefined = self.number(UNDEFINED[element], word, width)
        for v in operands:
            if "%" in v:  # no constant
                size = self.set(f"bitcast {kind} {v} to {words}")
                size = self.set(f"and {words} {size}, {all_but_the_sign}")
                is_undefined = self.set(f"icmp eq {words} {size}, {undefined}")
                result = self.set(f"select {mask} {is_undefined}, {kind} {v}, {kind} {result}")
        return result

    def float_test(self, test: str, op: Op, x: str, width: int | None) -> str:
        """Write libdevice's isnan, isinf or isfinite: 1 or 0."""
        source, kind = op.operands[0].element, llvm_type(op.results[0].element, width)
        magnitude = self.intrinsic("fabs", source, width, [x])
        infinity = self.vector(Uniform(float_literal(float("inf"), source)), source, width)
        floats = llvm_type(source, width)
        holds = self.set(f"fcmp {test} {floats} {magnitude}, {infinity}")
        if op.results[0].element == "i1":
            return holds
        return self.set(f"zext {llvm_type('i1', width)} {holds} to {kind}")

    def function(self, name: str, operands: list[str], element: str, width: int | None) -> str:
        """Write a function of analysis: our own in float32, the C library's else."""
        if name in MATH and element == "f32":
            return MATH[name](functions.Math(self, width), *operands)
        if name == "math.rsqrt":
            root, kind = self.intrinsic("sqrt", element, width, operands), llvm_type(element, width)
            one = float_literal(1.0, element)
            return self.set(f"fdiv {kind} {f'splat (double {one})' if width else one}, {root}")
        return self.each_lane(C_LIBRARY.get(name, name[5:]), operands, element, width)

    def intrinsic(
        self, name: str, element: str, width: int | None, operands: list[str],
        *more: tuple[str, str],
    ) -> str:  # fmt: skip
        """Call one of LLVM's own functions."""
        kind = llvm_type(element, width)
        scalar = {"index": "i64", "ptr": "i64"}.get(element, element)
        suffix = (f"v{width}" if width else "") + scalar
        return self.call(kind, f"llvm.{name}.{suffix}", *((kind, v) for v in operands), *more)

    def each_lane(self, name: str, operands: list[str], element: str, width: int | None) -> str:
        """Call the C library, once for each lane."""
        scalar, function = llvm_type(element), name + ("f" if element == "f32" else "")
        if width is None:
            return self.call(scalar, function, *((scalar, v) for v in operands))
        kind, result = llvm_type(element, width), "poison"
        for lane in range(width):
            given = [self.set(f"extractelement {kind} {v}, i64 {lane}") for v in operands]
            one = self.call(scalar, function, *((scalar, v) for v in given))
            result = self.set(f"insertelement {kind} {result}, {scalar} {one}, i64 {lane}")
        return result


def libdevice_name(op: Op) -> str:
    """Name the function of ours that one of libdevice's stands for."""
    symbol = op.word("symbol").removeprefix("__nv_")
    if symbol == "saturatef":
        return "saturate"
    known = {*MATH, *C_LIBRARY, *FLOAT_INTRINSIC}
    for name in (symbol, symbol.removesuffix("f")):
        ours = LIBDEVICE.get(name, f"math.{name}")
        if ours in known:
            return ours
    raise op.unsupported(f"libdevice's {op.word('symbol')}")


def pointee_bytes(pointer: Type) -> int:
    """Return how far apart neighbours are that a pointer points to."""
    return max(1, BITS.get(pointer.pointee, 8) // 8)


def is_quadratic(op: Op, forms: Sequence[Form]) -> bool:
    """Say whether an operation's extremes may lie between the first lane and the last."""
    return op.name == "arith.muli" and all(isinstance(f, Affine) for f in forms)


def _lane(form: Form) -> str:
    """Return the first lane of a form that is no vector."""
    return form.base if isinstance(form, Affine) else form.v
