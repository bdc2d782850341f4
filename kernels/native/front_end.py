"""Triton's front end, made faster: it takes more than half of what compiling costs.

It parses a function's source again at each of its calls. The tree is only read, so one will do. And
what it makes, TTIR, is the same for all processors and settings of this backend, so it has a place
of its own in Triton's cache: another processor, as continuous integration has them, begins there.

The rest is for quick code alone, which runs once or twice:

- A number that is 1 is compiled into a kernel, and every other combination of ones compiles anew:
  most often strides. That pays where a kernel runs for long. Random cases have all combinations,
  so to quick code a 1 is a number like any other.
- A loop's body is visited twice, and an inner loop's four times: first to see which variables it
  changes, then to generate it. Here those that it assigns to are taken to change; what does not,
  MLIR's canonicaliser removes. Where that fails, because a variable changes its type, say, Triton
  does it in its own way, and has its own words for what is wrong.
"""

import ast
import contextlib
import dataclasses
import functools
import hashlib
import io
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from triton._C.libtriton import get_cache_invalidating_env_vars, ir
from triton.compiler import code_generator
from triton.compiler.compiler import ASTSource
from triton.runtime import cache, jit

from . import backend, compiler

_ANY_OTHER = 2


@functools.cache
def make_faster() -> None:
    """Change it for kernels that are first launched from now on; a second call does nothing."""
    generator = code_generator.CodeGenerator
    jit.JITCallable.parse = lambda self: _tree_of(self._src)
    jit.create_function_from_signature = _generalised(jit.create_function_from_signature)
    generator._find_carries = _assigned_is_carried(generator._find_carries)
    ASTSource.make_ir = _cached(_with_second_try(ASTSource.make_ir))


@functools.lru_cache(maxsize=1024)
def _tree_of(source: str) -> ast.Module:
    return ast.parse(source)


# -- TTIR, kept ------------------------------------------------------------------------------------


def _cached(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap what generates TTIR."""

    @functools.wraps(original)
    def make_ir(source: Any, target: Any, options: Any, functions: Any, *others: Any) -> Any:
        if not isinstance(options, compiler.CPUOptions):
            return original(source, target, options, functions, *others)
        kept = cache.get_cache_manager(_key(source, options))
        path, context = kept.get_file("kernel.ttir"), others[-1]
        if path is None:
            module = original(source, target, options, functions, *others)
            kept.put(str(module), "kernel.ttir", binary=False)
            return module
        module = ir.parse_mlir_module(path, context)
        module.context = context  # keeps it alive
        return module

    return make_ir


def _key(source: Any, options: Any) -> str:
    """Hash all that TTIR depends on: the sources, the arguments' types, Triton, and these files."""
    alike = dataclasses.replace(options, **dataclasses.asdict(compiler.Settings()))
    triton = cache.triton_key(), sorted(get_cache_invalidating_env_vars().items())
    made_by = f"{triton} {_hash_of_these_files()}"
    return hashlib.sha256(f"{made_by} {source.hash()} {alike.hash()}".encode()).hexdigest()


@functools.cache
def _hash_of_these_files() -> str:
    files = (Path(file).read_bytes() for file in (__file__, backend.__file__, compiler.__file__))
    return hashlib.sha256(b"".join(files)).hexdigest()


# -- one kernel for all values ---------------------------------------------------------------------


def _generalised(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap what makes the function that sorts a launch's arguments by type and value."""

    @functools.wraps(original)
    def create(signature: Any, parameters: Any, backend: Any) -> Any:
        binder = original(signature, parameters, backend)
        # Triton keeps one binder for each device, and to our driver settings are devices.
        if isinstance(backend, compiler.CPUBackend) and compiler.settings.quick:
            names = binder.__globals__
            specialise = names["specialize_impl"]
            names["specialize_impl"] = lambda of, value, *how: specialise(of, _any(value), *how)
        return binder

    return create


def _any(value: Any) -> Any:
    """Put another number in the place of each 1."""
    if type(value) is int:
        return _ANY_OTHER if value == 1 else value
    if isinstance(value, tuple):
        parts = map(_any, value)
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


# -- loops, visited once ---------------------------------------------------------------------------

_once: list[bool] = []  # whether the kernel that is being generated is tried in this way


def _with_second_try(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap what generates TTIR."""

    @functools.wraps(original)
    def make_ir(source: Any, target: Any, options: Any, *others: Any) -> Any:
        if not getattr(options, "quick", False):
            return original(source, target, options, *others)
        printed = io.StringIO()  # a module that is not valid is printed
        _once.append(True)
        try:
            with contextlib.redirect_stdout(printed):
                module = original(source, target, options, *others)
        except Exception:  # whatever is wrong will be so again, or was our doing
            module = None
        finally:
            _once.pop()
        if module is None:
            return original(source, target, options, *others)
        sys.stdout.write(printed.getvalue())
        return module

    return make_ir


def _assigned_is_carried(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap what finds out which variables a loop carries."""

    @functools.wraps(original)
    def find_carries(
        generator: Any, node: Any, liveins: dict[str, Any], ignore: Collection[str] = ()
    ) -> Any:
        names = [n for n in liveins if n not in ignore and n in _assigned_in(node)]
        carriable = all(code_generator._is_triton_value(liveins[name]) for name in names)
        if not (_once and isinstance(node, ast.For) and carriable):
            return original(generator, node, liveins, ignore)
        handles = code_generator.flatten_values_to_ir([liveins[name] for name in names])
        return names, list(handles), [liveins[name].type for name in names]

    return find_carries


@functools.lru_cache(maxsize=1024)
def _assigned_in(loop: ast.For | ast.While) -> frozenset[str]:
    """Return the names that a loop's body assigns to."""
    nodes = (node for statement in loop.body for node in ast.walk(statement))
    return frozenset(
        n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    )
