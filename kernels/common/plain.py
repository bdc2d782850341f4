"""Plain launches, `kernel[grid](...)`, of kernels that are not this project's.

Their callers know no door. `watch_plain_launches` puts it where every launch comes by, in Triton's
own classes, so that the wishes of instruments (launch.py) hold for them, too: a forced
configuration, a record of what was launched, compilation in place of a launch. While no instrument
wishes anything, Triton's own code runs as it is.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

from ._triton import UNAVAILABLE
from .launch import INTERPRETED, Launch, door, kernel_name
from .strided import tensors_in

# By name, as instruments list kernels: every kernel that was launched, autotuner included.
launched: dict[str, Any] = {}
# The autotuner's choice for the kernel that is being launched.
_chosen: list[tuple[Any, int, dict[str, Any]]] = []
_runs: list[Callable[..., Any]] = []  # the autotuner's, with the door in it


@functools.cache
def watch_plain_launches() -> None:
    """Put the door into Triton's classes; once is enough."""
    if UNAVAILABLE is not None:
        return
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.jit import JITFunction

    _runs.append(_extended(Autotuner.run, _tune))
    Autotuner.run = _runs[0]
    JITFunction.run = _extended(JITFunction.run, _launch)
    if INTERPRETED:
        from triton.runtime.interpreter import InterpretedFunction

        InterpretedFunction.run = _extended(InterpretedFunction.run, _launch)


@contextlib.contextmanager
def choosing_here() -> Iterator[None]:
    """Let autotuners take what is asked for here, whoever else stands in their place."""
    from triton.runtime.autotuner import Autotuner

    watch_plain_launches()
    before, Autotuner.run = Autotuner.run, _runs[0]
    try:
        yield
    finally:
        Autotuner.run = before


def _extended(original: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **options: Any) -> Any:
        return function(original, self, *args, **options)

    return method


def _tune(original: Callable[..., Any], tuner: Any, *args: Any, **options: Any) -> Any:
    """Let an autotuner take the configuration that is asked for, or each if none runs."""
    wishes = door()
    if not (wishes.compile_only or wishes.configuration is not None or INTERPRETED):
        return original(tuner, *args, **options)
    tuner.nargs = dict(zip(tuner.arg_names, args, strict=False))
    plain = {name: value for name, value in options.items() if name not in ("grid", "warmup")}
    left = tuner.prune_configs(plain)
    if not wishes.compile_only:
        wanted = tuner.configs[(wishes.configuration or 0) % len(tuner.configs)]
        # One that is pruned for these arguments never runs on them.
        left = [wanted if wanted in left else left[(wishes.configuration or 0) % len(left)]]
    result = None
    for config in left:
        given = {**tuner.nargs, **plain, **config.all_kwargs()}
        if not wishes.compile_only:
            tuner.best_config = config
            tuner.pre_hook(given, reset_only=True)  # as after the first call's measurements
        if config.pre_hook is not None:
            config.pre_hook(given)
        _chosen.append((tuner, tuner.configs.index(config), config.all_kwargs()))
        try:
            result = tuner.fn.run(*args, **options, **config.all_kwargs())
        finally:
            _chosen.pop()
    return result


def _launch(
    original: Callable[..., Any],
    kernel: Any,
    *args: Any,
    grid: Any,
    warmup: bool,
    **options: Any,
) -> Any:
    """Launch or compile, and record it."""
    wishes = door()
    own = kernel.fn.__module__.startswith(f"{__name__.partition('.')[0]}.")
    if own or warmup or (wishes.log is None and not wishes.compile_only):
        return original(kernel, *args, grid=grid, warmup=warmup, **options)
    outer, index, choice = _chosen[-1] if _chosen else (kernel, 0, {})
    compiled, error, call = None, "", None
    if wishes.calls_only:
        call = _call(kernel, args, grid, options)
    elif wishes.compile_only:
        try:
            compiled = original(kernel, *args, grid=grid, warmup=True, **options)
        except Exception as reason:  # the other configurations are still to be tried
            error = f"{type(reason).__name__}: {reason}"
    else:
        compiled = original(kernel, *args, grid=grid, warmup=False, **options)
    launched[kernel_name(kernel)] = outer
    if wishes.log is not None:
        named = {**dict(zip(kernel.arg_names, args, strict=False)), **options}
        tensors = dict(pair for name, value in named.items() for pair in tensors_in(name, value))
        entry = Launch(kernel_name(kernel), index, choice, tensors, compiled, error, call=call)
        if compiled is not None and wishes.compile_only:
            programs = tuple(grid(named) if callable(grid) else grid)
            entry = dataclasses.replace(entry, programs=programs, arguments=tuple(named.items()))
        wishes.log.append(entry)
    return compiled


def _call(
    kernel: Any, args: tuple[Any, ...], grid: Any, options: dict[str, Any]
) -> tuple[Any, ...]:
    """Say what a launch is given: function, grid, arguments and constants."""
    named = dict(zip(kernel.arg_names, args, strict=False))
    named |= {name: value for name, value in options.items() if name in kernel.arg_names}
    compiled_in = {p.name for p in kernel.params if p.is_constexpr}
    constants = {name: value for name, value in named.items() if name in compiled_in}
    arguments = tuple(named[p.name] for p in kernel.params if p.name in named.keys() - compiled_in)
    return kernel, tuple(grid(named) if callable(grid) else grid), arguments, constants
