"""Conversions between the types, rounded as a GPU rounds: to nearest, ties to even, or to zero.

bfloat16 and float8 are held as their bits. bfloat16 is computed in float32 and rounded once.
"""

from typing import NamedTuple

from .ttir import BITS, Op
from .writer import Writer, bits_literal, float_literal, literal, llvm_type

CASTS = {
    "arith.extsi", "arith.extui", "arith.trunci", "arith.index_cast", "arith.index_castui",
    "arith.sitofp", "arith.uitofp", "arith.fptosi", "arith.fptoui", "arith.extf", "arith.truncf",
    "arith.bitcast", "tt.bitcast", "tt.ptr_to_int", "tt.int_to_ptr", "tt.fp_to_fp",
}  # fmt: skip


class Float8(NamedTuple):
    """A format of 8 bits. One without negative zero has its code for NaN; others have 0x7F."""

    mantissa_bits: int
    bias: int
    largest: float
    has_negative_zero: bool


FLOAT8 = {
    "f8E5M2": Float8(2, 15, 57344.0, True), "f8E4M3FN": Float8(3, 7, 448.0, True),
    "f8E5M2FNUZ": Float8(2, 16, 57344.0, False), "f8E4M3FNUZ": Float8(3, 8, 240.0, False),
}  # fmt: skip
# Mantissa bits, bias of the exponent, and the integer that holds the bits.
_WIDER = {"f16": (10, 15, "i16"), "f32": (23, 127, "i32")}
_SAME_BITS = ("arith.bitcast", "tt.bitcast", "tt.ptr_to_int", "tt.int_to_ptr")
_INTEGER = ("arith.extsi", "arith.extui", "arith.trunci", "arith.index_cast", "arith.index_castui")
_FLOAT = ("arith.extf", "arith.truncf", "tt.fp_to_fp")


def computed_in(element: str) -> str:
    """Name the type in which a type's arithmetic is done."""
    return "f32" if element == "bf16" or element.startswith("f8") else element


