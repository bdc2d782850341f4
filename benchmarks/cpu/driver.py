"""`gptwin bench cpu`: what a machine without a GPU can measure honestly.

Each part runs in a process of its own: its libraries start with the right number of threads, its
memory is free again afterwards, and if it fails or hangs the others are not lost. It stores each
finding as soon as it has it. So a run can be cut off at any time, and taken up again (`resume`), or
a part measured anew (`only`).
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ... import records
from ...core.checks import expect_positive, refuse
from ...lab.processes import end_with_parent
from .. import result_file
from ..messages import show_messages
from ..models import Settings
from ..timing import NATS, Finding, Skipped, describe, without_folders
from .growth import growth_with_length, growth_with_width
from .numpy_model import numpy_generation, numpy_training
from .overhead import compiled, interpreter, native
from .plots import plot_cpu
from .plots_growth import plot_growth, plot_overhead
from .shakespeare import shakespeare
from .sizes import sizes
from .static import print_static, static
from .torch_model import (
    torch_training_124m,
    torch_training_124m_compiled,
    torch_training_small,
    torch_training_small_compiled,
)

PARTS: dict[str, Callable[[Settings], Iterator[Finding]]] = {
    "numpy-generation": numpy_generation,
    "numpy-training": numpy_training,
    "torch-training-small": torch_training_small,
    "torch-training-small-compiled": torch_training_small_compiled,
    "torch-training-124m": torch_training_124m,
    "torch-training-124m-compiled": torch_training_124m_compiled,
    "shakespeare": shakespeare,
    "growth-length": growth_with_length,
    "growth-width": growth_with_width,
    "compile": compiled,
    "interpreter": interpreter,
    "native": native,
    "native-sizes": sizes,
    "static": static,
}
WIDTH_WHEN_PIPED = 130
BAD = ("failed", "cut off")
INTERPRETED = ("interpreter",)  # parts that run kernels
# Where NumPy and PyTorch take turns at small sizes, one library's threads spin while the other
# works. With two threads the exponents found for eager PyTorch were off by as much as 1.
ONE_THREAD = ("growth-length", "growth-width", "compile", "interpreter")
# Here calls of a millisecond return tensors of megabytes. The C library gives such memory back to
# the system, or not, as its heap happens to lie, and to get 16 MB again takes several milliseconds:
# so a process keeps what it once had.
KEEPING = ("native", "native-sizes")
KEEP = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**28),
}

CHILD = (
    "import sys; from gptwin.benchmarks.cpu.driver import run_part_of_json; "
    "run_part_of_json(sys.argv[1])"
)


def bench(
    *,
    quick: bool = False,
    only: list[str] | None = None,
    threads: int | None = None,
    text: str | None = None,
    out: str | None = None,
    resume: bool = False,
    limit_s: float = Settings.limit_s,
    verbose: bool = False,
) -> int:
    """Measure, store, plot and print.

    Parameters
    ----------
    quick : bool
        Tiny models, to try every path.
    only : list of str, optional
        Names of parts; the stored results of the others are kept.
    threads : int, optional
        All cores if left out.
    text : str, optional
        tinyshakespeare.txt.
    out : str, optional
        Result file; the plot is put beside it.
    resume : bool
        Leave out parts that are stored as complete, with the same settings and commit.
    limit_s : float
        After how many seconds a part is ended.
    verbose : bool
        Show what the libraries say also of parts that did not fail.

    Returns
    -------
    int
        0 if every part that was asked for was measured or skipped, else 1; a missed goal is a
        result, no error.

    Raises
    ------
    ValueError
        If an argument makes no sense.
    """
    for name in only or []:
        if name not in PARTS:
            refuse("only", f"one of {', '.join(PARTS)}", repr(name))
    threads = records.available_cores() if threads is None else threads
    expect_positive("threads", threads)
    expect_positive("limit", limit_s)
    if text is not None and not Path(text).is_file():
        refuse("text", "a file", text)
    path = result_file.results_path(out, "cpu-quick" if quick else "cpu")
    settings = Settings(quick, threads, text and str(Path(text).resolve()), limit_s)
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH_WHEN_PIPED
    parts = result_file.load(path)
    wanted = [name for name in PARTS if not only or name in only]
    if resume:
        wanted = [n for n in wanted if not is_complete(parts.get(n), settings_of(n, settings))]
    for name in wanted:
        start = time.monotonic()
        messages = run_in_process(name, settings_of(name, settings), path)
        status = result_file.load(path)[name]["status"]
        console.print(f"{name}: {status}, {time.monotonic() - start:.0f} s", highlight=False)
        if verbose or status in BAD:
            show_messages(messages, console)
    parts = result_file.load(path)
    if parts:
        plot(ordered(parts), path)
        print_table(ordered(parts), console)
    console.print(f"stored in {path}, with its plots beside it", soft_wrap=True)
    return int(any(parts[name]["status"] in BAD for name in wanted))


def settings_of(name: str, settings: Settings) -> Settings:
    """Return a part's own settings."""
    return dataclasses.replace(settings, threads=1) if name in ONE_THREAD else settings


