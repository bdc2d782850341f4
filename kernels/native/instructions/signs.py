"""Which integers are signed: Triton's front end knows it, its IR does not.

Unsigned numbers wrap by definition, as hashes want; a signed sum, difference or product that wraps
is a mistake, and the interpreter raises there. So where code is checked, the front end is made to
mark the signed operations with an attribute, which `arithmetic` looks for.
"""

import functools
from typing import Any

from triton.language.semantic import TritonSemantic

from .arithmetic import SIGNED


def mark_signed() -> None:
    """Let the front end mark signed operations of kernels for this backend; twice does no harm."""
    for name in ("add", "sub", "mul"):
        original = getattr(TritonSemantic, name)
        if not hasattr(original, "__wrapped__"):
            setattr(TritonSemantic, name, _marking(original))


def _marking(original: Any) -> Any:
    @functools.wraps(original)
    def wrapped(self: Any, input: Any, other: Any, sanitize_overflow: Any) -> Any:
        result = original(self, input, other, sanitize_overflow)
        dtype = result.dtype.scalar
        is_checked = sanitize_overflow and getattr(self.builder.options, "checked", False)
        if is_checked and dtype.is_int_signed() and 1 < dtype.int_bitwidth < 64:
            result.handle.set_attr(SIGNED, self.builder.get_unit_attr())
        return result

    return wrapped