class Casts(Writer):
    """Writes conversions of scalars (`width` None) and of vectors."""

    checked = False  # whether what is undefined stays so, and integer overflow is reported

    def number(self, n: int, element: str, width: int | None) -> str:
        """Write an integer constant."""
        return f"splat ({llvm_type(element)} {n})" if width else str(n)

    def cast(self, op: Op, v: str, width: int | None) -> str:
        """Write a conversion."""
        name, source, target = op.name, op.operands[0].element, op.results[0].element
        a, b = llvm_type(source, width), llvm_type(target, width)
        if name in _SAME_BITS:
            return v if a == b else self.set(f"bitcast {a} {v} to {b}")
        if name in _INTEGER:
            signed = name in ("arith.extsi", "arith.index_cast")
            return self.resized(v, source, target, width, signed=signed)
        if name in _FLOAT:
            rounded = self.refloated(op, v, source, target, width)
            if "rounding = rtz" in op.text and BITS[target] < BITS[source]:
                return self.towards_zero(v, rounded, source, target, width)
            return rounded
        if name in ("arith.sitofp", "arith.uitofp"):
            wide = computed_in(target)
            result = self.set(f"{name[6:]} {a} {v} to {llvm_type(wide, width)}")
            return self.narrowed(op, result, target, width)
        return self.to_integer(name[6:], v, source, target, width)

    def to_integer(self, opcode: str, v: str, source: str, target: str, width: int | None) -> str:
        """Cut off the fraction; beyond the range, the last integer there is, as on a GPU."""
        clamped = "i16" if target == "i8" else target  # PTX has no conversion to 8 bits
        wide, lanes = computed_in(source), f"v{width}" if width else ""
        intrinsic = f"llvm.{opcode}.sat.{lanes}{clamped}.{lanes}{wide}"
        floats, kind = llvm_type(wide, width), llvm_type(clamped, width)
        x = self.widened(v, source, width)
        result = self.call(kind, intrinsic, (floats, x))
        if target == "i64":  # in the others NaN becomes 0
            least = self.number(-(2**63), target, width)
            is_nan = self.set(f"fcmp uno {floats} {x}, {x}")
            mask = llvm_type("i1", width)
            result = self.set(f"select {mask} {is_nan}, {kind} {least}, {kind} {result}")
        return self.resized(result, clamped, target, width)

    def towards_zero(
        self, v: str, rounded: str, source: str, target: str, width: int | None
    ) -> str:
        """Take the neighbour nearer to 0 where rounding to nearest has made a number larger."""
        wide = "f64" if "f64" in (source, target) else "f32"
        floats, words = llvm_type(wide, width), llvm_type(f"i{BITS[target]}", width)

        def size(x: str, element: str) -> str:
            x = self.converted(self.widened(x, element, width), computed_in(element), wide, width)
            return self.call(floats, f"llvm.fabs.{f'v{width}' if width else ''}{wide}", (floats, x))

        beyond = self.set(f"fcmp ogt {floats} {size(rounded, target)}, {size(v, source)}")
        kind = llvm_type(target, width)
        bits = rounded if kind == words else self.set(f"bitcast {kind} {rounded} to {words}")
        one = self.set(f"zext {llvm_type('i1', width)} {beyond} to {words}")
        nearer = self.set(f"sub {words} {bits}, {one}")
        return nearer if kind == words else self.set(f"bitcast {words} {nearer} to {kind}")

    def resized(
        self, v: str, source: str, target: str, width: int | None = None, *, signed: bool = True
    ) -> str:
        """Make an integer longer or shorter."""
        if BITS[source] == BITS[target]:
            return v
        if width is None and signed and v not in ("true", "false") and literal(v) is not None:
            return str(_wrapped(int(v), BITS[target]))
        opcode = "trunc" if BITS[source] > BITS[target] else "sext" if signed else "zext"
        return self.set(f"{opcode} {llvm_type(source, width)} {v} to {llvm_type(target, width)}")

    def refloated(self, op: Op, v: str, source: str, target: str, width: int | None) -> str:
        """Round or extend a floating-point number."""
        if source == target:
            return v
        middle, wide = computed_in(source), computed_in(target)
        if source == "f64" and BITS[target] < 32:  # rounded twice, it might be off by one
            v, middle = self.rounded_to_odd(v, width), "f32"
        v = self.converted(self.widened(v, source, width), middle, wide, width)
        return self.narrowed(op, v, target, width)

    def rounded_to_odd(self, v: str, width: int | None) -> str:
        """Cut float64 down to float32, and set the last bit if anything was lost."""
        doubles, floats, words = (llvm_type(e, width) for e in ("f64", "f32", "i32"))
        nearest = self.converted(v, "f64", "f32", width)
        cut = self.towards_zero(v, nearest, "f64", "f32", width)
        exact = self.converted(nearest, "f32", "f64", width)
        is_lost = self.set(f"fcmp one {doubles} {exact}, {v}")
        last = self.set(f"zext {llvm_type('i1', width)} {is_lost} to {words}")
        bits = self.set(f"bitcast {floats} {cut} to {words}")
        return self.set(f"bitcast {words} {self.set(f'or {words} {bits}, {last}')} to {floats}")

    def converted(self, v: str, source: str, target: str, width: int | None) -> str:
        """Convert between float16, float32 and float64."""
        if source == target:
            return v
        opcode = "fpext" if BITS[target] > BITS[source] else "fptrunc"
        return self.set(f"{opcode} {llvm_type(source, width)} {v} to {llvm_type(target, width)}")

    # -- types that LLVM has no arithmetic for -------------------------------------------------

    def widened(self, v: str, element: str, width: int | None) -> str:
        """Make float32 of the bits of bfloat16 or float8; leave everything else as it is."""
        if element == "bf16":
            return self.bfloat16_widened(v, width)
        if element == "f8E5M2":  # the upper half of a float16
            words = llvm_type("i16", width)
            bits = self.set(f"zext {llvm_type('i8', width)} {v} to {words}")
            bits = self.set(f"shl {words} {bits}, {self.number(8, 'i16', width)}")
            half = self.set(f"bitcast {words} {bits} to {llvm_type('f16', width)}")
            return self.converted(half, "f16", "f32", width)
        if element == "f8E5M2FNUZ":  # its largest exponent is infinity's in float16
            return self.float8_widened(v, element, "f32", width)
        if element in FLOAT8:
            return self.float8_widened(v, element, "f16", width)
        return v

    def bfloat16_widened(self, v: str, width: int | None) -> str:
        """Read bfloat16 as the upper half of a float32."""
        if v.isdigit():
            return bits_literal(int(v) << 16, "f32")
        if v.startswith("splat ("):
            return f"splat (float {bits_literal(int(v[11:-1]) << 16, 'f32')})"
        words = llvm_type("i32", width)
        wide = self.set(f"zext {llvm_type('bf16', width)} {v} to {words}")
        shifted = self.set(f"shl {words} {wide}, {self.number(16, 'i32', width)}")
        return self.set(f"bitcast {words} {shifted} to {llvm_type('f32', width)}")

    def float8_widened(self, v: str, element: str, wider: str, width: int | None) -> str:
        """Read exponent and mantissa as a wider type's, and mend the bias of the exponent."""
        of = FLOAT8[element]
        mantissa_bits, bias, word = _WIDER[wider]
        words, floats = llvm_type(word, width), llvm_type("f32", width)

        def k(n: int) -> str:
            return self.number(n, word, width)

        def f(x: float) -> str:
            return f"splat (float {float_literal(x)})" if width else float_literal(x)

        bits = self.set(f"zext {llvm_type('i8', width)} {v} to {words}")
        magnitude = self.set(f"and {words} {bits}, {k(0x7F)}")
        sign = self.set(f"and {words} {bits}, {k(0x80)}")
        sign = self.set(f"shl {words} {sign}, {k(BITS[word] - 8)}")
        shifted = self.set(f"shl {words} {magnitude}, {k(mantissa_bits - of.mantissa_bits)}")
        shifted = self.set(f"or {words} {shifted}, {sign}")
        number = self.set(f"bitcast {words} {shifted} to {llvm_type(wider, width)}")
        single = self.converted(number, wider, "f32", width)
        single = self.set(f"fmul {floats} {single}, {f(2.0 ** (bias - of.bias))}")
        code, nan = (magnitude, 0x7F) if of.has_negative_zero else (bits, 0x80)
        is_nan = self.set(f"icmp eq {words} {code}, {k(nan)}")
        mask = llvm_type("i1", width)
        return self.set(f"select {mask} {is_nan}, {floats} {f(float('nan'))}, {floats} {single}")

    def narrowed(self, op: Op, v: str, target: str, width: int | None) -> str:
        """Round float32 to the bits of bfloat16 or float8; leave everything else as it is."""
        if target in FLOAT8:
            return self.float8_narrowed(v, FLOAT8[target], width)
        if target.startswith("f8"):
            raise op.unsupported(f"rounding to {target}")
        return self.bfloat16_narrowed(v, width) if target == "bf16" else v

    def bfloat16_narrowed(self, v: str, width: int | None) -> str:
        """Round float32 to the bits of bfloat16; a NaN keeps its upper bits, and is quiet."""
        words, floats = llvm_type("i32", width), llvm_type("f32", width)
        bits = self.set(f"bitcast {floats} {v} to {words}")

        def k(n: int) -> str:
            return self.number(n, "i32", width)

        upper = self.set(f"lshr {words} {bits}, {k(16)}")
        odd = self.set(f"and {words} {upper}, {k(1)}")
        raised = self.set(f"add {words} {self.set(f'add {words} {bits}, {k(0x7FFF)}')}, {odd}")
        rounded = self.set(f"lshr {words} {raised}, {k(16)}")
        quiet = self.set(f"or {words} {upper}, {k(0x40)}")
        is_nan = self.set(f"fcmp uno {floats} {v}, {v}")
        mask = llvm_type("i1", width)
        chosen = self.set(f"select {mask} {is_nan}, {words} {quiet}, {words} {rounded}")
        return self.set(f"trunc {words} {chosen} to {llvm_type('bf16', width)}")

    def float8_narrowed(self, v: str, of: Float8, width: int | None) -> str:
        """Round float32 to the bits of float8; what is too large becomes the largest.

        Normal numbers are rounded as integers, at the last bit that stays. Below them, adding and
        subtracting a large number rounds to a multiple of the smallest one.
        """
        words, floats, mask = (llvm_type(e, width) for e in ("i32", "f32", "i1"))
        mantissa_bits, bias, largest, has_negative_zero = of
        cut, least = 23 - mantissa_bits, 2.0 ** (1 - bias - mantissa_bits)

        def k(n: int) -> str:
            return self.number(n, "i32", width)

        def f(x: float) -> str:
            return f"splat (float {float_literal(x)})" if width else float_literal(x)

        def word(opcode: str, a: str, b: str) -> str:
            return self.set(f"{opcode} {words} {a}, {b}")

        bits = self.set(f"bitcast {floats} {v} to {words}")
        magnitude = self.set(f"bitcast {words} {word('and', bits, k(0x7FFFFFFF))} to {floats}")
        too_large = self.set(f"fcmp ogt {floats} {magnitude}, {f(largest)}")
        x = self.set(f"select {mask} {too_large}, {floats} {f(largest)}, {floats} {magnitude}")
        whole = self.set(f"bitcast {floats} {x} to {words}")
        odd = word("and", word("lshr", whole, k(cut)), k(1))
        rounded = word("add", word("add", whole, k((1 << cut - 1) - 1)), odd)
        normal = word("sub", word("lshr", rounded, k(cut)), k(127 - bias << mantissa_bits))
        shifter = 1.5 * 2.0**23 * least
        sum_ = self.set(f"fadd {floats} {x}, {f(shifter)}")
        multiple = self.set(f"fsub {floats} {sum_}, {f(shifter)}")
        count = self.set(f"fmul {floats} {multiple}, {f(1 / least)}")
        safe = self.set(f"fcmp olt {floats} {x}, {f(2.0 ** (1 - bias))}")
        count = self.set(f"select {mask} {safe}, {floats} {count}, {floats} {f(0.0)}")
        subnormal = self.set(f"fptoui {floats} {count} to {words}")
        code = self.set(f"select {mask} {safe}, {words} {subnormal}, {words} {normal}")
        is_nan = self.set(f"fcmp uno {floats} {v}, {v}")
        code = word("or", code, word("and", word("lshr", bits, k(24)), k(0x80)))
        if not has_negative_zero:
            is_zero = self.set(f"icmp eq {words} {code}, {k(0x80)}")
            code = self.set(f"select {mask} {is_zero}, {words} {k(0)}, {words} {code}")
        nan = k(0x7F if has_negative_zero else 0x80)
        code = self.set(f"select {mask} {is_nan}, {words} {nan}, {words} {code}")
        return self.set(f"trunc {words} {code} to {llvm_type('i8', width)}")


def _wrapped(n: int, bits: int) -> int:
    """Return an integer as a two's complement of `bits` holds it."""
    half = 1 << bits - 1
    return (n + half) % (1 << bits) - half