def plot(parts: dict[str, result_file.Part], path: Path) -> None:
    """Draw what is stored, beside the result file: of its name, and of its name and a word."""
    plot_cpu(parts, path.with_suffix(".png"))
    growth = {name: part for name, part in parts.items() if name.startswith("growth")}
    plot_growth(growth, path.with_name(f"{path.stem}-growth.png"))
    overhead = {name: part for name, part in parts.items() if name in ("compile", "interpreter")}
    plot_overhead(overhead, path.with_name(f"{path.stem}-overhead.png"))


def ordered(parts: dict[str, result_file.Part]) -> dict[str, result_file.Part]:
    """Return the parts in the order of PARTS."""
    return {name: parts[name] for name in PARTS if name in parts}


def is_complete(part: result_file.Part | None, settings: Settings) -> bool:
    """Say whether a stored part is what a run with these settings would measure again."""
    if part is None or part["status"] != "measured":
        return False
    return (
        part["settings"] == public(settings) and part["environment"]["commit"] == records.commit()
    )


def public(settings: Settings) -> dict[str, Any]:
    """Return the settings for the result file: of the text the name alone."""
    text = settings.text and Path(settings.text).name
    return dataclasses.asdict(settings) | {"text": text}


def run_in_process(name: str, settings: Settings, path: Path) -> str:
    """Run a part in a process of its own, and return what was printed there.

    Whatever becomes of it, the result file says so.
    """
    count = str(settings.threads)
    environment = os.environ | dict.fromkeys(result_file.THREAD_VARIABLES, count)
    environment |= {"GPTWIN_BACKEND": "eager"}
    environment.pop("TRITON_INTERPRET", None)
    if name in INTERPRETED:
        environment["TRITON_INTERPRET"] = "1"
    if name in KEEPING:
        environment |= KEEP
    arguments = {
        "name": name, "settings": dataclasses.asdict(settings), "path": str(path),
        "parent": os.getpid(),
    }  # fmt: skip
    result_file.save(path, name, begin(settings))
    with tempfile.TemporaryFile("w+") as messages:
        # A session of its own, and no pipe: torch.compile has processes of its own, which would
        # outlive the part when it is ended, and hold the pipe open.
        child = subprocess.Popen(
            (sys.executable, "-c", CHILD, json.dumps(arguments)),
            env=environment, stdout=messages, stderr=messages, start_new_session=True,
        )  # fmt: skip
        try:
            child.wait(settings.limit_s)
        except subprocess.TimeoutExpired:
            end(path, name, "cut off", f"not done after {settings.limit_s:.0f} s")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        messages.seek(0)
        said = messages.read()
    if result_file.load(path)[name]["status"] == "running":
        last = ([line for line in said.splitlines() if line.strip()] or ["no message"])[-1]
        reason = f"ended with code {child.returncode}: {without_folders(last.strip())}"
        end(path, name, "failed", reason)
    return said


