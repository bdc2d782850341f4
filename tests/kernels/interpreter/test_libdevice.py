"""libdevice: each symbol, its accuracy against mpmath, its edges, its roundings, its names."""

import inspect
import math
import re

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.language import load, store
from triton.language.extra import libdevice
from triton.language.extra.cuda import libdevice as cuda_libdevice
from triton.language.extra.cuda.libdevice import tanh as tanh_of_cuda
from triton.language.extra.libdevice import rsqrt as rsqrt_of_any_gpu
from triton.runtime.errors import InterpreterError

from gptwin.kernels.interpreter.libdevice.table import find

INF, NAN = math.inf, math.nan
DTYPES = {"fp32": np.float32, "fp64": np.float64}
SIGNATURE = re.compile(
    r"\(((?:\s*core\.dtype\(\"\w+\"\),?)+)\s*\):\s*\(\"(__nv_\w+)\",\s*core\.dtype\(\"(\w+)\"\)\)"
)
DTYPE = re.compile(r'dtype\("(\w+)"\)')


def call(symbol: str, *arrays: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):  # as in a launch
        return np.asarray(find(symbol)(*arrays))


def numpy_dtype(name: str) -> np.dtype:
    return np.dtype(DTYPES.get(name, name))


def test_every_symbol_of_tritons_libdevice_is_known() -> None:
    signatures = SIGNATURE.findall(inspect.getsource(cuda_libdevice))
    assert len(signatures) == 313
    for arguments, symbol, result in signatures:
        ones = [np.ones((2, 3), numpy_dtype(name)) for name in DTYPE.findall(arguments)]
        values = call(symbol, *ones).astype(numpy_dtype(result))
        assert values.shape == (2, 3) and (values == values[0, 0]).all(), symbol


# --- accuracy -------------------------------------------------------------------------------------

# Function: what mpmath has, and between which arguments. NVIDIA's bounds, in units in the last
# place (CUDA C++ programming guide, mathematical functions), where ours are above 2: in float64.
HALF_LINE, LINE = (1e-30, 1e30), (-1e30, 1e30)
REAL = {
    "sin": ("sin(x)", (-1e5, 1e5)), "cos": ("cos(x)", (-1e5, 1e5)), "tan": ("tan(x)", (-1e5, 1e5)),
    "sinpi": ("sinpi(x)", (-99, 99)), "cospi": ("cospi(x)", (-99, 99)),
    "asin": ("asin(x)", (-1, 1)), "acos": ("acos(x)", (-1, 1)), "atan": ("atan(x)", LINE),
    "sinh": ("sinh(x)", (-88, 88)), "cosh": ("cosh(x)", (-88, 88)), "tanh": ("tanh(x)", LINE),
    "asinh": ("asinh(x)", LINE), "acosh": ("acosh(x)", (1, 1e30)), "atanh": ("atanh(x)", (-1, 1)),
    "exp": ("exp(x)", (-100, 88)), "exp2": ("mpf(2) ** x", (-148, 127)),
    "exp10": ("mpf(10) ** x", (-44, 38)), "expm1": ("expm1(x)", (-80, 88)),
    "log": ("log(x)", HALF_LINE), "log2": ("log(x) / log(2)", HALF_LINE),
    "log10": ("log(x) / log(10)", HALF_LINE), "log1p": ("log(1 + x)", (-1, 1e30)),
    "cbrt": ("sign(x) * cbrt(fabs(x))", LINE), "rcbrt": ("sign(x) / cbrt(fabs(x))", LINE),
    "rsqrt": ("1 / sqrt(x)", HALF_LINE), "erf": ("erf(x)", LINE), "erfc": ("erfc(x)", (-5, 10)),
    "erfcx": ("erfc(x) * exp(x * x)", (-9, 1e10)), "erfinv": ("erfinv(x)", (-1, 1)),
    "normcdf": ("erfc(-x / sqrt(2)) / 2", (-14, 9)), "tgamma": ("gamma(x)", (-34, 34)),
    "lgamma": ("log(fabs(gamma(x)))", (-2, 1e10)),
    "j0": ("besselj(0, x)", (-8, 8)), "j1": ("besselj(1, x)", (-8, 8)),
    "y0": ("bessely(0, x)", (0.1, 8)), "y1": ("bessely(1, x)", (0.1, 8)),
    "cyl_bessel_i0": ("besseli(0, x)", (-80, 80)), "cyl_bessel_i1": ("besseli(1, x)", (-80, 80)),
}  # fmt: skip
NVIDIAS = {"erfcx": 4, "normcdf": 5, "tgamma": 10, "cyl_bessel_i0": 6, "cyl_bessel_i1": 6}


