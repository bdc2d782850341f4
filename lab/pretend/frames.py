"""Whose code is running: the program's frames, without PyTorch's, Triton's and this package's."""

import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType

from ... import records


def _folder(package: str) -> str:
    """Find a package's folder, and import nothing."""
    spec = importlib.util.find_spec(package)
    return str(Path(spec.origin).parent) + os.sep if spec and spec.origin else os.devnull


_PYTORCH = _folder("torch")
_OTHERS = _folder("triton"), str(Path(records.__file__).parent) + os.sep


def program_frames() -> Iterator[tuple[FrameType, int]]:
    """Yield the frames of the program that is being watched, and their lines, innermost first."""
    for frame, line in traceback.walk_stack(sys._getframe(1)):
        file = frame.f_code.co_filename
        if not file.startswith((_PYTORCH, *_OTHERS, "<")):
            yield frame, line


def launched_at() -> str:
    """Name the program's innermost line, and the function that it is in."""
    for frame, line in program_frames():
        return f"{frame.f_code.co_name}, {shown_path(frame.f_code.co_filename)}:{line}"
    return ""


def maker() -> CodeType | None:
    """Return the code that makes a tensor: the program's, or autograd's, which asks nobody."""
    for frame, _ in traceback.walk_stack(sys._getframe(1)):
        file = frame.f_code.co_filename
        if file.startswith(_PYTORCH):
            if frame.f_code.co_name == "_engine_run_backward":
                return frame.f_code
        elif not file.startswith((*_OTHERS, "<")):
            return frame.f_code
    return None


def shown_path(file: str) -> str:
    """Write a file's path from here if it is below, else as it is."""
    relative = os.path.relpath(os.path.realpath(file))
    return file if relative.startswith("..") else relative