def begin(settings: Settings) -> result_file.Part:
    """Return a part before its first finding."""
    return {
        "status": "running", "reason": None, "settings": public(settings),
        "environment": result_file.environment(settings.threads), "findings": [],
    }  # fmt: skip


def end(path: Path, name: str, status: str, reason: str) -> None:
    """Close a part that could not do it itself; the findings that it has are kept."""
    result_file.save(
        path, name, result_file.load(path)[name] | {"status": status, "reason": reason}
    )


def run_part_of_json(arguments: str) -> None:
    """Run a part in this process, as `run_in_process` asked for it."""
    asked = json.loads(arguments)
    end_with_parent(asked["parent"])
    run_part(asked["name"], Settings(**asked["settings"]), Path(asked["path"]))


def run_part(name: str, settings: Settings, path: Path) -> None:
    """Run a part and store each finding at once.

    Parameters
    ----------
    name : str
        Of PARTS.
    settings : Settings
    path : Path
        Result file.
    """
    with torch_threads(settings.threads):
        part = begin(settings)
        result_file.save(path, name, part)
        findings: dict[str, Finding] = {}
        try:
            for found in PARTS[name](settings):
                findings[found["name"]] = found  # a later one of the same name knows more
                part["findings"] = list(findings.values())
                result_file.save(path, name, part)
            part["status"] = "measured"
        except Skipped as reason:
            part |= {"status": "skipped", "reason": str(reason)}
        except Exception as error:
            part |= {"status": "failed", "reason": describe(error)}
        result_file.save(path, name, part)


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Give PyTorch as many threads as NumPy's libraries were given."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def print_table(parts: dict[str, result_file.Part], console: Console) -> None:
    """Print what is stored."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, caption_justify="left", caption=caption(parts))
    table.add_column("comparison", overflow="fold")
    for heading in ("median", "p20 to p80", "goal"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for name, part in parts.items():
        if name == "static":
            print_static(part["findings"], console)
            continue
        units = dict.fromkeys(found["unit"] for found in part["findings"])
        table.add_row(f"[bold]{name}[/bold]" + "".join(f" ({unit})" for unit in units))
        for found in part["findings"]:
            table.add_row(*cells(found))
        if part["status"] != "measured":
            table.add_row(f"  [red]{part['status']}[/red]: {escape(part['reason'] or '')}")
    console.print(table)


def cells(found: Finding) -> tuple[str, ...]:
    """Write a finding as a row of the table."""
    name, goal = f"  {found['name']}", "-"
    if found["goal"] is not None:
        goal = f"{'≥' if found['goal']['at'] == 'least' else '≤'} {found['goal']['bound']:g}"
    if found["status"] != "measured":
        return f"{name}: {escape(found['reason'])}", "-", "-", goal, "not measured"
    value, digits = found["value"], 4 if found["unit"] == NATS else 2
    return (
        name,
        f"{value['median']:.{digits}f}",
        f"{value['p20']:.{digits}f} to {value['p80']:.{digits}f}",
        goal,
        verdict(found),
    )


def verdict(found: Finding) -> str:
    """Say whether a finding reached its goal, or what else is known where there is none."""
    if found["goal"] is None:
        return found.get("note", "")
    word = "[green]reached[/green]" if found["reached"] else "[bold red]missed[/bold red]"
    return word if found["clear"] else f"{word}, within noise"


def caption(parts: dict[str, result_file.Part]) -> str:
    """Say on what was measured, once for all parts that share it."""
    lines = []
    for part in parts.values():
        here = part["environment"]
        busy = " (a busy machine)" if here["load_average"] > 0.5 * here["cores"] else ""
        line = (
            f"{here['cpu']}, {part['settings']['threads']} of {here['cores']} cores{busy}; "
            f"Python {here['python']}, "
            + ", ".join(f"{name} {here[name]}" for name in result_file.PACKAGES if here[name])
            + f"; commit {here['commit'][:9]}"
        )
        if part["settings"]["quick"]:
            line += "; quick: the figures mean nothing"
        if line not in lines:
            lines.append(line)
    return "\n".join(lines)
