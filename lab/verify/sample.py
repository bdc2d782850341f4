"""The interpreter beside compiled kernels: one case of each row runs in both.

Compiled for the CPU, a kernel is judged by its reference alone, as on a GPU. So that the compiler
is not taken at its word, the interpreter runs a sample of the same cases in a process of its own
meanwhile. It must find them right as well. And where nothing in the kernels may be rounded in two
ways, no sum of floats and no exp or its like, both must give the same bits.
"""

import concurrent.futures
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import torch

from ..processes import end_with_parent
from ..twins.find import find_twin
from ..twins.twin import Case
from .check import check
from .verify import Job, Row, sampled_case


@dataclasses.dataclass(frozen=True)
class Sampled:
    """What the two ways to run kernels showed of each other.

    Attributes
    ----------
    n_cases : int
        Cases that ran in both.
    n_exact : int
        Those that had to be equal bit for bit.
    faults : list of str
        Where they are not, or where the interpreter disagrees with the reference.
    """

    n_cases: int
    n_exact: int
    faults: list[str]


class Sample:
    """Runs the sample of some rows in an interpreting process, from its making on.

    As a context, it ends the process however it is left.

    Parameters
    ----------
    jobs : sequence of Job
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        requests = [(j.operation, j.dtype, sampled_case(j), j.text) for j in jobs]
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(os.getpid())],
            env=os.environ | {
                "TRITON_INTERPRET": "1",
                "CUDA_VISIBLE_DEVICES": "",
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            },
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pool = concurrent.futures.ThreadPoolExecutor(1)
        self.printed = self.pool.submit(self.process.communicate, json.dumps(requests))

    def __enter__(self) -> "Sample":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()  # it has ended, unless something went wrong
        self.pool.shutdown()

    def compare(self, rows: Sequence[Row]) -> Sampled:
        """Wait for the interpreter and compare.

        Parameters
        ----------
        rows : sequence of Row
            Of the compiled kernels, in any order.

        Returns
        -------
        Sampled
        """
        out, errors = self.printed.result()
        if self.process.returncode != 0:
            told = (errors.strip().splitlines() or ["nothing was said"])[-1]
            return Sampled(0, 0, [f"the interpreter ran none of the sample: {told}"])
        answered = zip(self.jobs, map(json.loads, out.splitlines()), strict=True)
        answers = {(job.operation, job.dtype): answer for job, answer in answered}
        pairs = [(row, answers[row.job.operation, row.job.dtype]) for row in rows]
        faults = [fault for pair in pairs if (fault := _difference(*pair))]
        exact = sum(row.sampled is not None and row.sampled.exact for row in rows)
        return Sampled(len(answers), exact, faults)


def _difference(row: Row, interpreted: dict[str, Any]) -> str:
    """Say in a line what a row's case shows; empty if nothing."""
    compiled = row.sampled
    if compiled is None or not compiled.passed:
        return ""  # the table says that already
    where = f"{row.job.operation} {row.job.dtype} {json.dumps(compiled.case)}"
    if not interpreted["passed"]:
        return f"{where}: the interpreter, unlike the compiled kernel, disagrees with the reference"
    differing = [n for n, bits in compiled.bits.items() if interpreted["bits"].get(n) != bits]
    if compiled.exact and differing:
        return f"{where}: compiled and interpreted, {', '.join(differing)} differs in its bits"
    return ""


def _answer(operation: str, dtype: str, case: Case, text: str | None) -> dict[str, Any]:
    """Run a case in this process, which interprets."""
    checked = check(find_twin(operation), case, dtype, "cpu", text)
    return {"passed": checked.passed, "bits": checked.bits}


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    torch.set_num_threads(1)  # others are at work on the other cores
    for request in json.load(sys.stdin):
        print(json.dumps(_answer(*request)), flush=True)
