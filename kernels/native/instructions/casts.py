"""Conversions between the types, rounded as a GPU rounds: to nearest, ties to even.

bfloat16 and float8 are held as their bits. bfloat16 is computed in float32 and rounded once.
"""

from .ttir import BITS, Op
from .writer import Writer, bits_literal, float_literal, literal, llvm_type

CASTS = {
    "arith.extsi", "arith.extui", "arith.trunci", "arith.index_cast", "arith.index_castui",
    "arith.sitofp", "arith.uitofp", "arith.fptosi", "arith.fptoui", "arith.extf", "arith.truncf",
    "arith.bitcast", "tt.bitcast", "tt.ptr_to_int", "tt.int_to_ptr", "tt.fp_to_fp",
}  # fmt: skip
# Mantissa bits, bias of the exponent, largest number.
FLOAT8 = {"f8E5M2": (2, 15, 57344.0), "f8E4M3FN": (3, 7, 448.0)}
_SAME_BITS = ("arith.bitcast", "tt.bitcast", "tt.ptr_to_int", "tt.int_to_ptr")
_INTEGER = ("arith.extsi", "arith.extui", "arith.trunci", "arith.index_cast", "arith.index_castui")
_FLOAT = ("arith.extf", "arith.truncf", "tt.fp_to_fp")


def computed_in(element: str) -> str:
    """Name the type in which a type's arithmetic is done."""
    return "f32" if element == "bf16" or element.startswith("f8") else element


class Casts(Writer):
    """Writes conversions of scalars (`width` None) and of vectors."""

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
            if "rounding = rtz" in op.text:
                raise op.unsupported("rounding towards zero")
            return self.refloated(op, v, source, target, width)
        if name in ("arith.sitofp", "arith.uitofp"):
            wide = computed_in(target)
            result = self.set(f"{name[6:]} {a} {v} to {llvm_type(wide, width)}")
            return self.narrowed(op, result, target, width)
        # To integers: beyond their range, the last one there is, as on a GPU.
        wide, lanes = computed_in(source), f"v{width}" if width else ""
        intrinsic, floats = (
            f"llvm.{name[6:]}.sat.{lanes}{target}.{lanes}{wide}",
            llvm_type(wide, width),
        )
        x = self.widened(v, source, width)
        result = self.call(b, intrinsic, (floats, x))
        if target != "i64":  # NaN becomes 0
            return result
        least = self.number(-(2**63), target, width)
        is_nan = self.set(f"fcmp uno {floats} {x}, {x}")
        return self.set(f"select {llvm_type('i1', width)} {is_nan}, {b} {least}, {b} {result}")

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
        v = self.converted(self.widened(v, source, width), middle, wide, width)
        return self.narrowed(op, v, target, width)

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
        if element == "f8E4M3FN":
            return self.e4m3_widened(v, width)
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

    def e4m3_widened(self, v: str, width: int | None) -> str:
        """Read exponent and mantissa as those of a float16, whose bias is larger by 8."""
        words, halves = llvm_type("i16", width), llvm_type("f16", width)

        def k(n: int) -> str:
            return self.number(n, "i16", width)

        bits = self.set(f"zext {llvm_type('i8', width)} {v} to {words}")
        magnitude = self.set(f"and {words} {bits}, {k(0x7F)}")
        sign = self.set(f"shl {words} {self.set(f'and {words} {bits}, {k(0x80)}')}, {k(8)}")
        shifted = self.set(f"or {words} {self.set(f'shl {words} {magnitude}, {k(7)}')}, {sign}")
        half = self.set(f"bitcast {words} {shifted} to {halves}")
        single = self.converted(half, "f16", "f32", width)
        scale = bits_literal(0x43800000, "f32")  # 2^8
        scale = f"splat (float {scale})" if width else scale
        single = self.set(f"fmul {llvm_type('f32', width)} {single}, {scale}")
        nan = bits_literal(0x7FC00000, "f32")
        nan = f"splat (float {nan})" if width else nan
        is_nan = self.set(f"icmp eq {words} {magnitude}, {k(0x7F)}")
        floats = llvm_type("f32", width)
        return self.set(
            f"select {llvm_type('i1', width)} {is_nan}, {floats} {nan}, {floats} {single}"
        )

    def narrowed(self, op: Op, v: str, target: str, width: int | None) -> str:
        """Round float32 to the bits of bfloat16; leave everything else as it is."""
        if target in FLOAT8:
            return self.float8_narrowed(v, *FLOAT8[target], width)
        if target.startswith("f8"):
            raise op.unsupported(f"rounding to {target}")
        if target != "bf16":
            return v
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

    def float8_narrowed(
        self, v: str, mantissa_bits: int, bias: int, largest: float, width: int | None
    ) -> str:
        """Round float32 to the bits of float8: NaN to 0x7F, what is too large to the largest.

        Normal numbers are rounded as integers, at the last bit that stays. Below them, adding and
        subtracting a large number rounds to a multiple of the smallest one.
        """
        words, floats, mask = (llvm_type(e, width) for e in ("i32", "f32", "i1"))
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
        code = self.set(f"select {mask} {is_nan}, {words} {k(0x7F)}, {words} {code}")
        return self.set(f"trunc {words} {code} to {llvm_type('i8', width)}")


def _wrapped(n: int, bits: int) -> int:
    """Return an integer as a two's complement of `bits` holds it."""
    half = 1 << bits - 1
    return (n + half) % (1 << bits) - half
