"""The command `gptwin` as a user meets it, in a fork: without the seconds that its imports take.

Its words go to files, and what it changes of the process ends with it. What Triton or a kernel's
file reads as it is imported stands already: a command that chooses how kernels run needs a process
of its own.
"""

import os
import sys
import tempfile
import traceback
from typing import IO, NamedTuple, NoReturn

import torch

from gptwin import cli


class Done(NamedTuple):
    """How a command ended: its exit code, and what it printed."""

    status: int
    printed: str
    errors: str


def gptwin(*arguments: str, **environment: str) -> Done:
    """Run a command to its end."""
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            _run(arguments, environment, printed, errors)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        printed.seek(0)
        errors.seek(0)
        return Done(status, printed.read().decode(), errors.read().decode())


def _run(
    arguments: tuple[str, ...], environment: dict[str, str], printed: IO[bytes], errors: IO[bytes]
) -> NoReturn:
    status = 1
    try:
        for file, stream in ((printed, 1), (errors, 2)):
            os.dup2(file.fileno(), stream)
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", encoding="utf-8") for stream in (1, 2))
        os.environ.update(environment)
        sys.argv = ["gptwin", *arguments]
        torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
        cli.main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