def arguments_between(low: float, high: float, dtype: type, n: int = 8) -> np.ndarray:
    """Numbers near 0, over the whole range, and of any size."""
    random = np.random.default_rng(0)
    sizes = 10.0 ** random.uniform(-30, 30, n) * random.choice([-1, 1], n)
    near = random.uniform(max(low, -3), min(high, 3), n)
    x = np.concatenate([near, random.uniform(low, high, n), sizes]).astype(dtype)
    return x[(x > low) & (x < high)]


def units_in_the_last_place(value, dtype: type):
    """The distance of numbers around a value, for mpmath."""
    info, mpmath = np.finfo(dtype), pytest.importorskip("mpmath")
    exponent = int(mpmath.floor(mpmath.log(abs(value), 2))) if value else info.minexp
    return mpmath.mpf(2) ** (max(exponent, info.minexp) - info.nmant)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", REAL)
def test_a_real_function_is_as_exact_as_promised(name: str, dtype: str) -> None:
    mpmath = pytest.importorskip("mpmath")
    formula, (low, high) = REAL[name]
    kind = DTYPES[dtype]
    x = arguments_between(low, high, kind)
    results = call(f"__nv_{name}" + ("f" if dtype == "fp32" else ""), x).astype(kind)
    bound = NVIDIAS.get(name, 2) if dtype == "fp64" else 0.51
    with mpmath.workdps(60):
        for argument, result in zip(x.tolist(), results.tolist(), strict=True):
            truth = mpmath.re(eval(formula, vars(mpmath), {"x": mpmath.mpf(argument)}))
            if abs(truth) <= float(np.finfo(kind).max):
                error = abs(mpmath.mpf(result) - truth) / units_in_the_last_place(truth, kind)
                assert error <= bound, (argument, result, truth)


@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_of_several_arguments(dtype: str) -> None:
    mpmath = pytest.importorskip("mpmath")
    kind, suffix = DTYPES[dtype], "f" if dtype == "fp32" else ""
    random = np.random.default_rng(1)
    a, b, c, d = (10.0 ** random.uniform(-5, 5, (4, 12))).astype(kind)
    n = random.integers(0, 9, 12).astype(np.int32)
    cases = {
        "pow": ((a, b / 1e5), lambda x, y: x**y), "powi": ((a, n), lambda x, n: x**n),
        "atan2": ((-a, b), mpmath.atan2), "hypot": ((a, b), mpmath.hypot),
        "rhypot": ((a, b), lambda x, y: 1 / mpmath.hypot(x, y)),
        "norm3d": ((a, b, c), lambda *x: mpmath.norm(x)),
        "rnorm3d": ((a, b, c), lambda *x: 1 / mpmath.norm(x)),
        "norm4d": ((a, b, c, d), lambda *x: mpmath.norm(x)),
        "rnorm4d": ((a, b, c, d), lambda *x: 1 / mpmath.norm(x)),
        "fmod": ((a, b), mpmath.fmod), "fma": ((a, b, -c), lambda x, y, z: x * y + z),
        "jn": ((n, a / 1e4), mpmath.besselj), "yn": ((n, 1 + a / 1e4), mpmath.bessely),
    }  # fmt: skip
    with mpmath.workdps(60):
        for name, (arrays, truth_of) in cases.items():
            results = call(f"__nv_{name}{suffix}", *arrays).astype(kind)
            for values in zip(*(x.tolist() for x in arrays), results.tolist(), strict=True):
                truth = truth_of(*map(mpmath.mpf, values[:-1]))
                error = abs(values[-1] - truth) / units_in_the_last_place(truth, kind)
                assert error <= 2, (name, values, truth)


