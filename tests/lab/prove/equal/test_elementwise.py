# ruff: noqa: E501
"""Each entry of the evaluator's tables means what TTIR says; another function in its place shows."""

import inspect
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gptwin.kernels.native.instructions.ttir import parse
from gptwin.lab.prove.equal.algebra import functions as f
from gptwin.lab.prove.equal.algebra import number as n
from gptwin.lab.prove.equal.algebra.array import shadow
from gptwin.lab.prove.equal.evaluation import elementwise

# Pairs of bits, signed ones of 8 bits; no divisor is 0, no shift is too far.
BITS = [(7, 3), (-7, 3), (7, -3), (-128, 5), (100, 60), (-1, 1), (5, 5), (0, 2), (-100, 7), (33, 4)]


def wrapped(value: int) -> int:
    return (value + 128) % 256 - 128


def unsigned(value: int) -> int:
    return value % 256


def towards_0(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def on_unsigned(function: Callable[[int, int], int]) -> Callable[[int, int], int]:
    return lambda a, b: function(unsigned(a), unsigned(b))


INTEGERS: dict[str, Callable[[int, int], int]] = {
    "arith.addi": operator.add, "arith.subi": operator.sub, "arith.muli": operator.mul,
    "arith.andi": operator.and_, "arith.ori": operator.or_, "arith.xori": operator.xor,
    "arith.maxsi": max, "arith.minsi": min, "arith.maxui": on_unsigned(max),
    "arith.minui": on_unsigned(min), "arith.divsi": towards_0,
    "arith.remsi": lambda a, b: a - towards_0(a, b) * b, "arith.floordivsi": operator.floordiv,
    "arith.divui": on_unsigned(operator.floordiv), "arith.remui": on_unsigned(operator.mod),
    "arith.shli": lambda a, b: a << (b & 7), "arith.shrsi": lambda a, b: a >> (b & 7),
    "arith.shrui": lambda a, b: unsigned(a) >> (b & 7),
    "tt.mulhiui": on_unsigned(lambda a, b: a * b >> 8),
}  # fmt: skip

FLOATS: dict[str, Callable[..., Any]] = {
    "arith.addf": lambda a, b: a + b, "arith.subf": lambda a, b: a + b * -1,
    "arith.mulf": lambda a, b: a * b, "arith.divf": lambda a, b: a * (1 / b),
    "tt.precise_divf": lambda a, b: a * (1 / b), "arith.negf": lambda a: a * -1,
    "math.absf": lambda a: n.maximum(a, -a), "math.fma": lambda a, b, c: c + b * a,
    "math.exp": f.exp, "math.exp2": lambda a: f.exp(a, base_2=True), "math.log": f.log,
    "math.log2": lambda a: f.log(a, base_2=True), "math.sqrt": f.sqrt, "tt.precise_sqrt": f.sqrt,
    "math.rsqrt": lambda a: 1 / f.sqrt(a), "math.erf": f.erf, "math.tanh": f.tanh,
    "math.floor": lambda a: n.lift(np.floor(a.x).astype(int)),
    "math.ceil": lambda a: n.lift(np.ceil(a.x).astype(int)),
    "arith.extf": lambda a: a + 0, "arith.truncf": lambda a: a + 0, "tt.fp_to_fp": lambda a: a + 0,
    "arith.maxnumf": n.maximum, "arith.maximumf": n.maximum,
    "arith.minnumf": n.minimum, "arith.minimumf": n.minimum,
}  # fmt: skip

LIBRARY: dict[str, Callable[..., Any]] = {
    "tanh": f.tanh, "erf": f.erf, "exp": f.exp, "log": f.log, "sqrt": f.sqrt,
    "log1p": lambda a: f.log(1 + a), "expm1": lambda a: f.exp(a) + -1,
    "rsqrt": lambda a: 1 / f.sqrt(a), "exp2": lambda a: f.exp(a, base_2=True),
    "log2": lambda a: f.log(a, base_2=True), "fabs": abs, "fma": lambda a, b, c: c + b * a,
    "fast_expf": f.exp, "fast_logf": f.log, "fast_dividef": lambda a, b: a * (1 / b),
    "div_rn": lambda a, b: a * (1 / b),
    **{name: lambda a, r=r: n.lift(r(a.x).astype(int)) for name, r in (
        ("rint", np.rint), ("nearbyint", np.rint), ("floor", np.floor), ("ceil", np.ceil),
        ("trunc", np.trunc), ("round", np.round),
    )},
}  # fmt: skip


def check_integers(
    entry: Callable[..., Any], expected: Callable[[int, int], int], name: str
) -> None:
    a, b = (np.array(values, np.int8) for values in zip(*BITS, strict=True))
    if "sh" in name:
        b = b & 7
    with np.errstate(all="ignore"):
        got = np.asarray(entry(a, b))
    assert got.dtype == np.int8
    assert got.tolist() == [
        wrapped(expected(x, y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)
    ]


def n_values(function: Callable[..., Any]) -> int:
    """Count a function's arguments, without those that it need not be given."""
    if function is abs:
        return 1
    return len([p for p in inspect.signature(function).parameters.values() if p.default is p.empty])


def check_floats(entry: Callable[..., Any], expected: Callable[..., Any]) -> None:
    n.begin(5)
    draw = np.random.default_rng(0)
    whole = draw.integers(1, 9, 40) + draw.uniform(0.1, 0.4, 40) + 0.5 * (draw.random(40) < 0.5)
    shadows = whole, draw.uniform(0.5, 8, 40), draw.normal(size=40)
    values = [n.variable(x) for x in shadows[: n_values(expected)]]
    got, wanted = n.lift(entry(*values)), n.lift(expected(*values))
    assert not n.disagreements(got, wanted).any()
    assert np.allclose(got.x, wanted.x)


def entries() -> list[tuple[str, Callable[..., Any]]]:
    pure = [("PURE", name) for name in elementwise.PURE]
    return [*pure, *(("EXTREMES", k) for k in elementwise.EXTREMES),
            *(("LIBDEVICE", k) for k in elementwise.LIBDEVICE)]  # fmt: skip


def check_entry(table: str, name: str, entry: Callable[..., Any]) -> None:
    if table == "PURE" and name in INTEGERS:
        check_integers(entry, INTEGERS[name], name)
    elif name == "math.absi":
        assert entry(np.array([-3, 4], np.int32)).tolist() == [3, 4]
    else:
        check_floats(entry, (LIBRARY if table == "LIBDEVICE" else FLOATS)[name])


@pytest.mark.parametrize(("table", "name"), entries())
def test_an_entry_means_what_its_name_says(table: str, name: str) -> None:
    check_entry(table, name, getattr(elementwise, table)[name])


@pytest.mark.parametrize(("table", "name"), entries())
def test_another_function_in_an_entry_s_place_is_noticed(table: str, name: str) -> None:
    own = getattr(elementwise, table)[name]
    wrong = {
        "math.floor": elementwise.PURE["math.ceil"],
        "math.ceil": elementwise.PURE["math.floor"],
    }.get(name, lambda *values: own(*values) + own(*values))
    with pytest.raises(AssertionError):
        check_entry(table, name, wrong)


PREDICATES = {
    "eq": operator.eq, "ne": operator.ne, "slt": operator.lt, "sle": operator.le,
    "sgt": operator.gt, "sge": operator.ge, "ult": on_unsigned(operator.lt),
    "ule": on_unsigned(operator.le), "ugt": on_unsigned(operator.gt),
    "uge": on_unsigned(operator.ge),
}  # fmt: skip


@pytest.mark.parametrize("how", PREDICATES)
def test_integers_are_compared(how: str) -> None:
    a, b = (np.array(values, np.int8) for values in zip(*BITS, strict=True))
    got = elementwise.compare_integers(how, a, b)
    assert got.tolist() == [PREDICATES[how](x, y) for x, y in BITS]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("oeq", [False, True, False, False]), ("one", [True, False, True, False]),
        ("olt", [True, False, False, False]), ("ole", [True, True, False, False]),
        ("ogt", [False, False, True, False]), ("oge", [False, True, True, False]),
        ("ueq", [False, True, False, True]), ("une", [True, False, True, True]),
        ("ult", [True, False, False, True]), ("uge", [False, True, True, True]),
        ("ord", [True, True, True, False]), ("uno", [False, False, False, True]),
    ],
)  # fmt: skip
def test_numbers_are_compared_by_their_shadows(how: str, expected: list[bool]) -> None:
    a, b = (n.lift(np.array(v)) for v in ([1.0, 2.0, 3.0, np.nan], [2.0, 2.0, 2.0, 2.0]))
    assert elementwise.compare_numbers(how, a, b).tolist() == expected


