"""Autotuned kernels without a GPU: nothing can be timed, so several configurations run instead.

Whenever Triton would tune a kernel, that is for each new key, it runs with a few of its
configurations, one after another, each on the same memory; the program goes on with what the first
one leaves. Hooks are called and lists are pruned as Triton does it. Configurations that differ only
in what the interpreter does not know (`num_warps`, `num_stages`, ...) count as one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from triton.runtime.autotuner import Autotuner

from .watch import Watch

CONFIGURATIONS = 3  # of each autotuned kernel, unless another limit is set


class Configurations:
    """Chooses configurations, and keeps count.

    Parameters
    ----------
    watch : Watch
        That watches the launches.
    limit : int
        The most configurations of one kernel that run for one key.

    Attributes
    ----------
    run : dict
        For each kernel the configurations that have run, and how many different ones it has.
    """

    def __init__(self, watch: Watch, limit: int) -> None:
        self.watch, self.limit = watch, limit
        self.run: dict[str, tuple[set[str], int]] = {}
        self._best: dict[tuple[Any, ...], Any] = {}

    def counts(self) -> dict[str, tuple[int, int]]:
        """Say for each kernel how many configurations have run, and how many there are."""
        return {name: (len(run), n) for name, (run, n) in self.run.items()}

    @contextmanager
    def chosen(self) -> Iterator[None]:
        """Stand for Triton's autotuner while the context lasts."""
        before = Autotuner.run
        Autotuner.run = lambda tuner, *args, **options: self._launch(tuner, args, options)
        try:
            yield
        finally:
            Autotuner.run = before

    def _launch(self, tuner: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        tuner.nargs = dict(zip(tuner.arg_names, args, strict=False))
        given = {**tuner.nargs, **options}
        key = (id(tuner), *_key(tuner, given))
        tuned = False
        if key not in self._best:
            pruned = tuner.prune_configs(options) if len(tuner.configs) > 1 else tuner.configs
            different = _different(pruned)
            best, *others = _spread(different, self.limit)
            tuned = len(different) > 1
            for configuration in others:
                with self.watch.undoing(list(_tensors(given.values()))):
                    self._benchmark(tuner, configuration, args, options)
            self._best[key] = best
            self._count(tuner, [best, *others], len(different))
        configuration = self._best[key]
        tuner.best_config = configuration
        full = {**given, **configuration.all_kwargs()}
        if tuned:
            tuner.pre_hook(full, reset_only=True)
        if configuration.pre_hook is not None:
            configuration.pre_hook(full)
        return self._run(tuner, configuration, args, options)

    def _benchmark(
        self, tuner: Any, configuration: Any, args: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        """Run once with the hooks that Triton calls when it times a configuration."""
        full = {**tuner.nargs, **options, **configuration.all_kwargs()}
        if configuration.pre_hook is not None:
            configuration.pre_hook(full)
        tuner.pre_hook(full)
        try:
            self._run(tuner, configuration, args, options)
        except Exception as error:
            tuner.post_hook(full, exception=error)
            raise
        tuner.post_hook(full, exception=None)

    def _run(
        self, tuner: Any, configuration: Any, args: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        self.watch.configuration = str(configuration)
        try:
            return tuner.fn.run(*args, **options, **configuration.all_kwargs())
        finally:
            self.watch.configuration = ""

    def _count(self, tuner: Any, configurations: list[Any], n_different: int) -> None:
        run, n = self.run.get(tuner.base_fn.__name__, (set(), 0))
        run |= set(map(str, configurations))
        self.run[tuner.base_fn.__name__] = run, max(n, n_different)


def _key(tuner: Any, given: dict[str, Any]) -> tuple[Any, ...]:
    """Say for which arguments Triton would tune anew."""
    named = {name: given[name] for name in tuner.arg_names if name in given}
    dtypes = [str(value.dtype) for value in named.values() if hasattr(value, "dtype")]
    return (*(str(named[name]) for name in tuner.keys if name in named), *dtypes)


def _different(configurations: list[Any]) -> list[Any]:
    """Leave out those that the interpreter cannot tell from an earlier one."""
    found = {(str(sorted(c.kwargs.items())), c.pre_hook): c for c in reversed(configurations)}
    return [c for c in configurations if any(c is kept for kept in found.values())]


def _spread(configurations: list[Any], limit: int) -> list[Any]:
    """Take the first, the last and some between."""
    n = min(limit, len(configurations))
    places = np.linspace(0, len(configurations) - 1, n).round().astype(int)
    return [configurations[i] for i in dict.fromkeys(places.tolist())]


def _tensors(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _tensors(value)
        elif hasattr(value, "base") and hasattr(value, "block_shape"):  # a tensor descriptor
            yield value.base
        elif hasattr(value, "data_ptr"):
            yield value
