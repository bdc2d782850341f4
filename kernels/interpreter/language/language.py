"""The launch and the language: patched once, copying nothing, `and`, `or` and `if` as compiled.

To run a kernel as Python, upstream sets replacements in the modules of `triton.language` and
rewrites the kernel's syntax tree.
"""

import ast
import functools
import operator
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import triton.language as tl
from triton.language import semantic
from triton.runtime import interpreter as upstream

from ..common.location import in_kernel
from ..common.patches import adds, extends, replaces

_MISSING = object()
_SEMANTIC = semantic.__file__


class _Language:
    """The replacements in `triton.language`: found once, then set and unset.

    Upstream searches the language anew for each launch and each call of a device function, and
    after the latter does not undo it. This stands in for `_LangPatchScope`, which calls `set_attr`
    while it searches and `restore` when a launch ends.
    """

    def __init__(self) -> None:
        self.before: dict[tuple[Any, str], object] = {}
        self.during: dict[tuple[Any, str], object] = {}
        self.depth = 0  # launches and device functions within each other

    def set_attr(self, obj: Any, name: str, value: object) -> None:
        self.before.setdefault((obj, name), vars(obj).get(name, _MISSING))
        self.during[obj, name] = value

    def patch(self) -> None:
        self.depth += 1
        if self.depth == 1:
            for (obj, name), value in self.during.items():
                setattr(obj, name, value)

    def restore(self) -> None:
        self.depth -= 1
        if self.depth == 0:
            for (obj, name), value in self.before.items():
                if value is _MISSING:
                    delattr(obj, name)
                else:
                    setattr(obj, name, value)


_language = _Language()


@replaces("_LangPatchScope")
def _scope():
    return _language


@replaces("TritonSemantic")
def _semantic_of(builder):
    """Triton 3.6 makes a new one for each launch, which lacks what is mended in the first."""
    return upstream.interpreter_semantic


@extends("_patch_lang")
def _patch_language(original, fn):
    if not _language.during:
        # upstream patches the modules that it finds among a kernel's globals: we name both
        original(SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
        _language.set_attr(tl.tensor, "__bool__", _truth)
        # The builder's types are the language's own; upstream looks them up by name, and before 3.8
        # forgets a float8 format.
        _language.set_attr(tl.dtype, "to_ir", lambda self, builder: self)
    _language.patch()
    return _language


@replaces("InterpretedFunction.__call__")
def _call_device_function(self, *args, **options):
    upstream._patch_lang(self.fn)
    try:
        return self.rewrite()(*args, **options)
    finally:
        _language.restore()


# --- arguments ------------------------------------------------------------------------------------


@extends("GridExecutor._init_args_hst")
def _copy_in(original, self, args, options):
    if _is_off_cpu((*args, *options.values())):
        return original(self, args, options)
    return args, options


@extends("GridExecutor._restore_args_dev")
def _copy_out(original, self, args, host_args, options, host_options):
    """Upstream copies every tensor's whole storage onto itself after each launch."""
    if _is_off_cpu((*args, *options.values())):
        original(self, args, host_args, options, host_options)


def _is_off_cpu(argument: Any) -> bool:
    if isinstance(argument, tuple):
        return any(map(_is_off_cpu, argument))
    if isinstance(argument, upstream.TensorDescriptor):
        return _is_off_cpu(argument.base)
    return hasattr(argument, "data_ptr") and argument.device.type != "cpu"


# --- truth ----------------------------------------------------------------------------------------


def _truth(self: tl.tensor) -> bool:
    """Upstream calls a block true, whatever it holds; the compiler refuses `if block:`."""
    caller = sys._getframe(1)
    if caller.f_code.co_filename == _SEMANTIC:
        return True  # `if other` is meant for `if other is not None`: 0.0 would be lost
    if self.handle.data.size == 1:
        return bool(self.handle.data.item())
    if in_kernel(caller):
        raise ValueError("a block has no single truth value: use tl.where, &, | or ~")
    return True


@adds("_logical")  # a rewritten kernel sees the names of Triton's interpreter
def _logical(method: str, *operands: Callable[[], Any]) -> Any:
    """Evaluate `and` or `or` as compiled: only a constant stops the evaluation early."""
    tensors, value = [], None
    for operand in operands:
        value = operand()
        if isinstance(value, tl.tensor):
            tensors.append(value if value.dtype == tl.int1 else value != 0)
        elif bool(value) == (method == "logical_or"):
            return value
    if not tensors:
        return value
    return functools.reduce(lambda left, right: getattr(left, method)(right), tensors)


@adds("ASTTransformer.visit_BoolOp")
def _rewrite_bool_op(self, node):
    """Make `and` and `or` work lane by lane; upstream leaves them to Python."""
    self.generic_visit(node)
    method = "logical_and" if isinstance(node.op, ast.And) else "logical_or"
    nothing = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    operands = [ast.Lambda(args=nothing, body=value) for value in node.values]
    function = ast.Name(id="_logical", ctx=ast.Load())
    call = ast.Call(func=function, args=[ast.Constant(method), *operands], keywords=[])
    return ast.copy_location(call, node)


@adds("_asserted")
def _asserted(condition: Any, message: str = "") -> None:
    """Do as `assert` compiled: each lane of a block must be true."""
    if isinstance(condition, tl.tensor):
        tl.device_assert(condition, message)
    else:
        assert condition, message


@adds("ASTTransformer.visit_Assert")
def _rewrite_assert(self, node):
    """Upstream leaves `assert` to Python, which asks a block for a single truth."""
    self.generic_visit(node)
    function = ast.Name(id="_asserted", ctx=ast.Load())
    operands = [node.test, *filter(None, [node.msg])]
    call = ast.Call(func=function, args=operands, keywords=[])
    return ast.copy_location(ast.Expr(call), node)


@extends("ASTTransformer.visit_Assign")
def _rewrite_assignment(original, self, node):
    node.value = self.visit(node.value)  # forgotten upstream before 3.9
    return original(self, node)


def _computes_with_tensors(name: str) -> None:
    """Let a constant left of a block give a block: upstream wraps that as a constant again."""

    @extends(f"tl.constexpr.__{name.rstrip('_')}__")
    def compute(original: Any, constant: tl.constexpr, other: Any) -> Any:
        if isinstance(other, tl.tensor):
            return getattr(operator, name)(constant.value, other)
        return original(constant, other)


for _name in (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "and_", "or_", "xor", "lshift", "rshift",
    "lt", "le", "gt", "ge", "eq", "ne",
):  # fmt: skip
    _computes_with_tensors(_name)

# Compiled, a type that a kernel hands to a function is a constant, whose `value` is the type.
adds("tl.dtype.value")(property(lambda self: self))