@pytest.mark.parametrize("dtype", DTYPES)
def test_inverses_undo(dtype: str) -> None:
    """A probability, the tail's down to 1e-300, goes through quantile and back."""
    kind, suffix = DTYPES[dtype], "f" if dtype == "fp32" else ""
    exponents = np.linspace(-300 if dtype == "fp64" else -37, -1, 20)
    p = np.concatenate([10.0**exponents, np.linspace(0.1, 0.9, 9)]).astype(kind)
    quantile = call(f"__nv_normcdfinv{suffix}", p).astype(kind).astype(np.float64)
    # A relative change of the quantile q changes the tail by q^2 times as much.
    slack = np.finfo(kind).eps * (2 + 2 * quantile**2)
    np.testing.assert_array_less(np.abs(call("__nv_normcdf", quantile) / p - 1), slack)
    y = call(f"__nv_erfcinv{suffix}", p).astype(kind).astype(np.float64)
    slack = np.finfo(kind).eps * (2 + 4 * y**2)
    np.testing.assert_array_less(np.abs(call("__nv_erfc", y) / p - 1), slack)


# --- edges ----------------------------------------------------------------------------------------

# As the libdevice user's guide has them: function, arguments, result.
EDGES = [
    ("tanh", INF, 1.0), ("tanh", -0.0, -0.0), ("exp", -INF, 0.0), ("exp", 1000.0, INF),
    ("expm1", -0.0, -0.0), ("log", 0.0, -INF), ("log", -1.0, NAN), ("log1p", -1.0, -INF),
    ("log1p", -0.0, -0.0), ("log2", INF, INF), ("rsqrt", -0.0, -INF), ("rsqrt", INF, 0.0),
    ("sqrt", -0.0, -0.0), ("cbrt", -INF, -INF), ("rcbrt", -0.0, -INF), ("atanh", 1.0, INF),
    ("acosh", 0.5, NAN), ("asin", 2.0, NAN), ("sin", INF, NAN), ("sinpi", INF, NAN),
    ("sinpi", 3.0, 0.0), ("sinpi", -3.0, -0.0), ("cospi", 0.5, 0.0), ("cospi", 1e300, 1.0),
    ("erf", -INF, -1.0), ("erf", -0.0, -0.0), ("erfc", -INF, 2.0), ("erfc", INF, 0.0),
    ("erfcx", -INF, INF), ("erfcx", INF, 0.0), ("erfcx", NAN, NAN), ("erfinv", 1.0, INF),
    ("erfinv", -0.0, -0.0), ("erfinv", 1.5, NAN), ("erfcinv", 0.0, INF), ("erfcinv", 2.0, -INF),
    ("erfcinv", -1.0, NAN), ("normcdf", -INF, 0.0), ("normcdf", INF, 1.0), ("normcdf", NAN, NAN),
    ("normcdfinv", 0.0, -INF), ("normcdfinv", 1.0, INF), ("normcdfinv", 2.0, NAN),
    ("tgamma", -0.0, -INF), ("tgamma", -2.0, NAN), ("tgamma", -INF, NAN), ("lgamma", -2.0, INF),
    ("lgamma", -INF, INF), ("lgamma", 1.0, 0.0), ("j0", INF, 0.0), ("y0", 0.0, -INF),
    ("y0", -1.0, NAN), ("y1", 0.0, -INF), ("cyl_bessel_i0", -INF, INF),
    ("cyl_bessel_i1", -INF, -INF),
    ("round", 0.49999999999999994, 0.0), ("round", 2.5, 3.0), ("round", -0.5, -1.0),
    ("round", -0.25, -0.0), ("rint", 2.5, 2.0), ("nearbyint", -0.5, -0.0), ("logb", 0.0, -INF),
    ("logb", -INF, INF), ("logb", 5e-324, -1074.0), ("ilogb", 0.0, -(2**31)),
    ("ilogb", INF, 2**31 - 1), ("llrint", 0.5, 0), ("llround", -2.5, -3),
    ("llrint", 1e300, 2**63 - 1),
    ("saturatef", NAN, 0.0), ("saturatef", 7.0, 1.0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "argument", "expected"), EDGES)
