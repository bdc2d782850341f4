"""The calculator: right values, and nothing that is more than a calculation."""

from fractions import Fraction
from random import Random

import pytest

from gptwin.rl.prompting.calculator import LONGEST, calculate


@pytest.mark.parametrize(
    ("expression", "value"),
    [("(9 + 8) * 2", 34), ("98+45", 143), ("2 - 3 - 4", -5), ("12 / 3 / 2", 2), ("-3 - -4", 1),
     ("2 + 3 * 4", 14), ("1 / 3", Fraction(1, 3)), (" 7 ", 7), ("--2", 2), ("4 * ( 2 - 5 )", -12)],
)  # fmt: skip
def test_values(expression, value):
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    ["", " ", "1 +", "2 2", "1 / 0", "1 / ( 2 - 2 )", "( 1", "1 )", "2 ** 3", "1 // 2", "x",
     "__import__('os').getcwd()", "1e9", "1_000", "0x10", "3.5", "1; 2", "٣ + 1", "[1]"],
)  # fmt: skip
def test_it_refuses_all_else(expression):
    with pytest.raises(ValueError, match="expression: expected"):
        calculate(expression)


def test_nothing_makes_it_long():
    assert calculate("(" * 49 + "1" + ")" * 49) == 1  # 99 signs, nested as deep as they can be
    for long in ("9" * (LONGEST + 1), "(" * (LONGEST + 1), "1+" * LONGEST + "1"):
        with pytest.raises(ValueError, match=f"at most {LONGEST} signs"):
            calculate(long)


def test_it_agrees_with_python_on_drawn_expressions():
    rng = Random(0)

    def drawn(depth):
        if depth == 0:
            return str(rng.randint(0, 12))
        text = f"{drawn(depth - 1)} {rng.choice('+-*')} {drawn(depth - 1)}"
        return f"({text})" if rng.random() < 0.5 else text

    for _ in range(200):
        expression = drawn(rng.randint(0, 3))
        assert calculate(expression) == eval(expression)  # ours, so that it may be run
