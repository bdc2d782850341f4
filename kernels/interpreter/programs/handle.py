"""What a launch returns: a compiled kernel's place is taken by a handle that answers for it."""

from types import SimpleNamespace
from typing import Any

from ..common.patches import extends


class Handle:
    """Stands for the compiled kernel that a launch, or `kernel.warmup(...)`, returns.

    Parameters
    ----------
    function : InterpretedFunction
        The kernel.
    options : dict
        The launch's keyword arguments.

    Attributes
    ----------
    n_regs, n_spills, n_max_threads : int
        What a program may ask for to choose a grid. Nothing was compiled: they are no measurement.
    metadata : namespace
        `name`, `shared`, `num_warps`, `num_stages`, `num_ctas`.
    asm : dict
        Empty.
    """

    n_regs = 32
    n_spills = 0
    n_max_threads = 1024

    def __init__(self, function: Any, options: dict[str, Any]) -> None:
        self._function, self._options = function, options
        self.name = function.__name__
        self.metadata = SimpleNamespace(
            name=self.name,
            shared=1024,
            num_warps=options.get("num_warps", 4),
            num_stages=options.get("num_stages", 3),
            num_ctas=options.get("num_ctas", 1),
        )
        self.asm: dict[str, str] = {}

    def _init_handles(self) -> None:
        """Load nothing: programs call this before they ask for registers."""

    def __getitem__(self, grid: Any) -> Any:
        """Return what launches the kernel with the constants that it was compiled for."""
        names = self._function.arg_names

        def launch(*args: Any, **options: Any) -> Any:
            given = set(names[: len(args)])
            constants = {n: v for n, v in self._options.items() if n in names and n not in given}
            return self._function.run(*args, grid=grid, warmup=False, **(constants | options))

        return launch


@extends("InterpretedFunction.run")
def _run(original, self, *args, **options):
    original(self, *args, **options)
    return Handle(self, {n: v for n, v in options.items() if n not in ("grid", "warmup")})