CONSTANTS = {
    "arith.constant 3 : i32": 3, "arith.constant -3 : i64": -3, "arith.constant true": 1,
    "arith.constant dense<5> : tensor<4xi32>": 5,
    "arith.constant 0xFF800000 : f32": -np.inf, "arith.constant 0x7FC00000 : f32": np.nan,
    "arith.constant 1.442695e+00 : f32": 1.442695, "arith.constant 0xFC00 : f16": -np.inf,
    "arith.constant 0xFF80 : bf16": -np.inf, "arith.constant 2.500000e+00 : f64": 2.5,
    "arith.constant dense<0.1> : tensor<2x2xf32>": 0.1,
}  # fmt: skip


def first_op(line: str) -> Any:
    return parse(f"module {{\n tt.func public @k() {{\n  %0 = {line}\n  tt.return\n }}\n}}\n").ops[
        0
    ]


@pytest.mark.parametrize("line", CONSTANTS)
def test_constants_are_read(line: str) -> None:
    value = elementwise.literal(first_op(line))
    shadows = shadow(value)
    assert np.allclose(np.asarray(shadows, float), CONSTANTS[line], rtol=1e-6, equal_nan=True)
    assert shadows.shape == (first_op(line).results[0].shape or ())


CASTS = [
    ("arith.extsi %a : i8 to i32", np.int8(-1), -1), ("arith.extui %a : i8 to i32", np.int8(-1), 255),
    ("arith.extui %a : i1 to i32", np.bool_(True), 1), ("arith.extsi %a : i1 to i32", np.bool_(True), -1),
    ("arith.trunci %a : i32 to i8", np.int32(300), 44), ("arith.trunci %a : i32 to i1", np.int32(2), 0),
    ("arith.sitofp %a : i32 to f32", np.int32(-7), -7), ("arith.uitofp %a : i8 to f32", np.int8(-1), 255),
    ("arith.uitofp %a : i1 to f32", np.bool_(True), 1), ("arith.sitofp %a : i1 to f32", np.bool_(True), -1),
    ("arith.bitcast %a : i32 to f32", np.int32(0x40000000), 2.0),
    ("tt.bitcast %a : i64 to i64", np.int64(9), 9),
]  # fmt: skip


