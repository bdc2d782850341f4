"""Triton, where the platform has it; elsewhere a stand-in, so that the kernel files still import.

Triton ships for Linux alone. Without it, every operation still runs as eager PyTorch, and asking
for a kernel says why there is none.
"""

from typing import Any

UNAVAILABLE: str | None = None

try:
    import triton
    import triton.language as tl
except ImportError as error:
    UNAVAILABLE = str(error)

    class _Absent:
        """Take any decorator or attribute access that a kernel file makes when it is imported."""

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return self

        def __call__(self, *args: Any, **options: Any) -> Any:
            return self

    triton = tl = _Absent()

__all__ = ["UNAVAILABLE", "tl", "triton"]
