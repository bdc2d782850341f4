"""One process that proves, for all tests here: starting one takes longer than most proofs."""

import functools
from concurrent.futures import Executor
from pathlib import Path

from gptwin.lab.prove.safe import workers
from gptwin.lab.prove.safe.prove import Outcome

HERE = Path(__file__).parent


@functools.cache
def _provers() -> Executor:
    return workers.compiling()


@functools.cache
def proved(file: str) -> Outcome:
    """Prove the kernels of a file beside this one; what is refuted is not run."""
    return _provers().submit(workers.prove, str(HERE / file)).result()
