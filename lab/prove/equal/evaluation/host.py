"""PyTorch's own arithmetic, followed: what host code does between kernels, and eager references.

An operation that moves elements is followed by the places that it moves; one in the table by its
rule; others by PyTorch's own decompositions into simpler ones. What is left is run and not
followed: its results hold values that nobody stored, and whoever loads them is told so.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ..algebra import functions as f
from ..algebra.array import shadow
from ..algebra.number import (
    NotFollowedError,
    Number,
    concatenate,
    full,
    lift,
    maximum,
    minimum,
    product,
    select,
    variable,
)
from .memory import KINDS, Memory

# What only moves elements, or puts a constant between them.
MOVING = frozenset(
    (
        "clone", "contiguous", "cat", "stack", "index_select", "gather", "index", "flip", "roll",
        "repeat", "constant_pad_nd", "embedding", "take", "tril", "triu", "diag",
        "lift_fresh_copy", "_unsafe_index", "masked_select", "_reshape_copy",
    )
)  # fmt: skip
# What draws random numbers; each that is drawn is an unknown.
DRAWING = frozenset(("randn", "rand", "randn_like", "rand_like", "normal", "normal_", "uniform_"))
# Memory that holds nothing yet: it is filled with NaN, so that what is never written shows.
EMPTY = frozenset(("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"))


def _over(number: Any, dim: Any, keepdim: bool, how: str) -> Number:
    """Reduce along dimensions; none means all."""
    number = lift(number)
    dims = range(number.ndim) if dim is None or dim == [] else np.atleast_1d(dim).tolist()
    for one in sorted((d % max(number.ndim, 1) for d in dims), reverse=True):
        if number.ndim:
            number = getattr(number, how)(axis=one, keepdims=keepdim)
    return number


def _sum(number: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Number:
    return _over(number, dim, keepdim, "sum")


def _mean(number: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Number:
    total = _sum(number, dim, keepdim)
    return total / max(number.size // max(total.size, 1), 1)


def _var_mean(
    number: Any, dim: Any = None, unbiased: bool = True, keepdim: bool = False, **named: Any
) -> tuple[Number, Number]:
    if isinstance(dim, bool):  # of all elements: the flag comes first
        dim, unbiased = None, dim
    keepdim, lost = named.get("keepdim", keepdim), named.get("correction")
    lost = int(unbiased) if lost is None else lost  # degrees of freedom
    mean = _mean(number, dim, True)
    squares = _sum((number - mean) ** 2, dim, keepdim)
    n = number.size // max(squares.size, 1)
    shape = squares.shape
    return squares / (n - lost), mean.reshape(shape)


def _scaled(sign: int) -> Callable[..., Number]:
    def add(a: Any, b: Any, alpha: Any = 1) -> Number:
        scaled = lift(b) if alpha == 1 else lift(b) * alpha
        return lift(a) + (scaled if sign > 0 else -scaled)

    return add


def _clamped(number: Any, low: Any = None, high: Any = None, **named: Any) -> Number:
    return f.clip(number, named.get("min", low), named.get("max", high))


def _cumsum(number: Number, dim: int, dtype: Any = None) -> Number:
    parts = number.map(lambda v: np.moveaxis(v, dim, 0))
    rows = [parts[0:1]]
    for i in range(1, len(parts)):
        rows.append(rows[-1] + parts[i : i + 1])
    return concatenate(rows).map(lambda v: np.moveaxis(v, 0, dim))


def _added_at(number: Number, dim: int, index: Any, source: Any) -> Number:
    """Add rows of `source` at indices along a dimension (index_add)."""
    result = number.map(lambda v: np.moveaxis(v, dim, 0)).copy()
    source = lift(source).map(lambda v: np.moveaxis(v, dim, 0))
    for i, row in enumerate(np.asarray(index)):
        result[int(row)] = result[int(row)] + source[i]
    return result.map(lambda v: np.moveaxis(v, 0, dim))


def _scatter_added(number: Number, dim: int, index: Any, source: Any) -> Number:
    result = number.copy()
    for at in np.ndindex(*index.shape):
        place = list(at)
        place[dim] = int(index[at])
        result[tuple(place)] = result[tuple(place)] + source[at]
    return result


def _scattered(number: Number, dim: int, index: Any, source: Any) -> Number:
    """Put numbers, or one, at indices along a dimension."""
    places = list(np.ix_(*(np.arange(size) for size in index.shape)))
    places[dim] = index
    result = number.copy()
    result.const = None
    result[tuple(places)] = source
    return result


def _put(number: Any, indices: Any, values: Any, accumulate: bool = False) -> Number:
    """Put, or add, numbers at indices of several dimensions; None is a whole dimension."""
    number = lift(number)
    places = np.arange(number.size).reshape(number.shape)
    at = places[tuple(slice(None) if i is None else i for i in indices)]
    flat, source = number.reshape(-1).copy(), full(lift(values), at.shape).reshape(-1)
    flat.const = None
    if not accumulate:
        flat[at.reshape(-1)] = source
        return flat.reshape(number.shape)
    for i, place in enumerate(at.reshape(-1)):  # one may come twice
        flat[place] = flat[place] + source[i]
    return flat.reshape(number.shape)


def _from_embedding(d_result: Number, ids: Any, n: int, padding: int, by_frequency: bool) -> Number:
    width = d_result.shape[-1]
    rows, flat = d_result.reshape(-1, width), np.asarray(ids).reshape(-1)
    kept = np.flatnonzero(flat != padding)
    return _added_at(lift(np.zeros((n, width), np.int64)), 0, flat[kept], rows[kept])


def _softmax(number: Number, dim: int, half_to_float: bool = False) -> Number:
    weights = f.exp(number - number.max(axis=dim, keepdims=True))
    return weights / weights.sum(axis=dim, keepdims=True)


def _log_softmax(number: Number, dim: int, half_to_float: bool = False) -> Number:
    away = number - number.max(axis=dim, keepdims=True)
    return away - f.log(f.exp(away).sum(axis=dim, keepdims=True))


def _logsumexp(number: Number, dim: Any, keepdim: bool = False) -> Number:
    top = _over(number, dim, True, "max")
    total = f.log(_sum(f.exp(number - top), dim, True)) + top
    return total if keepdim else total.squeeze(tuple(np.atleast_1d(dim)))


def _layer_norm(
    number: Number, shape: Any, weight: Any, bias: Any, eps: float
) -> tuple[Number, Number, Number]:
    axes = list(range(number.ndim - len(shape), number.ndim))
    variance, mean = _var_mean(number, axes, correction=0, keepdim=True)
    mean = mean.reshape(variance.shape)
    rstd = 1 / f.sqrt(variance + eps)
    result = (number - mean) * rstd
    result = result if weight is None else result * weight
    return result if bias is None else result + bias, mean, rstd


def _gelu(number: Number, approximate: str = "none") -> Number:
    if approximate == "none":
        return number * 0.5 * (1 + f.erf(number * 0.5**0.5))
    u = (number + number**3 * 0.044715) * (2 / np.pi) ** 0.5
    return number * 0.5 * (1 + f.tanh(u))


RULES: dict[str, Callable[..., Any]] = {
    "add": _scaled(1), "sub": _scaled(-1),
    "rsub": lambda a, b, alpha=1: lift(b) - lift(a) * alpha,
    "mul": lambda a, b: lift(a) * b, "div": lambda a, b: lift(a) / b,
    "neg": lambda a: -a, "reciprocal": lambda a: 1 / a, "square": f.square,
    "pow": lambda a, n: lift(a) ** n,
    "exp": f.exp, "exp2": lambda a: f.exp(a, base_2=True), "expm1": lambda a: f.exp(a) - 1,
    "log": f.log, "log2": lambda a: f.log(a, base_2=True), "log1p": lambda a: f.log(1 + a),
    "sqrt": f.sqrt, "rsqrt": lambda a: 1 / f.sqrt(a), "tanh": f.tanh, "erf": f.erf,
    "sigmoid": lambda a: 1 / (1 + f.exp(-a)), "silu": lambda a: a / (1 + f.exp(-a)),
    "relu": lambda a: maximum(a, 0), "abs": abs,
    "_softmax": _softmax, "_log_softmax": _log_softmax, "logsumexp": _logsumexp,
    "native_layer_norm": _layer_norm, "gelu": _gelu,
    "maximum": maximum, "minimum": minimum, "clamp": _clamped,
    "clamp_min": lambda a, low: maximum(a, low), "clamp_max": lambda a, high: minimum(a, high),
    "where": lambda c, a, b: select(shadow(c), a, b),
    "masked_fill": lambda a, mask, value: select(mask, value, a),
    "sum": _sum, "mean": _mean, "var_mean": _var_mean,
    "var": lambda *args, **options: _var_mean(*args, **options)[0],
    "amax": lambda a, dim=None, keepdim=False: _over(a, dim, keepdim, "max"),
    "amin": lambda a, dim=None, keepdim=False: _over(a, dim, keepdim, "min"),
    "cumsum": _cumsum, "index_add": _added_at, "scatter_add": _scatter_added, "scatter": _scattered,
    "embedding_dense_backward": _from_embedding, "index_put": _put,
    "mm": lambda a, b: product(a, b), "bmm": lambda a, b: product(a, b),
    "mv": lambda a, b: product(a, b), "dot": lambda a, b: product(a, b),
    "addmm": lambda c, a, b: lift(c) + product(a, b),
    "baddbmm": lambda c, a, b: lift(c) + product(a, b),
    "floor": lambda a: f.whole(a, np.floor), "ceil": lambda a: f.whole(a, np.ceil),
    "round": lambda a: f.whole(a, np.rint), "trunc": lambda a: f.whole(a, np.trunc),
    "_to_copy": lambda a, **options: lift(a), "to": lambda a, *rest, **options: lift(a),
    "convert_element_type": lambda a, dtype: lift(a),
    "copy": lambda a, b, *rest: full(lift(b), np.shape(shadow(a))),
    "full": lambda shape, value, **options: full(lift(float(value)), tuple(shape)),
    "full_like": lambda a, value, **options: full(lift(float(value)), np.shape(shadow(a))),
    "fill": lambda a, value: full(lift(value), np.shape(shadow(a))),
    "zero": lambda a: full(lift(0), np.shape(shadow(a))),
    "lift_fresh": lambda a: lift(a),
}  # fmt: skip
# Of these the first argument is only written, or its numbers are those of the program's text.
_UNREAD = frozenset(("copy", "fill", "zero", "full_like"))
_GIVEN = frozenset(("lift_fresh",))


class Host(TorchDispatchMode):
    """Follows what PyTorch computes while it lasts.

    Parameters
    ----------
    memory : Memory

    Attributes
    ----------
    not_followed : list of str
        Operations on Numbers that were run and not followed.
    """

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self.memory = memory
        self.not_followed: list[str] = []
        self._decompositions = decomposition_table

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        for tensor in _tensors((args, kwargs)):
            self.memory.know(tensor)
        base = name[:-1] if name.endswith("_") and not name.endswith("__") else name
        numbers: Any = None
        known = base in RULES or name in MOVING
        if known:
            try:
                if name in MOVING:
                    numbers = self._moved(function, args, kwargs)
                else:
                    numbers = self._by_rule(base, args, kwargs)
            except (NotFollowedError, TypeError):  # a form of it that the rule does not take
                known = False
        concerned = not known and self._concerns_floats(args, kwargs)
        if concerned and function in self._decompositions:
            with self:
                decomposed = self._decompositions[function](*args, **kwargs)
            if decomposed is not NotImplemented:
                return decomposed
        result = function(*args, **kwargs)
        for tensor in _tensors(result):
            self.memory.know(tensor)
        if name in DRAWING:
            for tensor in _tensors(result):
                if tensor.dtype in KINDS:
                    self.memory.write(tensor, variable(tensor.double().numpy()))
        elif name in EMPTY:
            for tensor in _tensors(result):
                if tensor.is_floating_point():
                    tensor.fill_(torch.nan)
        elif numbers is not None:
            self._keep(result, numbers)
        elif _tensors((args, kwargs)):
            self._give_up(function, args, result)
        return result

    def _by_rule(self, name: str, args: Any, kwargs: Any) -> Any:
        """Compute by the table; None where no float is concerned."""
        first = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if first is not None and first.dtype not in KINDS and name in _UNREAD:
            return None

        def read(value: Any, unread: bool) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            if value.dtype not in KINDS or name in _GIVEN:
                return value.detach().numpy()
            return np.zeros(tuple(value.shape)) if unread else self.memory.read(value.detach())

        strange = [k for k, v in kwargs.items() if k not in _NAMED and v is not None]
        if strange:
            raise NotFollowedError(f"{name} with {', '.join(strange)}")
        unread = name in _UNREAD
        given = [
            tree_map(lambda v, first=i == 0: read(v, unread and first), value)
            for i, value in enumerate(args)
        ]
        named = {k: v for k, v in kwargs.items() if k in _OPTIONS}
        return RULES[name](*given, **named)

    def _moved(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Move the numbers of places, counted from 1: 0 is what was put between."""
        pool: list[Number] = []
        n = 1

        def place(value: Any) -> Any:
            nonlocal n
            if not isinstance(value, torch.Tensor) or value.dtype not in KINDS:
                return value
            pool.append(self.memory.read(value.detach()).reshape(-1))
            n += value.numel()
            return torch.arange(n - value.numel(), n).reshape(value.shape)

        between: Any = 0
        if function.overloadpacket.__name__ == "constant_pad_nd" and len(args) > 2:
            between, args = args[2], (*args[:2], 0)
        placed = tree_map(place, (args, kwargs))
        if not pool:
            return None
        moved = function(*placed[0], **placed[1])
        everything = concatenate([lift(np.array([float(between)])), *pool])
        return everything[moved.reshape(-1).numpy()].reshape(tuple(moved.shape))

    def _keep(self, result: Any, numbers: Any) -> None:
        """Put what was computed where PyTorch put its own."""
        results = result if isinstance(result, (tuple, list)) else (result,)
        numbers = numbers if isinstance(numbers, tuple) else (numbers,)
        for tensor, number in zip(results, numbers, strict=False):
            if isinstance(tensor, torch.Tensor) and tensor.dtype in KINDS:
                self.memory.write(tensor.detach(), number)

    def _give_up(self, function: Any, args: Any, result: Any) -> None:
        """Forget what an operation has written in a way that is not followed."""
        if function.is_view or function.overloadpacket.__name__ == "set_":
            return
        for argument, value in zip(function._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in _tensors(value):
                    self.memory.forget(tensor)
        if any(tensor.is_floating_point() for tensor in _tensors(result)):
            self.not_followed.append(str(function.overloadpacket).removeprefix("aten."))

    @staticmethod
    def _concerns_floats(args: Any, kwargs: Any) -> bool:
        return any(tensor.dtype in KINDS for tensor in _tensors((args, kwargs)))


# What a rule is given by name; and what says where a result lies, which is no rule's concern.
_OPTIONS = frozenset(("alpha", "keepdim", "dim", "min", "max", "correction", "approximate"))
_NAMED = _OPTIONS | {
    "dtype", "device", "layout", "pin_memory", "memory_format", "non_blocking", "copy", "out",
}  # fmt: skip


def _tensors(values: Any) -> list[torch.Tensor]:
    return [v for v in tree_leaves(values) if isinstance(v, torch.Tensor) and not v.is_meta]