def test_edges(name: str, argument: float, expected: float) -> None:
    result = call(f"__nv_{name}", np.array([argument]))[0]
    assert same(result, expected), result


def same(result: float, expected: float) -> bool:
    if math.isnan(expected):
        return math.isnan(result)
    return result == expected and math.copysign(1, result) == math.copysign(1, expected)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("pow", (-8.0, 1 / 3), NAN), ("pow", (NAN, 0.0), 1.0), ("pow", (-0.0, -1.0), -INF),
        ("fast_powf", (0.0, 0.0), NAN), ("fast_powf", (-2.0, 2.0), NAN),
        ("fast_fdividef", (1.0, 2.0**127), 0.0), ("fast_fdividef", (INF, 2.0**127), NAN),
        ("hypot", (INF, NAN), INF), ("hypot", (1e308, 1e308), 1.4142135623730951e308),
        ("rhypot", (3e-320, 4e-320), INF), ("norm3d", (3e-310, 0.0, 4e-310), 5e-310),
        ("fmod", (5.0, INF), 5.0), ("fmod", (1.0, 0.0), NAN), ("remainder", (5.0, 2.0), 1.0),
        ("remainder", (7.0, 2.0), -1.0), ("remainder", (INF, 2.0), NAN), ("fdim", (1.0, 2.0), 0.0),
        ("fdim", (NAN, 2.0), NAN), ("copysign", (3.0, -0.0), -3.0),
        ("nextafter", (0.0, -1.0), -5e-324),
    ],
)  # fmt: skip
def test_edges_of_several_arguments(
    name: str, arguments: tuple[float, ...], expected: float
) -> None:
    result = call(f"__nv_{name}", *(np.array([x]) for x in arguments))[0]
    assert same(result, expected), result


# --- rounding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["f", "d"])
def test_directed_roundings_enclose_the_exact_result(letter: str) -> None:
    kind = np.float32 if letter == "f" else np.float64
    random = np.random.default_rng(2)
    a, b = (random.standard_normal((2, 50)) * 10.0 ** random.integers(-6, 6, (2, 50))).astype(kind)
    for operation, of_numpy in {"add": np.add, "sub": np.subtract, "mul": np.multiply,
                                "div": np.divide}.items():  # fmt: skip
        rn, rz, rd, ru = (
            call(f"__nv_{letter}{operation}_{m}", a, b) for m in ("rn", "rz", "rd", "ru")
        )
        assert np.array_equal(rn, of_numpy(a, b))
        exact = (rd == ru) & (rn == rd)
        assert np.array_equal(np.nextafter(rd, kind(INF))[~exact], ru[~exact])
        assert ((rn == rd) | (rn == ru)).all() and exact.sum() < 25
        assert np.array_equal(rz, np.where(rn > 0, rd, ru))
    positive = np.abs(a)
    rd, ru = (call(f"__nv_{letter}sqrt_{m}", positive) for m in ("rd", "ru"))
    assert (
        (rd.astype(np.longdouble) ** 2 <= positive) & (positive <= ru.astype(np.longdouble) ** 2)
    ).all()


