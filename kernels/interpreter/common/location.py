"""Where a kernel is: its source line, in what is observed and in what goes wrong."""

import os
import sys
import traceback
from collections.abc import Iterable
from types import FrameType

import triton
from triton.runtime import interpreter as upstream
from triton.runtime.errors import InterpreterError

# Triton, and the interpreter's rooms.
_NOT_KERNELS = tuple(
    folder + os.sep
    for folder in (os.path.dirname(triton.__file__), os.path.dirname(os.path.dirname(__file__)))
)


def in_kernel(frame: FrameType) -> bool:
    """Say whether a frame belongs neither to Triton nor to this package.

    Parameters
    ----------
    frame : frame
        Of a running or failed call.
    """
    return not frame.f_code.co_filename.startswith(_NOT_KERNELS)


def source_line() -> str:
    """Name the kernel's source line that is being run, "file:line"."""
    return _innermost(traceback.walk_stack(sys._getframe(1)))


def with_location(error: InterpreterError) -> InterpreterError:
    """Add the kernel, the program and the source line to what went wrong.

    Parameters
    ----------
    error : InterpreterError
        What upstream makes of the exception that ended the launch, which is its cause.
    """
    frames = list(traceback.walk_tb(error.__cause__.__traceback__))
    where = _innermost(reversed(frames))
    builder = upstream.interpreter_builder
    return InterpreterError(
        f"{error}: kernel {builder.kernel_name}, program {builder.grid_idx}, at {where}"
    )


def _innermost(frames: Iterable[tuple[FrameType, int]]) -> str:
    lines = (f"{frame.f_code.co_filename}:{line}" for frame, line in frames if in_kernel(frame))
    return next(lines, "unknown")
