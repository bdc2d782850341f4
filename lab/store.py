"""What the instruments store: JSON and pages, each replaced in one step, with what made them."""

import contextlib
import datetime
import hashlib
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..core.checks import refuse

PACKAGE = Path(__file__).resolve().parent.parent


def expect_writable(argument: str, path: str) -> Path:
    """Refuse a file that could not be written, before the work that it is to hold.

    Parameters
    ----------
    argument : str
        What the user called it.
    path : str
        The file, which need not exist.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If it is a directory, or is in none that exists and may be written to.
    """
    wanted = Path(path)
    folder = wanted.resolve().parent
    if not folder.is_dir():
        refuse(argument, "a file in a directory that exists", path)
    if wanted.is_dir():
        refuse(argument, "a file", f"the directory {path}")
    if not os.access(folder, os.W_OK):
        refuse(argument, "a file in a directory that you may write to", path)
    return wanted


def write_text(path: Path, text: str) -> None:
    """Write a file whole; one that exists is replaced in one step or not at all.

    Parameters
    ----------
    path : Path
    text : str
        In UTF-8.

    Raises
    ------
    RuntimeError
        If the system does not let it be written.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.resolve().parent, suffix=path.suffix)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp's is for its owner alone
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            raise RuntimeError(f"{path}: cannot be written: {error.strerror}") from error
        raise


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Store a document as `write_text` does, behind what it was made with.

    Parameters
    ----------
    path : Path
    document : dict
        Ready for JSON, but for objects that `str` describes well enough.

    Raises
    ------
    RuntimeError
        As in `write_text`.
    """
    write_text(path, json.dumps(provenance() | document, indent=1, default=str) + "\n")


def provenance() -> dict[str, Any]:
    """Say what this process is made of.

    Returns
    -------
    dict
        Versions, the date, and under "sources" the fingerprints of core/ and kernels/.
    """
    import torch

    from ..kernels.common._triton import UNAVAILABLE, triton

    return {
        "gptwin": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "triton": triton.__version__ if UNAVAILABLE is None else None,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "sources": fingerprints(),
    }


def fingerprints() -> dict[str, str]:
    """Tell the sources of the twins from earlier and later ones.

    Returns
    -------
    dict of str to str
        File, such as "kernels/layers/softmax.py", to a hash of what it says.
    """
    files = (path for folder in ("core", "kernels") for path in (PACKAGE / folder).glob("**/*.py"))
    return {
        path.relative_to(PACKAGE).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        for path in sorted(files)
    }
