"""A kernel's own functions, unchanged, with the model where the compiler was.

A function's code runs as it is. What changes is what its names stand for: another function of the
kernel is run in the same way, an operation of Gluon is the model's, and what the model does not
serve is refused when it is called, by name and line.
"""

import builtins
import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITCallable

from . import arithmetic, hopper, language  # noqa: F401 (they declare what is served)
from .memory import Descriptor, Pointer, Storage
from .served import Refused, model_of
from .source import is_a_kernels
from .tiles import Tile, tile


class Functions:
    """The functions of a kernel.

    Parameters
    ----------
    changed : mapping
        Code that is run in place of a function's own: its mutant.
    wrap : callable
        Given an operation of the model, returns what is called in its place.
    """

    def __init__(
        self,
        changed: Mapping[types.CodeType, types.CodeType] | None = None,
        wrap: Callable[[Any], Any] | None = None,
    ) -> None:
        self.changed = changed or {}
        self.wrap = wrap or (lambda operation: operation)
        self.own: list[Callable[..., Any]] = []  # the kernel's functions, as they are met
        self.made: dict[int, Any] = {}
        self.kept: list[Any] = []  # so that no other object gets an id of theirs

    def model(self, value: Any) -> Any:
        """Give what stands for a value that a kernel names."""
        if id(value) not in self.made:
            made = self._model(value)
            if made is value:
                return value
            self.made[id(value)] = made
            self.kept.append(value)
        return self.made[id(value)]

    def _model(self, value: Any) -> Any:
        if (served := model_of(value)) is not None:
            return self.wrap(served)
        if isinstance(value, types.ModuleType):
            return _Module(value, self)
        if isinstance(value, gl.constexpr):
            return self.model(value.value)
        if type(value).__name__ in ("ConstexprFunction", "constexpr_function"):
            return _constant(value)
        if isinstance(value, (JITCallable, InterpretedFunction)):
            return self.function(value.fn)
        if getattr(value, "__triton_aggregate__", False):
            return self._aggregate(value)
        if isinstance(value, type) and value.__module__.startswith("triton"):
            return value  # types and layouts are what they are
        if getattr(value, "__triton_builtin__", False):
            return _refusing(value)
        return value

    def function(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Let a kernel's function see the model."""
        self.own.append(original)
        code = self.changed.get(original.__code__, original.__code__)
        names: dict[str, Any] = {"__builtins__": builtins, "__name__": original.__module__}
        made = types.FunctionType(
            code, names, original.__name__, original.__defaults__, self._closure(original, code)
        )
        made.__kwdefaults__ = original.__kwdefaults__
        is_a_kernels(code)

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if "range" not in names:  # a name may be given its value after the function is made
                self._fill(names, code, original.__globals__)
            return made(*args, **kwargs)

        return call

    def _fill(self, names: dict[str, Any], code: types.CodeType, known: dict[str, Any]) -> None:
        for name in _names(code):
            if name in known:
                names[name] = self.model(known[name])
        names.setdefault("range", language.loop_range)

    def _closure(
        self, original: Callable[..., Any], code: types.CodeType
    ) -> tuple[types.CellType, ...]:
        held = inspect.getclosurevars(original).nonlocals if original.__closure__ else {}
        return tuple(types.CellType(self.model(held[name])) for name in code.co_freevars)

    def _aggregate(self, original: Any) -> type:
        """Make a class of an aggregate: its fields, and its methods as the model runs them."""
        members: dict[str, Any] = {"__setattr__": _set_field}
        for name, member in vars(original).items():
            static = isinstance(member, staticmethod)
            inner = member.__func__ if static else member
            if isinstance(inner, JITCallable):
                made = self.model(inner)
                members[name] = staticmethod(made) if static else made
            elif isinstance(member, property):
                members[name] = property(self.model(member.fget))
        own = original.hash_attrs[0]
        if getattr(own, "__triton_builtin__", False):  # made by Triton: each field is a parameter
            fields = list(original.__annotations__)
            defaults = getattr(original, "__aggregate_defaults__", {})
            members["__init__"] = functools.partialmethod(_set_fields, fields, defaults)
        else:
            members["__init__"] = self.model(own) if isinstance(own, JITCallable) else own
        return type(original.__name__, (), members)


def _set_fields(self: Any, fields: Any, defaults: Any, *args: Any, **named: Any) -> None:
    given = dict(zip(fields, args, strict=False)) | named
    for name in fields:
        setattr(self, name, given[name] if name in given else defaults[name])


def _set_field(self: Any, name: str, value: Any) -> None:
    """Keep a constant as the plain value that it is here."""
    object.__setattr__(self, name, value.value if isinstance(value, gl.constexpr) else value)


class _Module:
    """A module, whose attributes are the model's."""

    def __init__(self, module: types.ModuleType, functions: Functions) -> None:
        self._module = module
        self._functions = functions

    def __getattr__(self, name: str) -> Any:
        return self._functions.model(getattr(self._module, name))


def _names(code: types.CodeType) -> set[str]:
    """List the names that a function may look up, those within it included."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _constant(function: Any) -> Callable[..., Any]:
    """Call a function of constants, which are plain values here."""

    def call(*args: Any, **kwargs: Any) -> Any:
        result = function.fn(*args, **kwargs)
        return result.value if isinstance(result, gl.constexpr) else result

    return call


def _refusing(original: Any) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise Refused(
            f"{original.__module__}.{getattr(original, '__name__', original)} is not modelled"
        )

    return refuse


def argument(value: Any, constant: bool) -> Any:
    """Give what a kernel receives for an argument of its launch.

    Parameters
    ----------
    value : object
        A tensor on the CPU, a descriptor, a number, or a tuple of those.
    constant : bool
        Whether the parameter is a `gl.constexpr`.
    """
    if isinstance(value, gl.constexpr):
        return argument(value.value, True)
    if constant or value is None or isinstance(value, (str, gl.dtype)):
        return value
    if isinstance(value, torch.Tensor):
        return Pointer(Storage(value), Tile(0, gl.int64))
    if isinstance(value, TensorDescriptor):
        return Descriptor(
            Storage(value.base), value.shape, value.strides, value.block_shape, value.layout,
            value.padding,
        )  # fmt: skip
    if isinstance(value, (tuple, list)):
        made = [argument(item, constant) for item in value]
        return type(value)(*made) if hasattr(value, "_fields") else tuple(made)
    if isinstance(value, (bool, int, float)):
        return tile(value)
    return value