def test_roundings_of_edges() -> None:
    def one(symbol: str, *arguments: float) -> float:
        return call(f"__nv_{symbol}", *(np.array([x]) for x in arguments))[0]

    assert one("dmul_rz", 1e200, 1e200) == np.finfo(np.float64).max == one("dmul_rd", 1e200, 1e200)
    assert one("dmul_ru", 1e200, 1e200) == INF == one("dmul_rn", 1e200, 1e200)
    assert same(one("dsub_rd", 1.0, 1.0), -0.0) and same(one("dsub_rn", 1.0, 1.0), 0.0)
    assert same(one("dadd_rd", 0.0, 0.0), 0.0)
    assert same(one("dmul_ru", -1e-200, 1e-200), -0.0)
    assert one("dmul_rd", -1e-200, 1e-200) == -5e-324
    assert one("ddiv_rd", -1.0, 0.0) == -INF and math.isnan(one("ddiv_rd", 0.0, 0.0))
    assert one("drcp_ru", 3.0) == np.nextafter(one("drcp_rd", 3.0), 1)
    # 1 + 2^-24 + 2^-60 lies just above the middle of two float32: float64 would round it to even.
    assert one("double2float_rn", 1 + 2.0**-24 + 2.0**-50) == np.float32(1 + 2.0**-23)
    middle = np.array([1 + 2.0**-12], np.float32)
    fused = call("__nv_fmaf_rn", middle, middle, np.array([2.0**-60], np.float32))[0]
    assert fused == np.float32(1 + 2.0**-11 + 2.0**-23)
    assert call("__nv_ll2float_rd", np.array([2**62 - 1]))[0] < 2**62
    assert call("__nv_ll2float_rn", np.array([2**62 - 1]))[0] == 2**62


# --- integers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("clz", (1,), 31), ("clz", (0,), 32), ("clz", (-1,), 0), ("ffs", (8,), 4), ("ffs", (0,), 0),
        ("ffs", (-(2**31),), 32), ("popc", (-1,), 32), ("popc", (6,), 2), ("brev", (1,), -(2**31)),
        ("brev", (0b1011,), -0x30000000),
        ("byte_perm", (0x33221100, 0x77665544, 0x7531), 0x77553311),
        ("mulhi", (-(2**31), 2), -1), ("mulhi", (2**30, 8), 2), ("mul24", (0x7FFFFF, 2), 0xFFFFFE),
        ("mul24", (0xFFFFFF, 3), -3), ("sad", (3, -4, 10), 17),
        ("hadd", (2**31 - 1, 2**31 - 3), 2**31 - 2),
        ("hadd", (-3, 0), -2), ("rhadd", (-3, 0), -1), ("abs", (-5,), 5),
    ],
)  # fmt: skip
def test_integers(name: str, arguments: tuple[int, ...], expected: int) -> None:
    arrays = (np.array([x], np.int32) for x in arguments)
    assert call(f"__nv_{name}", *arrays)[0] == expected


def test_wide_integers_and_bits() -> None:
    def one(symbol: str, value: object) -> int:
        return int(call(f"__nv_{symbol}", np.array([value]))[0])

    assert one("clzll", 1) == 63 and one("popcll", -1) == 64 and one("ffsll", 2**40) == 41
    assert one("brevll", 1) == -(2**63)
    assert int(call("__nv_mul64hi", np.array([2**62]), np.array([8]))[0]) == 2
    assert one("double2hiint", 1.0) == 0x3FF00000 and one("double2loint", 1.0) == 0
    high, low = np.array([0x3FF00000], np.int32), np.array([1], np.int32)
    assert call("__nv_hiloint2double", high, low)[0] == np.nextafter(1.0, 2)
    assert call("__nv_float_as_int", np.float32([1.0]))[0] == 0x3F800000
    # To an integer: rounded as named, clamped, and NaN as PTX has it.
    assert one("double2int_rz", -2.7) == -2 and one("double2int_rd", -2.1) == -3
    assert one("double2int_rn", 2.5) == 2 and one("double2int_ru", 1e10) == 2**31 - 1
    assert one("double2uint_rn", -5.0) == 0 and one("double2uint_rz", 1e10) == 2**32 - 1
    assert one("double2ull_rz", 1e30) == 2**64 - 1 and one("double2int_rn", NAN) == -(2**31)
    assert call("__nv_float2int_rn", np.float32([NAN]))[0] == 0
    assert call("__nv_float2ll_rn", np.float32([NAN]))[0] == -(2**63)


