"""exp2, log2, erf, tanh ... in float32 as vector code: LLVM has none of its own.

Each function takes a `Math`, which writes instructions, and its argument. The worst errors, over
all floats, are held by tests/kernels/native/test_functions.py.
"""

from typing import TYPE_CHECKING

from .writer import float_literal, llvm_type

if TYPE_CHECKING:
    from .arithmetic import Arithmetic


class Math:
    """Writes instructions on float32 numbers and 32-bit words of one width."""

    def __init__(self, writer: "Arithmetic", width: int | None) -> None:
        self.writer, self.width = writer, width
        self.floats, self.words = llvm_type("f32", width), llvm_type("i32", width)

    def k(self, value: float) -> str:
        """Write a constant."""
        word = float_literal(value)
        return f"splat (float {word})" if self.width else word

    def n(self, value: int) -> str:
        """Write a constant word."""
        return self.writer.number(value, "i32", self.width)

    def op(self, opcode: str, a: str, b: str) -> str:
        """Write an operation on floats."""
        return self.writer.set(f"{opcode} {self.floats} {a}, {b}")

    def word(self, opcode: str, a: str, b: str) -> str:
        """Write an operation on words."""
        return self.writer.set(f"{opcode} {self.words} {a}, {b}")

    def of(self, intrinsic: str, *operands: str) -> str:
        """Call one of LLVM's functions."""
        return self.writer.intrinsic(intrinsic, "f32", self.width, list(operands))

    def bits(self, a: str) -> str:
        """Read a float as a word."""
        return self.writer.set(f"bitcast {self.floats} {a} to {self.words}")

    def as_float(self, a: str) -> str:
        """Read a word as a float."""
        return self.writer.set(f"bitcast {self.words} {a} to {self.floats}")

    def where(self, predicate: str, a: str, b: str, yes: str, no: str) -> str:
        """Choose between two floats by a comparison."""
        test = self.writer.set(f"fcmp {predicate} {self.floats} {a}, {b}")
        mask = llvm_type("i1", self.width)
        return self.writer.set(f"select {mask} {test}, {self.floats} {yes}, {self.floats} {no}")

    def polynomial(self, x: str, coefficients: list[float]) -> str:
        """Evaluate by Horner's rule, the highest power first."""
        result = self.k(coefficients[0])
        for c in coefficients[1:]:
            result = self.of("fma", result, x, self.k(c))
        return result


ROUND = 1.5 * 2**23  # added to a float, it leaves the nearest integer in the low bits
# 2^f on [-1/2, 1/2] and e^f on [-ln 2 / 2, ln 2 / 2]: minimax by Remez, then rounded
EXP2 = [1.5353362e-4, 1.3398875e-3, 9.6184369e-3, 5.5503324e-2, 2.4022648e-1, 6.9314718e-1, 1.0]
EXP = [1.3843644e-3, 8.3741629e-3, 4.1668002e-2, 1.6666432e-1, 4.9999994e-1, 1.0, 1.0]
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4


def exp2(m: Math, x: str) -> str:
    """2^x = 2^n 2^f with an integer n and |f| <= 1/2."""
    x = m.where("ogt", x, m.k(129.0), m.k(129.0), x)
    x = m.where("olt", x, m.k(-151.0), m.k(-151.0), x)
    rounded = m.op("fadd", x, m.k(ROUND))
    f = m.op("fsub", x, m.op("fsub", rounded, m.k(ROUND)))
    return _times_power(m, m.polynomial(f, EXP2), rounded)


def exp(m: Math, x: str) -> str:
    """e^x = 2^n e^f with f = x - n ln 2, the latter in two parts."""
    x = m.where("ogt", x, m.k(89.5), m.k(89.5), x)
    x = m.where("olt", x, m.k(-105.0), m.k(-105.0), x)
    rounded = m.of("fma", x, m.k(1.44269504), m.k(ROUND))
    n = m.op("fsub", rounded, m.k(ROUND))
    f = m.of("fma", n, m.k(-LN2_HIGH), x)
    f = m.of("fma", n, m.k(-LN2_LOW), f)
    return _times_power(m, m.polynomial(f, EXP), rounded)


def _times_power(m: Math, p: str, rounded: str) -> str:
    """Multiply by 2^n in two steps, so that denormal results are right."""
    n = m.word("sub", m.bits(rounded), m.n(0x4B400000))
    half = m.word("ashr", n, m.n(1))
    for part in (half, m.word("sub", n, half)):
        power = m.as_float(m.word("shl", m.word("add", part, m.n(127)), m.n(23)))
        p = m.op("fmul", p, power)
    return p


