"""The laws that Numbers keep, and what must stay different; every rule of the algebra is in one."""

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np

import gptwin.lab.prove.equal.algebra as package

PARTS = ("modular", "constants", "degrees", "array", "number", "functions")
FOLDER = Path(package.__file__).parent


@contextlib.contextmanager
def fresh(file: str = "", old: str = "", new: str = "") -> Iterator[SimpleNamespace]:
    """Load the algebra anew, with one edit of one file."""
    names = {part: f"{package.__name__}.{part}" for part in PARTS}
    before = {part: importlib.import_module(name) for part, name in names.items()}
    loaded = {}
    try:
        for part, name in names.items():
            source = (FOLDER / f"{part}.py").read_text(encoding="utf-8")
            if part == file:
                assert source.count(old) >= 1, f"{file}: {old!r} is not there"
                source = source.replace(old, new)
            module = ModuleType(name)
            module.__package__, module.__file__ = package.__name__, str(FOLDER / f"{part}.py")
            sys.modules[name] = loaded[part] = module
            setattr(package, part, module)
            exec(compile(source, module.__file__, "exec"), vars(module))
        yield SimpleNamespace(**loaded)
    finally:
        for part, name in names.items():
            sys.modules[name] = before[part]
            setattr(package, part, before[part])


class Laws:
    """Checks by name; each raises AssertionError where a law is broken."""

    def __init__(self, algebra: SimpleNamespace, seed: int = 3) -> None:
        self.n, self.f, self.constants = algebra.number, algebra.functions, algebra.constants
        self.n.begin(seed)
        shadows = np.random.default_rng(0)
        self.x, self.y, self.z = (
            self.n.variable(shadows.uniform(0.2, 1.5, (4, 5)) * sign) for sign in (1, 1, -1)
        )

    def same(self, left, right) -> None:
        assert not self.n.disagreements(left, right).any()
        left, right = self.n.lift(left).x, self.n.lift(right).x
        assert np.allclose(left, right, rtol=1e-6, atol=1e-9, equal_nan=True)

    def different(self, left, right) -> None:
        assert self.n.disagreements(left, right).all()

    def number(self, value: float):
        return self.n.constant(self.constants.meaning(value))

    def all(self) -> list[str]:
        return [name for name in dir(self) if name.startswith("law_")]

    def broken(self) -> list[str]:
        """Name the laws that do not hold."""
        found = []
        for name in self.all():
            try:
                getattr(self, name)()
            except Exception:
                found.append(name)
        return found

    # --- sums, products, quotients ----------------------------------------------------------------

    def law_distributes(self) -> None:
        self.same((self.x + self.y) * self.z, self.x * self.z + self.z * self.y)
        self.different((self.x + self.y) * self.z, self.x * self.z + self.y)

    def law_subtracts(self) -> None:
        self.same(self.x - self.y, -(self.y - self.x))
        self.same(self.x - self.x, 0)
        self.same(1 - self.x, -(self.x - 1))
        self.different(self.x - self.y, self.y - self.x)

    def law_divides(self) -> None:
        self.same(self.x / self.y * self.y, self.x)
        self.same(1 / (self.x / self.y), self.y / self.x)
        self.same(self.x / 4, self.x * 0.25)
        many = self.n.variable(np.arange(1.0, 200.0))
        self.same(many * (1 / many), 1)
        few, others = self.x[0, :3], self.y[0, :3]
        self.same(few / others * others, few)

    def law_powers(self) -> None:
        self.same(self.x**3, self.x * self.x * self.x)
        self.same(self.f.square(self.x), self.x * self.x)

    def law_sums(self) -> None:
        total = self.x[:, 0]
        for i in range(1, 5):
            total = total + self.x[:, i]
        self.same(self.x.sum(axis=1), total)
        self.same(self.x.mean(axis=1) * 5, total)
        self.same(self.x.sum(axis=(0, 1)), self.x.sum())
        centred = self.x - self.x.mean(axis=1, keepdims=True)
        self.same(self.x.var(axis=1) * 5, (centred * centred).sum(axis=1))
        self.same(self.f.exp(self.x.sum(axis=1)), self.f.exp(total))

    def law_matrix_products(self) -> None:
        left, right = self.x, self.y.T
        expected = (left[:, None, :] * self.y[None, :, :]).sum(axis=2)
        self.same(left @ right, expected)
        self.same(self.f.exp(left @ right), self.f.exp(expected))
        wide = self.n.variable(np.random.default_rng(1).normal(size=(2, 200)))
        self.same(wide @ wide.T, (wide[:, None, :] * wide[None, :, :]).sum(axis=2))
        self.same(left[0] @ right, expected[0])

    # --- exponentials and logarithms --------------------------------------------------------------

    def law_exponentials(self) -> None:
        exp = self.f.exp
        self.same(exp(self.x + self.y), exp(self.x) * exp(self.y))
        self.same(exp(self.x - self.y), exp(self.x) / exp(self.y))
        self.same(exp(-self.x) * exp(self.x), 1)
        self.same(exp(self.x * 2), exp(self.x) ** 2)
        self.same(exp(self.x * self.y + self.x), exp(self.x * (self.y + 1)))
        self.same(exp(self.x / self.y * self.y), exp(self.x))
        self.different(exp(self.x), exp(self.y))
        self.different(exp(self.x), exp(self.x * 1.0000001))

    def law_base_2(self) -> None:
        log2_e, exp, log = self.number(1.4426950408889634), self.f.exp, self.f.log
        self.same(exp(self.x * log2_e, base_2=True), exp(self.x))
        self.same(exp(log(self.x, base_2=True), base_2=True), self.x)
        self.same(log(self.x, base_2=True) / log2_e, log(self.x))
        self.same(log(self.x, base_2=True) / log2_e * self.z, log(self.x) * self.z)
        self.different(log(self.x), log(self.x, base_2=True))
        self.same(exp(log(self.x) * log2_e, base_2=True), self.x)
        six, twice = self.n.lift(2) * self.n.lift(3), self.n.lift(2) * log2_e
        self.same(exp(log(self.x) * six), self.x**6)
        self.same(exp(log(self.x) * twice, base_2=True), self.x**2)
        self.different(exp(self.x, base_2=True), exp(self.x))
        self.different(exp(log(self.x), base_2=True), self.x)
        self.different(exp(log(self.x, base_2=True)), self.x)

    def law_logarithms(self) -> None:
        exp, log = self.f.exp, self.f.log
        self.same(exp(log(self.x)), self.x)
        self.same(exp(self.y - log(self.x)), exp(self.y) / self.x)
        self.same(log(self.x) + log(self.y), log(self.x * self.y))
        self.same(log(self.x) - log(self.y), log(self.x / self.y))
        self.same(log(self.x) * 2, log(self.x * self.x))
        self.same(exp(log(self.x) * -2) * self.x * self.x, 1)
        self.same(exp(log(self.x) * -self.n.lift(2)) * self.x * self.x, 1)
        self.same(exp(log(self.x[:, :2]).sum(axis=1)), self.x[:, 0] * self.x[:, 1])
        self.different(exp(log(self.x) @ self.y.T), 1)
        self.same(log(exp(self.x) * exp(self.y)), self.x + log(exp(self.y)))
        self.same(log(self.x).sum(axis=1), log(self.x[:, 0]) + log(self.x)[:, 1:].sum(axis=1))
        self.same(log(self.n.lift(1)), 0)
        self.different(log(self.x), log(self.y))
        self.different(log(self.x), log(self.x) * 1.0000001)
        self.different(log(self.x), log(self.x) + 1e-9)
        self.different(exp(log(self.x) * self.y), exp(log(self.x) * self.z))
        self.different(exp(log(self.x) * self.y), self.x)
        self.different(log(self.x) * self.z + self.y, log(self.y) * self.z + self.y)

    def law_mixed_logarithms(self) -> None:
        """A sum of logarithms of different bases has no exponent."""
        mixed = self.f.log(self.x) + self.f.log(self.y, base_2=True)
        self.different(self.f.exp(mixed), self.x * self.y)
        self.different(self.f.exp(mixed, base_2=True), self.x * self.y)
        self.different(mixed, self.f.log(self.x * self.y))

    def law_opaque_exponentials(self) -> None:
        exp, log2_e = self.f.exp, self.number(1.4426950408889634)
        inner = exp(self.x)
        self.same(exp(inner), exp(inner))
        self.same(exp(inner) * exp(-inner), 1)
        self.same(exp(inner * log2_e, base_2=True), exp(inner))
        self.different(exp(inner), exp(exp(self.y)))
        self.different(exp(inner), exp(inner * 1.0000001))
        self.different(exp(inner), 1)

    # --- other functions --------------------------------------------------------------------------

    def law_rational_times_a_logarithm(self) -> None:
        """A rational number of times a logarithm has an exponential: a power, or a root."""
        exp, log = self.f.exp, self.f.log
        self.same(exp(log(self.x) / 3) ** 3, self.x)
        self.same(exp(log(self.x) * self.number(0.6)) ** 5, self.x**3)
        halves = exp(log(self.x) * self.number(0.5)) * exp(log(self.y) * self.number(0.5))
        self.same(halves, exp(log(self.x * self.y) * self.number(0.5)))
        self.same(halves, self.f.sqrt(self.x * self.y))
        self.different(exp(log(self.x) / 3), self.x)

    def law_roots(self) -> None:
        sqrt = self.f.sqrt
        self.same(sqrt(self.x) * sqrt(self.y), sqrt(self.x * self.y))
        self.same(sqrt(self.x * 4), sqrt(self.x) * 2)
        self.same(1 / sqrt(self.x), sqrt(1 / self.x))
        self.same(sqrt(self.n.lift(2)) * sqrt(self.n.lift(3)), self.number(6**0.5))
        self.same(sqrt(self.n.lift(9)), 3)
        self.same(self.f.exp(sqrt(self.x) * sqrt(self.y)), self.f.exp(sqrt(self.x * self.y)))
        self.different(sqrt(self.x), self.x)
        self.different(sqrt(self.x + 1e-5), sqrt(self.x) + 0.5e-5)

    def law_tanh_and_erf(self) -> None:
        tanh, erf, exp = self.f.tanh, self.f.erf, self.f.exp
        self.same(tanh(-self.x), -tanh(self.x))
        self.same((1 + tanh(self.x)) / 2, 1 / (1 + exp(-2 * self.x)))
        self.same(erf(-self.x), -erf(self.x))
        self.same(erf(self.x), erf(self.x + 0))
        self.different(erf(self.x), erf(self.y))
        self.different(erf(self.x), self.f.log(self.x))
        self.different(erf(self.x), erf(self.x * 1.0000001))

    # --- what the shadow decides ------------------------------------------------------------------

    def law_choices(self) -> None:
        n, greater = self.n, self.x.x >= self.y.x
        largest = n.maximum(self.x, self.y)
        self.same(largest[greater], self.x[greater])
        self.same(largest[~greater], self.y[~greater])
        self.same(n.maximum(self.x, self.y) + n.minimum(self.x, self.y), self.x + self.y)
        self.same(abs(self.z), -self.z)
        self.same(n.select(greater, self.x, self.y), largest)
        self.same(self.f.clip(self.x, None, 0.5)[self.x.x < 0.5], self.x[self.x.x < 0.5])
        self.same(self.f.clip(self.x, 0.5, None)[self.x.x < 0.5], 0.5)
        row_max = self.x.max(axis=1)
        self.same(row_max, self.x[np.arange(4), self.x.x.argmax(axis=1)])
        self.same(self.x.min(axis=1), self.x[np.arange(4), self.x.x.argmin(axis=1)])
        self.same(self.f.whole(self.x + 3, np.floor), np.floor(self.x.x + 3).astype(int))

    def law_choices_keep_exponents(self) -> None:
        """Where one side has no exponent, the chosen one has none: it is not 0."""
        exp, n = self.f.exp, self.n
        half = np.arange(20).reshape(4, 5) % 2 == 0
        chosen = exp(n.select(half, exp(self.x), self.y))
        self.same(chosen[half], exp(exp(self.x))[half])
        self.same(chosen[~half], exp(self.y)[~half])
        self.different(chosen[half], 1)
        logs = n.select(half, self.f.log(self.x), self.y)
        self.same(exp(logs), n.select(half, self.x, exp(self.y)))
        joined = n.concatenate([exp(self.x), self.y])
        self.different(exp(joined)[:4], 1)
        self.same(exp(joined)[4:], exp(self.y))
        mixed = self.y.copy()
        mixed[0] = exp(self.x)[0]
        self.different(exp(mixed)[0], 1)
        self.different(exp(mixed * self.y)[0], exp(-self.y)[0])
        self.different(exp(mixed + self.y)[0], exp(self.y - 1)[0])
        self.different(exp(1 / mixed)[0], 1)
        self.different(exp(self.f.sqrt(mixed))[0], 1)
        self.same(exp(mixed)[1:], exp(self.y)[1:])
        self.different(exp(exp(self.x) + self.y), exp(self.y))
        self.different(exp(exp(self.x) * self.y), 1)
        self.different(exp(1 / exp(self.x)), 1)
        self.different(exp(exp(self.x).sum(axis=1)), 1)
        self.different(exp(exp(self.x) @ self.y.T), 1)
        self.different(exp(self.f.sqrt(exp(self.x))), 1)

    def law_opaque_exponentials_beside_logarithms(self) -> None:
        """What has no exponent keeps its exponential apart from that of a logarithm."""
        exp, log, n, y = self.f.exp, self.f.log, self.n, self.y
        u, log2_e = exp(self.x), self.number(1.4426950408889634)
        sum_, product = u + log(y), exp(u) * y
        self.same(exp(sum_), product)
        self.same(exp(u - log(y)), exp(u) / y)
        self.same(exp(-sum_) * product, 1)
        self.same(exp(sum_ * log2_e, base_2=True), product)
        self.same(exp(sum_ * n.lift(2)), exp(u * 2) * y * y)
        self.different(exp(sum_), exp(u))
        half = np.arange(20).reshape(4, 5) % 2 == 0
        self.same(exp(n.select(half, sum_, u)), n.select(half, product, exp(u)))
        self.same(exp(n.concatenate([u, sum_])), n.concatenate([exp(u), product]))
        mixed = u.copy()
        mixed[0] = sum_[0]
        self.same(exp(mixed)[0], product[0])
        self.same(exp(mixed)[1:], exp(u)[1:])
        self.same(sum_ + log(self.x), u + log(self.x * y))
        self.different(sum_, exp(y) + log(y))
        bases = sum_ + log(self.x, base_2=True), u + log(self.x) + log(y, base_2=True)
        self.different(*bases)
        self.different(*map(exp, bases))
        self.different(exp(bases[0]), product * self.x)
        both = log(self.x) + log(y, base_2=True)  # of two bases: an unknown exponential
        self.different(exp(both), 1)
        self.same(exp(both), exp((log(self.x) * self.z + log(y, base_2=True) * self.z) / self.z))
        partly, otherwise = y.copy(), y.copy()  # the first row has no exponent
        partly[0], otherwise[0] = u[0], exp(y)[0]
        self.different(exp(partly.sum(axis=0)), exp(partly[1:].sum(axis=0)))
        self.different((partly + log(y))[0], (otherwise + log(y))[0])
        self.same(log(exp(self.x - self.x)) * self.z, 0)

    def law_infinities(self) -> None:
        n, f, inf = self.n, self.f, np.inf
        infinite = n.lift(np.full((4, 5), -inf))
        self.same(f.exp(infinite), 0)
        self.same(f.exp(infinite + self.x), 0)
        self.same(infinite + self.x, infinite)
        self.same(infinite - infinite, n.lift(np.nan))
        self.different(infinite, -infinite)
        self.different(infinite, self.x)
        self.same(f.exp(self.x - 1e30), 0)
        self.same(
            f.exp(n.select(self.x.x > 0.7, self.x, -inf)),
            n.select(self.x.x > 0.7, f.exp(self.x), 0),
        )
        self.same(1 / (self.x - self.x.x), 1 / (self.x - self.x.x))
        self.same(1 / (1 / (self.x - self.x.x)), 0)
        large = self.x * 1e3 + 1e3
        self.same(1 / (f.exp(large) + 1), f.exp(-large) / (1 + f.exp(-large)))

    # --- constants --------------------------------------------------------------------------------

    def law_constants(self) -> None:
        single = float(np.float32(0.1))
        self.same(self.x * 0.1, self.x * single)
        self.same(self.x * 0.1 * 10, self.x)
        self.same(self.number(float(np.float32(0.5**0.5))) * self.f.sqrt(self.n.lift(2)), 1)
        self.same(self.number(0.7978845608) * 2, self.number(2 * (2 / np.pi) ** 0.5))
        self.same(self.number(0.3989422804014327) * 2, self.number((2 / np.pi) ** 0.5))
        self.same(self.number(0.6931471805599453) * self.number(1.4426950408889634), 1)
        self.same(
            self.number(float(np.float32(1.4426950408889634 * 2**24 / 0.7))),
            self.number(1.4426950408889634) * 2**24 * 10 / 7,
        )
        self.same(self.number(2.0**-40) * 2.0**40, 1)
        self.same(self.number(2**0.5) * self.number(6**0.5), self.number(12**0.5))
        self.same(1 / self.number(2**0.5), self.number(0.5**0.5))
        long = 0.123456789012
        self.same(self.number(long), self.number(float(np.float32(long))))
        self.different(self.number(1.0000002) * self.x, self.x)
        self.different(self.number(0.04471498), self.number(0.044715))
        self.different(self.number(1e-9) + self.x, self.x)

    def law_integers(self) -> None:
        whole = np.arange(-3, 4)
        self.same(self.n.lift(whole) * 2, whole * 2)
        self.same(self.n.lift(whole == 1) + 0, (whole == 1).astype(int))
        self.same(self.n.lift(np.array([0.5, 0.25, -np.inf])), np.array([0.5, 0.25, -np.inf]))
        halves = self.f.exp(self.n.lift(np.array([0.5, 0.25])))
        self.same(
            halves * self.f.exp(-self.number(0.5)), self.f.exp(self.n.lift(np.array([0.0, -0.25])))
        )
        self.same(halves[0] * self.f.exp(-self.number(0.5)), 1)

    def law_degrees(self) -> None:
        """Degrees add in products; what is divided by is counted."""
        self.n.run.divisors, self.n.run.degree = 0.0, 1.0
        assert (self.x * self.y).degree.total(0) == 2 and (self.x + self.y).degree.total(0) == 1
        quotient = self.x / self.y
        assert quotient.degree == (1, 1, 1, 1) and self.n.run.divisors == 20
        assert (quotient + quotient).degree == (1, 1, 2, 2)
        assert quotient.sum(axis=1).degree == (1, 1, 5, 5)
        assert (quotient @ self.y.T).degree == (2, 1, 6, 5)
        assert self.f.exp(self.x * self.y).degree.total(0) == 1
        self.n.disagreements(self.x * self.y * self.z, quotient)
        assert self.n.run.degree == 3 + 2
        many = self.x / self.y.sum(axis=1, keepdims=True)
        self.n.disagreements(many.sum(axis=0), self.n.lift(0))
        assert self.n.run.degree == 5 + 3