# --- in a kernel ----------------------------------------------------------------------------------

cast = tl.cast


@triton.jit
def by_any_name_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = load(x_ptr + at)
    y = tanh_of_cuda(x) + libdevice.pow(x, 2.0) + rsqrt_of_any_gpu(x) + cast(at, tl.float32)
    y += tl.where(tl.extra.cuda.libdevice.isnan(x), 1000.0, libdevice.llrint(x))
    store(y_ptr + at, y)


def test_a_kernel_has_libdevice_and_the_language_by_any_name() -> None:
    x, y = torch.linspace(0.1, 3.0, 8), torch.empty(8)
    by_any_name_kernel[(1,)](x, y, BLOCK=8)
    expected = torch.tanh(x) + x**2 + 1 / torch.sqrt(x) + torch.arange(8) + torch.round(x)
    torch.testing.assert_close(y, expected)


@triton.jit
def careless_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < 2)
    tl.store(y_ptr + at, libdevice.saturatef(x))


def test_an_undefined_lane_stays_undefined() -> None:
    y = torch.empty(4)
    careless_kernel[(1,)](torch.ones(4), y, BLOCK=4)
    assert y[:2].tolist() == [1, 1] and y[2:].isnan().all()  # saturatef makes 0 of any other NaN


@triton.jit
def amds_kernel(x_ptr):
    tl.store(x_ptr, libdevice.fast_tanhf(tl.load(x_ptr)))


@triton.jit
def own_library_kernel(x_ptr):
    x = tl.load(x_ptr)
    y = tl.core.extern_elementwise(
        "mine", "", [x], {(tl.float32,): ("mine", tl.float32)}, is_pure=True
    )
    tl.store(x_ptr, y)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [(amds_kernel, "got fast_tanhf.*:{}"), (own_library_kernel, "got mine.*:{}")],
)
def test_a_missing_function_is_named_with_its_line(kernel, message: str) -> None:
    lines, first = inspect.getsourcelines(kernel.fn)
    line = first + next(i for i, text in enumerate(lines) if "fast_" in text or "extern" in text)
    with pytest.raises(InterpreterError, match=message.format(line)):
        kernel[(1,)](torch.ones(1))


@triton.jit
def math_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    tl.store(y_ptr + 0 * BLOCK + at, tl.exp(x))
    tl.store(y_ptr + 1 * BLOCK + at, tl.math.exp2(x))
    tl.store(y_ptr + 2 * BLOCK + at, tl.log(x))
    tl.store(y_ptr + 3 * BLOCK + at, tl.math.log2(x))
    tl.store(y_ptr + 4 * BLOCK + at, tl.sin(x))
    tl.store(y_ptr + 5 * BLOCK + at, tl.cos(x))
    tl.store(y_ptr + 6 * BLOCK + at, tl.math.sqrt(x))
    tl.store(y_ptr + 7 * BLOCK + at, tl.math.rsqrt(x))
    tl.store(y_ptr + 8 * BLOCK + at, tl.math.erf(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_languages_own_functions_are_as_exact(dtype: torch.dtype) -> None:
    x = torch.linspace(0.01, 20, 256, dtype=dtype)
    y = torch.empty(9, 256, dtype=dtype)
    math_kernel[(1,)](x, y, BLOCK=256)
    names = ["exp", "exp2", "log", "log2", "sin", "cos", "sqrt", "rsqrt", "erf"]
    for name, result in zip(names, y, strict=True):
        exact = torch.from_numpy(call(f"__nv_{name}", x.numpy().astype(np.float64)))
        unit = torch.finfo(dtype).eps * exact.abs()
        assert ((result.double() - exact).abs() <= 4 * unit).all(), name
