"""A faithful interpreter: Triton's CPU interpreter, made right, strict and fast.

With ``TRITON_INTERPRET=1`` Triton runs a kernel as Python, one program after another. A value is a
`TensorHandle`, a NumPy array and a Triton type; each operation of the language is a method of one
`InterpreterBuilder` that calls NumPy. That makes a kernel easy to watch, but Triton's own
interpreter is neither right nor strict nor fast. Each file here mends one part of it:

In numbers/:

- `arithmetic`: it computes on the bits of bfloat16 as if they were integers, rounds a fused
  multiply-add twice, ignores tf32, and makes integer overflow and division by zero look harmless.
- `casts`: one float32 in ten becomes another float8 than on a GPU, and a float that is no int32
  becomes what the CPU happens to make of it.
- `blocks`: reductions and scans call the kernel's function once for each element, on the bits of
  bfloat16. Here they combine whole halves, in a tree.

In language/:

- `language`: it patches `triton.language` anew for each launch and each call of a device function,
  copies every tensor onto itself, leaves `and` and `or` to Python, and calls any block true.
- `loops`: a loop's variable is one of Python's integers. Here it is one of the kernel's.
- `extern`: it has no libdevice, and knows the language's functions by `tl.` alone; the room
  libdevice/ computes the library.
- `assembly`: nobody assembles. A few registers are answered for, the rest is refused by name.

In programs/:

- `launches`: an instrument can follow each launch, choose the order of its programs, and learn
  which tensor a pointer came from.
- `turns`: a program that waits for one that has not run yet waits for ever. Here they take turns.
- `memory`: masked-off lanes of a load read as zeros, so a kernel that uses them looks right. Here
  they are undefined. :func:`observe` lets an instrument see every load, store and atomic.

In common/:

- `values`: bfloat16 is held as its bits in a uint16 array, and cast by truncation or not at all;
  a float argument stays float64. Here casts round as a GPU does, and there is a value that stands
  for "undefined".
- `shapes`: it works out for every value what follows from its shape.
- `location`: it does not say where a kernel failed.

`common/patches` is how the other files declare what they mend. Nothing changes before
:func:`install`. In several threads one launch waits for another, unlike in Triton itself;
instruments are in one alone.
"""

import dataclasses
import functools
import importlib

from triton.runtime import interpreter as upstream

from .common import shapes, values  # noqa: F401 (they declare repairs)
from .common.events import Event, leaving_out_undefined, listen, undefined_as
from .common.patches import apply
from .common.values import holds_poison, narrow
from .language import assembly, extern, language, loops  # noqa: F401 (they declare repairs)
from .language.loops import some_turns
from .numbers import arithmetic, blocks, casts  # noqa: F401 (they declare repairs)
from .programs import handle  # noqa: F401 (it declares a repair)
from .programs.launches import Launch, follow
from .programs.memory import Access, observe
from .programs.peek import peek
from .programs.turns import EndlessWait

__all__ = [
    "Access",
    "EndlessWait",
    "Event",
    "Launch",
    "follow",
    "holds_poison",
    "install",
    "leaving_out_undefined",
    "listen",
    "narrow",
    "observe",
    "peek",
    "some_turns",
    "undefined_as",
]


@functools.cache
def install() -> None:
    """Patch `triton.runtime.interpreter`. A second call does nothing.

    Call it before kernels run, in a process with ``TRITON_INTERPRET=1``.

    Raises
    ------
    RuntimeError
        If this version of Triton lacks the internals that are patched.
    """
    # Triton imports this at its first launch, from the language as it is patched then; Python 3.10
    # fails in the middle of that.
    importlib.import_module("triton.experimental.gluon")
    apply()
    extern.open_language()
    # Without debug=True, tl.device_assert does nothing. It also asks for the overflow checks.
    builder = upstream.interpreter_builder
    builder.options = dataclasses.replace(builder.options, debug=True)
