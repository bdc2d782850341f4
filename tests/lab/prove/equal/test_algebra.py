# ruff: noqa: E501
"""Numbers keep the laws of what they stand for; break a rule, and a law is broken."""

import pytest

from .algebra import Laws, fresh

# One edit for each rule of the algebra: file, what is there, what is put in its place.
RULES = [
    ("modular", "value * value % modulus", "value * (value - 1) % modulus"),
    ("modular", "return power(value, modulus - 2, modulus)", "return power(value, modulus - 3, modulus)"),
    ("modular", "result * level[1::2] % modulus", "result * level[0::2] % modulus"),
    ("modular", "self.high[exponent >> LOW_BITS]", "self.high[(exponent >> LOW_BITS) ^ 1]"),
    ("modular", "(upper << 16)", "(upper << 15)"),
    ("modular", "result += (upper", "result = (upper"),
    ("modular", "z = np.atleast_1d(value).astype(np.uint64)", "z = np.atleast_1d(value * 0).astype(np.uint64)"),
    ("modular", "np.uint64(self.salts[which])", "np.uint64(self.salts[0])"),
    ("constants", "SYMBOLS = (math.log2(math.e)", "SYMBOLS = (math.log2(3.0)"),
    ("constants", "math.sqrt(2 / math.pi))", "math.sqrt(3 / math.pi))"),
    ("constants", "self.rational * other.rational * common", "self.rational * other.rational * 2"),
    ("constants", "self.symbols[0] + other.symbols[0]", "self.symbols[0]"),
    ("constants", "1 / (self.rational * self.root)", "1 / self.rational"),
    ("constants", "(-self.symbols[0], -self.symbols[1])", "self.symbols"),
    ("constants", "(modulus + 1) // 4, modulus)", "(modulus + 1) // 2, modulus)"),
    ("constants", "value * pow(symbol, k, modulus)", "value * pow(symbol, abs(k), modulus)"),
    ("constants", "if key not in _meanings:", "if True:"),
    ("constants", "bool(np.float32(candidate) == np.float32(value))", "abs(candidate - value) < 1e-4"),
    ("constants", "abs(candidate - value) <= abs(value) * 2.0**-50", "abs(candidate - value) <= 1e-4"),
    ("number", "p = _reduced(left.p + right.p, field.P)", "p = left.p + right.p"),
    ("number", "q = _reduced(left.q + right.q, field.Q)", "q = _reduced(left.q + right.q, field.P)"),
    ("number", "unknown = (left.q < 0) | (right.q < 0)\n        if unknown.any():\n            q = np.where(unknown, -1, q)\n    log, unit = left", "log, unit = left"),
    ("number", "log = log * right.log % field.P", "log = right.log"),
    ("number", "np.where(clash, -1, q)", "q"),
    ("number", "left.p * right.p % field.P", "left.p * right.p % field.Q"),
    ("number", "q = left.q * right.q % field.Q\n        unknown = (left.q < 0) | (right.q < 0)", "q = left.q * right.q % field.Q\n        unknown = np.zeros(x.shape, bool)"),
    ("number", "q = np.where(np.broadcast_to(one.log != 1, x.shape), -1, q)", "q = q"),
    ("number", "abs(n), field.P)", "1, field.P)"),
    ("number", "value if n > 0 else inverse(value, field.P)", "value"),
    ("number", "order = 2 * field.Q if d % 2 else field.Q", "order = 2 * field.Q - 1"),
    ("number", "n * pow(d, -1, order) % order", "n"),
    ("number", "one.unit + factor.const.symbols[0]", "one.unit"),
    ("number", "p = np.where(self.p > 0, field.P - self.p, 0)", "p = np.where(self.p > 0, field.P - 1 - self.p, 0)"),
    ("number", "q = None if self.q is None else np.where(self.q > 0, field.Q - self.q, self.q)", "q = self.q"),
    ("number", "log = None if self.log is None else inverse(self.log, field.P)", "log = self.log"),
    ("number", "rational=-self.const.rational", "rational=self.const.rational"),
    ("number", "q = np.where(number.q < 0, -1, inverse(np.maximum(number.q, 0), field.Q))", "q = inverse(np.maximum(number.q, 0), field.Q)"),
    ("number", "return constant(number.const.inverted(), number.shape)", "return constant(number.const, number.shape)"),
    ("number", "pick(left.q, right.q, -1)", "pick(left.q, right.q, 0)"),
    ("number", "pick(left.log, right.log, 1)", "None"),
    ("number", "pick(left.unit, right.unit, 0)", "np.zeros(condition.shape, int) + 1"),
    ("number", "np.isnan(left.x) | (left.x >= right.x), left, right", "np.isnan(left.x) | (left.x <= right.x), left, right"),
    ("number", "np.isnan(left.x) | (left.x <= right.x), left, right", "np.isnan(left.x) | (left.x >= right.x), left, right"),
    ("number", 'joined("q", -1)', 'joined("q", 0)'),
    ("number", '("q", -1), ("log", 1), ("unit", 0)):', '("q", 0), ("log", 1), ("unit", 0)):'),
    ("number", "known = (self.q >= 0).all(**over)", "known = np.ones(1, bool)"),
    ("number", "if self.log is not None:\n            return self._sum_of_logs", "if False:\n            return self._sum_of_logs"),
    ("number", "number.q is not None and number.log is None and bool((number.q >= 0).all())", "number.q is not None"),
    ("number", "np.where(finite, number.p, 0), None", "number.p, None"),
    ("number", "known = (left.q >= 0) & (right.q >= 0) & ((logs[0] != 1) | (logs[1] != 1))", "known = np.ones(shape, bool)"),
    ("number", "((units[0] == units[1]) |", "((logs[0] == logs[1]) |"),
    ("number", "left.degree.times(right.degree)))", "left.degree))"),
    ("number", "left.degree.plus(right.degree)))", "left.degree))"),
    ("number", "run.divisors += _n_different(number.p)", "run.divisors += 0 * _n_different(number.p)"),
    ("number", ".summed(left.shape[-1])", ""),
    ("number", "self.degree.summed(n)", "self.degree"),
    ("number", "without_log(left) + without_log(right), field.P)", "left.p + right.p, field.P)"),
    ("number", "one.rest * factor.p % field.P", "one.rest"),
    ("number", "np.where(self.rest > 0, field.P - self.rest, 0)", "self.rest"),
    ("number", "rest[index] = without_log(value)", "rest[index] = value.p"),
    ("number", "np.where(clash, p, rest)", "rest"),
    ("number", "np.where(clash, 1, log)", "log"),
    ("number", "pick(without_log(left), without_log(right), 0)", "pick(left.p, right.p, 0)"),
    ("number", "[without_log(p) for p in parts]", "[p.p for p in parts]"),
    ("number", "alike = (without_log(left) == without_log(right)) & (", "alike = ("),
    ("functions", "argument.p, argument.rest)", "argument.p, argument.p)"),
    ("degrees", "max(n, 1) * self.below", "self.below"),
    ("degrees", "above=self.above + more * self.below", "above=self.above"),
    ("degrees", "1.0, self.below, self.above", "1.0, self.above, self.below"),
    ("degrees", "self.below + other.below,", "max(self.below, other.below),"),
    ("number", "number.p[at], number.q[at] = known.p, known.q", "number.p[at] = known.p"),
    ("functions", "p = p * times % field.P", "p = p"),
    ("functions", "argument.unit != int(base_2)", "argument.unit < 0"),
    ("functions", "exponent = exponent * pow(field.symbols[field.Q][0], -1, field.Q) % field.Q", "exponent = exponent"),
    ("functions", "p = np.where(unknown, _opaque_exp(known, base_2), p)", "p = p"),
    ("functions", "np.where(2 * value < field.P, hashed, field.Q - hashed) % field.Q", "hashed"),
    ("functions", "value = value * pow(field.symbols[field.P][0], -1, field.P) % field.P", "value = value"),
    ("functions", "p = np.where(below, 0, p)", "p = p"),
    ("functions", "np.minimum(x, LARGEST)", "x"),
    ("functions", "p = np.where(argument.p == 1, 0, field.hashed", "p = np.where(argument.p == 1, 1, field.hashed"),
    ("functions", "p = p * field.symbols[field.P][0] % field.P", "p = p"),
    ("functions", "unit = np.full(p.shape, int(base_2))", "unit = np.full(p.shape, 0)"),
    ("functions", "power(argument.p, (field.P + 1) // 4, field.P)", "power(argument.p, 3, field.P) + 1"),
    ("functions", "power(np.maximum(argument.q, 0), (field.Q + 1) // 4, field.Q)", "np.maximum(argument.q, 0) // 2"),
    ("functions", "q = np.where(argument.q < 0, -1, root)", "q = root"),
    ("functions", "exp(lift(argument) * 2) + 1", "exp(lift(argument)) + 1"),
    ("functions", "p = np.where(2 * value < field.P, hashed, field.P - hashed) % field.P", "p = hashed"),
    ("functions", "field.hashed(np.minimum(value, field.P - value), OF_ERF, field.P)", "field.hashed(np.minimum(value, field.P - value), OF_LOG, field.P)"),
    ("functions", "n.minimum(bounded, high)", "n.maximum(bounded, high)"),
    ("functions", "n.maximum(argument, low)", "n.minimum(argument, low)"),
]  # fmt: skip


def test_the_laws_hold() -> None:
    with fresh() as algebra:
        for seed in range(3):
            assert Laws(algebra, seed).broken() == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule[0]}: {rule[1][:50]}")
def test_a_broken_rule_breaks_a_law(rule: tuple[str, str, str]) -> None:
    try:
        with fresh(*rule) as algebra:
            broken = Laws(algebra).broken()
    except (ValueError, IndexError, ZeroDivisionError):  # it does not even begin
        return
    assert broken, "no law notices"
