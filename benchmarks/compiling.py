"""torch.compile, as benchmarks use it."""

from collections.abc import Callable
from typing import Any


def under_compile(operation: Callable[..., Any], compiler: str) -> Callable[..., Any]:
    """Compile an operation for one size, so that its backward pass may run many times.

    Parameters
    ----------
    operation : callable
    compiler : str
        torch.compile's backend.

    Returns
    -------
    callable
    """
    import torch._functorch.config

    torch._dynamo.reset()  # or the eighth size would not be compiled any more
    torch._functorch.config.donated_buffer = False
    return torch.compile(operation, dynamic=False, backend=compiler)
