"""`gptwin trace`: pictures of what each program reads and writes, and a table of its bytes."""

import json
import shlex
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ...core.checks import refuse
from ...kernels.common import plain
from ..pretend.gpu import pretend_gpu
from ..sanitize.drivers import find_drivers, load
from ..sanitize.program import execute
from ..twins.find import find_twin
from ..verify.console import read_case
from .page import write_page
from .picture import draw
from .record import Recorder, recording_tiles
from .traffic import Entry, Pass, entries, trace

# Programs run one by one in Python, with a byte of notes for each byte: a case must be small.
MOST_BYTES = 2**26
DEFAULT_OUT = "build/trace"


def trace_operation(operation: str, *, case: str | None, dtype: str, out: str | None) -> int:
    """Trace a twin on one case, draw what moved and set it beside what was declared.

    Parameters
    ----------
    operation : str
        A twin's name.
    case : str, optional
        JSON of the case; the first of the twin's studies if there is none.
    dtype : str
        What the twin takes.
    out : str, optional
        Folder of the pictures.

    Returns
    -------
    int
        1 if a tensor's bytes are not the declared ones. Fewer are no fault in a case of the user's:
        its data may hide some.

    Raises
    ------
    ValueError
        If an argument makes no sense.
    """
    twin = find_twin(operation)
    if dtype not in twin.dtypes:
        refuse("dtype", f"one that {operation} takes: {', '.join(twin.dtypes)}", repr(dtype))
    given = read_case(case, [operation], [dtype])
    chosen = twin.studies[0] if given is None else given
    compares = "cost" not in twin.undeclared
    if compares and "source" not in chosen and twin.cost(chosen, 4)[0].bytes > MOST_BYTES:
        n_bytes = f"{twin.cost(chosen, 4)[0].bytes:,}"
        refuse("case", f"a small one, of at most {MOST_BYTES:,} bytes", f"one of {n_bytes}")
    folder = _folder(out)
    traced = trace(twin, chosen, dtype, keep_tiles=True)
    console = Console()
    name = operation.replace(":", ".")
    faults = False
    for number, one in enumerate(traced.passes):
        found = entries(one)
        console.print(_table(f"{operation}, {one.name}, {dtype}", one, found, compares))
        faults |= compares and any(e.counted > e.declared for e in found)
        faults |= compares and given is None and any(e.counted < e.declared for e in found)
        figure = draw(traced, number, dtype)
        for suffix in ("png", "svg"):
            path = folder / f"{name}-{one.name}.{suffix}"
            figure.savefig(path)
            console.print(f"  {path}", highlight=False, soft_wrap=True)
    page = folder / f"{name}.html"
    write_page(page, f"{operation}, {dtype}, {json.dumps(chosen)}", traced.tiles)
    console.print(f"  {page}", highlight=False, soft_wrap=True)
    if not compares:
        console.print(f"\n{operation}: no cost= is declared that bytes could be compared with")
        return 0
    verdict = "not the declared bytes" if faults else "every tensor's bytes are as declared"
    if any(e.counted < e.declared for one in traced.passes for e in entries(one)) and not faults:
        verdict = "no more than the declared bytes; fewer where the case's own numbers hide some"
    console.print(f"\n{operation}: [bold]{verdict}[/bold]", highlight=False)
    return int(faults)


def trace_file(target: str, *, driver: str | None, out: str | None) -> int:
    """Trace what a file's drivers launch (lab/sanitize/drivers.py), and write a page of each.

    Parameters
    ----------
    target : str
        "file.py" or "file.py::kernel".
    driver : str, optional
        The function that launches, if it is not `drive_<kernel>`.
    out : str, optional
        Folder of the pages.

    Returns
    -------
    int
        0.

    Raises
    ------
    ValueError
        If an argument makes no sense, or a driver launches nothing.
    RuntimeError
        If the file or a driver raises.
    """
    path, _, kernel = target.partition("::")
    module = load(path)
    functions = find_drivers(module, path, kernel, driver)
    folder = _folder(out)
    plain.watch_plain_launches()
    for function in functions:
        with pretend_gpu(), plain.choosing_here(), recording_tiles() as recorder:
            getattr(module, function)()
        write_recorded(folder / f"{function}.html", f"{path}: {function}()", recorder)
    return 0


def trace_program(command: list[str], *, out: str | None) -> int:
    """Trace what a program launches, unchanged, and write one page of it.

    Parameters
    ----------
    command : list of str
        "python" or "pytest", and its arguments (lab/sanitize/program.py).
    out : str, optional
        Folder of the page, program.html.

    Returns
    -------
    int
        What the program ends with.

    Raises
    ------
    ValueError
        If there is no such program, or it launches nothing.
    """
    folder = _folder(out)
    plain.watch_plain_launches()
    with pretend_gpu(), plain.choosing_here(), recording_tiles() as recorder:
        code = execute(command)
    write_recorded(folder / "program.html", shlex.join(command), recorder)
    return code


def write_recorded(page: Path, title: str, recorder: Recorder) -> None:
    """Write the page of some launches, and say so.

    Parameters
    ----------
    page : Path
    title : str
        What was run.
    recorder : Recorder

    Raises
    ------
    ValueError
        If nothing was launched.
    """
    if not recorder.tiles:
        refuse(title, "a launch of a Triton kernel", "none")
    write_page(page, title, recorder)
    launched = list(dict.fromkeys(entry.kernel for entry in recorder.log))
    n = len(recorder.log)
    Console().print(
        f"{page}: {n} launch{'es' if n != 1 else ''} of {', '.join(launched)}, "
        f"{len(recorder.tiles):,} tiles",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def _folder(out: str | None) -> Path:
    folder = Path(out or DEFAULT_OUT)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        refuse("out", "a folder that can be made", f"{folder}: {error}")
    return folder


def _table(title: str, one: Pass, found: list[Entry], compares: bool) -> Table:
    """Set out bytes tensor by tensor; whatever belongs to none is a workspace."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column("bytes of")
    table.add_column("shape")
    for heading in ("declared", "counted", "moved", "times"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for entry in found:
        table.add_row(
            f"{entry.kind} {entry.name}",
            "x".join(map(str, entry.shape)),
            f"{entry.declared:,}" if compares else "",
            f"{entry.counted:,}",
            f"{entry.moved:,}",
            _times(entry.moved, entry.counted),
            _verdict(entry) if compares else "",
        )
    rest = one.moved - sum(entry.moved for entry in found)
    if rest:
        table.add_row("workspaces", "", "", "", f"{rest:,}", "", "")
    declared, counted = one.cost.bytes, sum(entry.counted for entry in found)
    table.add_row(
        "[bold]all[/bold]", "", f"{declared:,}" if compares else "", f"{counted:,}",
        f"{one.moved:,}", _times(one.moved, declared), "",
    )  # fmt: skip
    if one.moved_by_pytorch:
        table.add_row("of it by PyTorch", "", "", "", f"{one.moved_by_pytorch:,}", "", "")
    return table


def _times(moved: int, least: int) -> str:
    return f"{moved / least:.2f}" if least else ""


def _verdict(entry: Entry) -> str:
    if entry.counted == entry.declared:
        return "[green]=[/green]"
    return (
        "[bold red]more[/bold red]" if entry.counted > entry.declared else "[yellow]fewer[/yellow]"
    )