# log(1 + z) = z - z^2 / 2 + z^3 P(z) on [sqrt(1/2) - 1, sqrt(2) - 1] (Cephes, logf)
LOG = [
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
]  # fmt: skip


def _log_parts(m: Math, x: str) -> tuple[str, str, str]:
    """Split x = 2^e (1 + z); return e, z and log(1 + z) - z."""
    scaled = m.op("fmul", x, m.k(2.0**25))
    normal = m.where("olt", x, m.k(2.0**-126), scaled, x)
    shift = m.where("olt", x, m.k(2.0**-126), m.k(25.0), m.k(0.0))
    bits = m.word("sub", m.bits(normal), m.n(0x3F3504F3))  # of sqrt(1/2)
    exponent = m.word("ashr", bits, m.n(23))
    mantissa = m.word("add", m.word("and", bits, m.n(0x7FFFFF)), m.n(0x3F3504F3))
    e = m.op("fsub", m.writer.set(f"sitofp {m.words} {exponent} to {m.floats}"), shift)
    z = m.op("fsub", m.as_float(mantissa), m.k(1.0))
    square = m.op("fmul", z, z)
    cubic = m.op("fmul", m.op("fmul", z, square), m.polynomial(z, LOG))
    return e, z, m.of("fma", square, m.k(-0.5), cubic)


def _log_ends(m: Math, x: str, result: str) -> str:
    """Give a logarithm its values at 0, infinity, below 0 and for NaN."""
    result = m.where("oeq", x, m.k(float("inf")), x, result)
    result = m.where("oeq", x, m.k(0.0), m.k(float("-inf")), result)
    return m.where("ult", x, m.k(0.0), m.k(float("nan")), result)


def log2(m: Math, x: str) -> str:
    """log2 x = e + log(1 + z) log2 e."""
    e, z, y = _log_parts(m, x)
    excess = m.k(0.44269504088896340735992)  # log2(e) - 1
    result = m.of("fma", z, excess, m.op("fmul", y, excess))
    result = m.op("fadd", m.op("fadd", result, y), z)
    return _log_ends(m, x, m.op("fadd", result, e))


def log(m: Math, x: str) -> str:
    """Log x = e ln 2 + log(1 + z)."""
    e, z, y = _log_parts(m, x)
    result = m.op("fadd", m.of("fma", e, m.k(LN2_LOW), y), z)
    return _log_ends(m, x, m.of("fma", e, m.k(LN2_HIGH), result))


# erf: a polynomial near 0, 1 - exp(a polynomial) farther out
ERF_NEAR = [
    -5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1,
]  # fmt: skip
ERF_FAR = [-1.06777877e-1, -6.34846687e-1, -1.28717512e-1]


def erf(m: Math, x: str) -> str:
    """Write the error function."""
    t = m.of("fabs", x)
    near = m.of("fma", m.polynomial(m.op("fmul", x, x), ERF_NEAR), x, x)
    capped = m.where("ogt", t, m.k(4.0), m.k(4.0), t)
    square = m.op("fmul", capped, capped)
    r = m.of("fma", m.k(-1.72853470e-5), capped, m.k(3.83197126e-4))
    u = m.of("fma", m.k(-3.88396438e-3), capped, m.k(2.42546219e-2))
    r = m.of("fma", r, square, u)
    for c in ERF_FAR:
        r = m.of("fma", r, capped, m.k(c))
    r = m.of("fma", r, capped, m.writer.set(f"fneg {m.floats} {capped}"))
    far = m.of("copysign", m.op("fsub", m.k(1.0), exp(m, r)), x)
    return m.where("ogt", t, m.k(0.927734375), far, near)


# tanh x = x + x^3 P(x^2) for |x| < 0.625 (Cephes, tanhf)
TANH_NEAR = [
    -5.70498872745e-3,
    2.06390887954e-2,
    -5.37397155531e-2,
    1.33314422036e-1,
    -3.33332819422e-1,
]


def tanh(m: Math, x: str) -> str:
    """Write tanh: a polynomial near 0, 1 - 2 / (e^2|x| + 1) farther out."""
    t = m.of("fabs", x)
    square = m.op("fmul", x, x)
    cubic = m.op("fmul", m.op("fmul", m.polynomial(square, TANH_NEAR), square), x)
    near = m.op("fadd", cubic, x)
    power = exp(m, m.op("fadd", t, t))
    ratio = m.op("fdiv", m.k(2.0), m.op("fadd", power, m.k(1.0)))
    far = m.of("copysign", m.op("fsub", m.k(1.0), ratio), x)
    return m.where("ult", t, m.k(0.625), near, far)


def rsqrt(m: Math, x: str) -> str:
    """1 / sqrt x."""
    return m.op("fdiv", m.k(1.0), m.of("sqrt", x))
