"""A calculator that reads an expression by its grammar, and never runs it as Python.

    sum     = product (("+" | "-") product)*
    product = factor (("*" | "/") factor)*
    factor  = number | "-" factor | "(" sum ")"

What a model writes is data. `eval` would run whatever it says; a parser of four operations can do
nothing but calculate, and takes no longer than the expression is long.
"""

import re
from fractions import Fraction
from typing import NoReturn

from ...core.checks import refuse

LONGEST = 100  # signs of an expression, so that neither its depth nor its numbers grow without end
TOKEN = re.compile(r"\s*(?:([0-9]+)|(.))", re.DOTALL)


def calculate(expression: str) -> Fraction:
    """Return the value of an expression.

    Parameters
    ----------
    expression : str
        Whole numbers, ``+ - * / ( )`` and spaces.

    Returns
    -------
    fractions.Fraction
        Exact.

    Raises
    ------
    ValueError
        If it is none, is longer than `LONGEST`, or divides by 0.
    """
    if len(expression) > LONGEST:
        refuse("expression", f"at most {LONGEST} signs", str(len(expression)))
    parser = _Parser(expression)
    value = parser.sum()
    if parser.next:
        parser.refuse("an operation")
    return value


class _Parser:
    """Reads an expression from left to right; `next` is the token to be read, "" at the end."""

    def __init__(self, expression: str) -> None:
        self.expression = expression
        stripped = expression.strip()
        self.tokens = [number or sign for number, sign in TOKEN.findall(stripped)]
        self.tokens.append("")

    @property
    def next(self) -> str:
        return self.tokens[0]

    def take(self) -> str:
        return self.tokens.pop(0)

    def refuse(self, expected: str) -> NoReturn:
        refuse("expression", expected, f"{self.next or 'the end'!r} in {self.expression!r}")

    def sum(self) -> Fraction:
        value = self.product()
        while self.next in ("+", "-"):
            value += self.product() if self.take() == "+" else -self.product()
        return value

    def product(self) -> Fraction:
        value = self.factor()
        while self.next in ("*", "/"):
            if self.take() == "*":
                value *= self.factor()
            else:
                divisor = self.factor()
                if divisor == 0:
                    refuse("expression", "a divisor other than 0", repr(self.expression))
                value /= divisor
        return value

    def factor(self) -> Fraction:
        if self.next.isascii() and self.next.isdecimal():
            return Fraction(int(self.take()))
        if self.next == "-":
            self.take()
            return -self.factor()
        if self.next == "(":
            self.take()
            value = self.sum()
            if self.next != ")":
                self.refuse("a closing bracket")
            self.take()
            return value
        self.refuse("a number or an opening bracket")