@pytest.mark.parametrize(("line", "value", "expected"), CASTS)
def test_casts(line: str, value: Any, expected: float) -> None:
    kind = line.split(" : ")[1].split(" to ")[0]
    text = f"module {{\n tt.func public @k(%a: {kind}) {{\n  %0 = {line}\n  tt.return\n }}\n}}\n"
    got = elementwise.cast(parse(text).ops[0], np.asarray(value))
    assert float(np.asarray(shadow(got))) == expected
    if isinstance(got, n.Number):
        assert not n.disagreements(got, n.lift(np.float64(expected))).any()


@pytest.mark.parametrize(
    ("line", "expected"),
    [("arith.fptosi %a : f32 to i32", -2), ("tt.bitcast %a : f32 to i32", -1071644672)],
)
def test_casts_of_numbers(line: str, expected: int) -> None:
    text = f"module {{\n tt.func public @k(%a: f32) {{\n  %0 = {line}\n  tt.return\n }}\n}}\n"
    assert int(elementwise.cast(parse(text).ops[0], n.variable(np.array(-2.5)))) == expected


def test_what_is_in_no_table_is_named() -> None:
    with pytest.raises(n.NotFollowedError, match="elements that differ"):
        elementwise.literal(first_op("arith.constant dense<[1, 2]> : tensor<2xi32>"))
