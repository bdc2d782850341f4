"""`gptwin trace`: pictures of what each program reads and writes, and a table of its bytes."""

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ...core.checks import refuse
from ..twins.catalogue import TWINS
from ..verify.console import read_case
from .picture import draw
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
    if operation not in TWINS:
        refuse("operation", f"one of {', '.join(TWINS)}", repr(operation))
    twin = TWINS[operation]
    if dtype not in twin.dtypes:
        refuse("dtype", f"one that {operation} takes: {', '.join(twin.dtypes)}", repr(dtype))
    given = read_case(case, [operation], [dtype])
    chosen = twin.studies[0] if given is None else given
    if "source" not in chosen and twin.cost(chosen, 4)[0].bytes > MOST_BYTES:
        n_bytes = f"{twin.cost(chosen, 4)[0].bytes:,}"
        refuse("case", f"a small one, of at most {MOST_BYTES:,} bytes", f"one of {n_bytes}")
    folder = Path(out or DEFAULT_OUT)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        refuse("out", "a folder that can be made", f"{folder}: {error}")

    traced = trace(twin, chosen, dtype)
    console = Console()
    faults = False
    for number, one in enumerate(traced.passes):
        found = entries(one)
        console.print(_table(f"{operation}, {one.name}, {dtype}", one, found))
        faults |= any(e.counted > e.declared for e in found)
        faults |= given is None and any(e.counted < e.declared for e in found)
        figure = draw(traced, number, dtype)
        for suffix in ("png", "svg"):
            path = folder / f"{operation}-{one.name}.{suffix}"
            figure.savefig(path)
            console.print(f"  {path}", highlight=False, soft_wrap=True)
    verdict = "not the declared bytes" if faults else "every tensor's bytes are as declared"
    if any(e.counted < e.declared for one in traced.passes for e in entries(one)) and not faults:
        verdict = "no more than the declared bytes; fewer where the case's own numbers hide some"
    console.print(f"\n{operation}: [bold]{verdict}[/bold]", highlight=False)
    return int(faults)


def _table(title: str, one: Pass, found: list[Entry]) -> Table:
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
            f"{entry.declared:,}",
            f"{entry.counted:,}",
            f"{entry.moved:,}",
            _times(entry.moved, entry.counted),
            _verdict(entry),
        )
    rest = one.moved - sum(entry.moved for entry in found)
    if rest:
        table.add_row("workspaces", "", "", "", f"{rest:,}", "", "")
    declared, counted = one.cost.bytes, sum(entry.counted for entry in found)
    table.add_row(
        "[bold]all[/bold]", "", f"{declared:,}", f"{counted:,}", f"{one.moved:,}",
        _times(one.moved, declared), "",
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
