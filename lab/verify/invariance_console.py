"""`gptwin verify --batch-invariant` as a person sees it: a table, and what differs."""

import dataclasses
import gc
import time
from collections.abc import Iterator

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ...core.checks import refuse
from ...kernels.hopper import serving
from ..device import kernel_device
from ..processes import Workers
from ..store import expect_writable, made_with, write_rows
from ..twins.catalogue import TWINS
from ..twins.find import expect_twins, find_twin
from ..twins.twin import DTYPES
from .console import device_name
from .invariance import DECODING, Found, check_decoding, check_rows
from .verify import default_processes


def verify_invariance(
    operations: list[str], *, dtypes: list[str], json_file: str | None = None
) -> int:
    """Check that rows keep their bits in every batch, and print what was found.

    Parameters
    ----------
    operations : list of str
        Twins; empty for all, and a whole model's decoding.
    dtypes : list of str
        Empty for all that each twin takes.
    json_file : str, optional
        Where to store the findings.

    Returns
    -------
    int
        0 if all have the same bits, else 1.

    Raises
    ------
    ValueError
        If an argument makes no sense.
    RuntimeError
        If kernels cannot run here.
    """
    if serving.asked_for():
        refuse(serving.VARIABLE, "unset beside --batch-invariant", "1",
               "batch_invariant stays with the plain kernels")  # fmt: skip
    expect_twins(operations)
    for dtype in dtypes:
        if dtype not in DTYPES:
            refuse("dtype", f"one of {', '.join(DTYPES)}", repr(dtype))
    stored = None if json_file is None else expect_writable("json", json_file)
    device, started = kernel_device(), time.monotonic()
    jobs = [
        (name, dtype)
        for name in operations or TWINS
        for dtype in find_twin(name).dtypes
        if not dtypes or dtype in dtypes
    ]
    if not operations:
        jobs += [(DECODING, dtype) for dtype in dtypes or DTYPES]
    found = list(_run(jobs, device))
    console = Console()
    console.print(_table(found))
    for row in found:
        for fault in row.faults:
            console.print(f"[bold red]{row.name} {row.dtype}[/bold red]", highlight=False)
            console.print(f"  {fault}", markup=False, highlight=False, soft_wrap=True)
    n_wrong = sum(bool(row.faults) for row in found)
    verdict = f"{n_wrong} of {len(found)} rows differ" if n_wrong else "the same bits in every case"
    console.print(
        f"{sum(row.n_compared for row in found)} comparisons on {device_name(device)}, "
        f"{time.monotonic() - started:.0f} s: [bold]{verdict}[/bold]",
        highlight=False,
        soft_wrap=True,
    )
    if stored is not None:
        head = {"device": device_name(device), "passed": not n_wrong}
        write_rows(stored, made_with() | head, [dataclasses.asdict(row) for row in found])
    return 1 if n_wrong else 0


def _run(jobs: list[tuple[str, str]], device: str) -> Iterator[Found]:
    """Run the rows side by side, in the order asked for."""
    processes = min(default_processes(device), len(jobs))
    if processes <= 1:
        yield from (_check(*job, device) for job in jobs)
        return
    with Workers(processes, _start_worker) as pool:
        yield from pool.map(_check, *zip(*jobs, strict=True), [device] * len(jobs))


def _start_worker() -> None:
    torch.set_num_threads(1)  # the workers share the cores
    kernel_device()
    gc.freeze()


def _check(name: str, dtype: str, device: str) -> Found:
    return check_decoding(dtype, device) if name == DECODING else check_rows(name, dtype, device)


def _table(found: list[Found]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("twin", "dtype"):
        table.add_column(heading, no_wrap=True)
    table.add_column("compared", justify="right")
    table.add_column("", overflow="fold")
    for row in found:
        verdict = "[bold red]differs[/bold red]" if row.faults else "[green]the same bits[/green]"
        table.add_row(row.name, row.dtype, str(row.n_compared or "-"), row.reason or verdict)
    return table
