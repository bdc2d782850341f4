"""`gptwin mutate` as a person sees it: progress, the score, every survivor's diff, the results."""

import datetime
import os
import platform
import time
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from ... import __version__
from ...core.checks import refuse
from ...kernels.common._triton import UNAVAILABLE
from ...records import commit, write_whole
from ..device import kernel_device
from ..store import expect_writable, made_with, read_rows, write_rows
from ..twins.catalogue import TWINS
from ..twins.find import expect_twins, find_twin
from .equivalent import reasons_of
from .install import KERNELS
from .mutants import Mutant, source_of
from .mutate import (
    ON,
    REQUIRED_SCORE,
    KnownVerdicts,
    Score,
    mutants_of,
    sample,
    score_twin,
)
from .second_judge import Opinion, opinions

DEFAULT_EXAMPLES = 10
DEFAULT_STORE = "build/mutation.jsonl"


def mutate(
    operations: list[str],
    *,
    size: int | None = None,
    seed: int = 0,
    examples: int = DEFAULT_EXAMPLES,
    processes: int | None = None,
    store: str = DEFAULT_STORE,
    json_file: str | None = None,
    table_file: str | None = None,
    prove: bool = False,
) -> int:
    """Judge mutants and print the score.

    Parameters
    ----------
    operations : list of str
        Twins; empty for all.
    size : int, optional
        How many mutants of each; default: all.
    seed : int
        Of their choice, and of the random cases.
    examples : int
        Random cases beside the fixed ones.
    processes : int, optional
        Mutants at a time; default: one per core.
    store : str
        File of the verdicts so far, JSON lines.
    json_file : str, optional
        Where to store the scores; rows of twins that are not judged now stay.
    table_file : str, optional
        Markdown file to write those scores to.
    prove : bool
        Ask the second judge of survivors (second_judge.py); `check_listed` asks of those listed.

    Returns
    -------
    int
        0 if every score is high enough and no mutant listed as equivalent was killed, else 1.

    Raises
    ------
    ValueError
        If an argument makes no sense.
    RuntimeError
        If kernels do not run on the CPU, or a twin fails as it is.
    """
    if UNAVAILABLE is not None or kernel_device() != "cpu":
        raise RuntimeError(
            f"mutate: expected kernels that run on the CPU, got {UNAVAILABLE or 'a GPU'} "
            "(likely cause: Triton is missing, or was imported before TRITON_INTERPRET=1 was set)"
        )
    expect_twins(operations)
    for argument, value, least in (
        ("sample", size, 1), ("examples", examples, 1), ("processes", processes, 1),
    ):  # fmt: skip
        if value is not None and value < least:
            refuse(argument, f"at least {least}", str(value))
    for argument, file in (("json", json_file), ("table", table_file)):
        if file is not None:
            expect_writable(argument, file)
    if table_file is not None and json_file is None:
        refuse("table", "--json beside it: the table is written from that file", table_file)

    console = Console()
    started = time.monotonic()
    scores = _run_with_progress(
        operations or list(TWINS), size, seed, examples, processes or _cores(), store, console
    )
    asked = [(s.twin, m) for s in scores for m in s.survivors] if prove else []
    second = opinions(asked, processes or _cores())
    for score in scores:
        _show(score, second, console)
    console.print(_table(scores))
    _tell_second(second, console)
    n_bad = sum(not score.passed for score in scores)
    n_mutants = sum(len(score.verdicts) for score in scores)
    verdict = f"{n_bad} of {len(scores)} twins below it" if n_bad else "every twin reaches it"
    console.print(
        f"{n_mutants} mutants, seed {seed}, {time.monotonic() - started:.0f} s; "
        f"required: {REQUIRED_SCORE:.0%}: [bold]{verdict}[/bold]",
        highlight=False,
    )
    if json_file is not None:
        merged = _merge(Path(json_file), scores, second, size, seed, examples)
        write_rows(Path(json_file), {"required": REQUIRED_SCORE}, merged)
        if table_file is not None:
            write_whole(Path(table_file), _markdown(merged))
    return 1 if n_bad else 0


def check_listed(
    operations: list[str], *, processes: int | None = None, json_file: str | None = None
) -> int:
    """Ask the second judge of every mutant that is listed as equivalent, and of no others.

    Parameters
    ----------
    operations : list of str
        Twins; empty for all.
    processes : int, optional
        Mutants at a time; default: one per core.
    json_file : str, optional
        Where to store what it says.

    Returns
    -------
    int
        0 if none is alive, else 1.

    Raises
    ------
    ValueError
        If an argument makes no sense.
    """
    expect_twins(operations)
    stored = None if json_file is None else expect_writable("json", json_file)
    names = operations or list(TWINS)
    listed = {n: reasons_of(find_twin(n), mutants_of(n)) for n in names}
    asked = [(n, m) for n in names for m in mutants_of(n) if m.identity in listed[n]]
    console, started = Console(), time.monotonic()
    columns = TextColumn("mutants"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("mutants", total=len(asked))
        said = opinions(asked, processes or _cores(), lambda: progress.advance(task))
    words = [str(opinion).partition(":")[0] for opinion in said.values()]
    for mutant, opinion in said.items():
        if opinion.equal is not True:
            for line in (mutant.name, f"  {opinion}"):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
    counts = ", ".join(f"{words.count(w)} {w}" for w in ("equivalent", "alive", "not judged"))
    console.print(
        f"{len(asked)} listed as equivalent, {time.monotonic() - started:.0f} s: "
        f"[bold]{counts}[/bold]",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if stored is not None:
        twins = {mutant: name for name, mutant in asked}
        rows = [
            {"mutant": m.name, "twin": twins[m], "said": word, "why": opinion.why}
            for (m, opinion), word in zip(said.items(), words, strict=True)
        ]
        write_rows(stored, made_with(), rows)
    return int("alive" in words)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _run_with_progress(
    names: list[str],
    size: int | None,
    seed: int,
    examples: int,
    processes: int,
    store: str,
    console: Console,
) -> list[Score]:
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
    )  # fmt: skip
    known = KnownVerdicts(Path(store))
    scores = []
    # We draw by hand, because a drawing thread could hold a lock while a child is forked.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        chosen = {name: len(sample(mutants_of(name), size, seed)) for name in names}
        task = progress.add_task("mutants", total=sum(chosen.values()), state="")
        for name in names:
            done = {"cases": 0, "mutants": 0}

            def on_event(what: str, n: int, name: str = name, done: dict = done) -> None:
                done[what] += n
                state = f"{name}: {done['cases']} cases run, "
                state += f"{done['mutants']} of {chosen[name]} judged"
                progress.update(task, state=state, advance=n if what == "mutants" else 0)
                progress.refresh()

            scores.append(
                score_twin(
                    find_twin(name), size=size, seed=seed, examples=examples, known=known,
                    processes=processes, on_event=on_event,
                )
            )  # fmt: skip
    return scores


def _show(score: Score, second: dict[Mutant, Opinion], console: Console) -> None:
    """Print what a person has to look at."""
    for heading, mutants in (
        ("survived", score.survivors),
        ("killed, though listed as equivalent", score.contradicted),
    ):
        for mutant in mutants:
            verdict = score.verdicts[mutant]
            source = source_of(KERNELS.parent / mutant.file)
            console.print(
                f"[bold red]{score.twin}[/bold red]: {heading} ({verdict.why})", highlight=False
            )
            said = [f"  {second[mutant]}"] if mutant in second else []
            for line in (f"  {mutant.name}", *said, mutant.diff(source), ""):
                console.print(line, markup=False, highlight=False, soft_wrap=True)


def _tell_second(second: dict[Mutant, Opinion], console: Console) -> None:
    """Print what the second judge says, counted."""
    if second:
        said = [opinion.equal for opinion in second.values()]
        console.print(
            f"second judge (gptwin prove --equal): of {len(said)} that no check noticed, "
            f"{said.count(True)} equivalent, {said.count(False)} alive, {said.count(None)} not "
            "judged",
            highlight=False, soft_wrap=True,
        )  # fmt: skip


def _table(scores: list[Score]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("twin", no_wrap=True)
    for heading in ("mutants", "run", "killed", "survived", "equivalent", "score"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for score in scores:
        table.add_row(
            score.twin,
            str(score.n_derived),
            str(len(score.verdicts)),
            str(len(score.killed)),
            str(len(score.survivors)),
            str(len(score.equivalent)),
            f"{score.share:.1%}",
            "[green]ok[/green]" if score.passed else "[bold red]FAIL[/bold red]",
        )
    return table


# --- results --------------------------------------------------------------------------------------


def _merge(
    file: Path,
    scores: list[Score],
    second: dict[Mutant, Opinion],
    size: int | None,
    seed: int,
    examples: int,
) -> list[dict[str, Any]]:
    """Put these scores in the place of the same twins' in a result file, which may be absent."""
    before: dict[str, Any] = {}
    if file.exists():
        before = {row["twin"]: row for row in read_rows(file)["rows"]}
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    for score in scores:
        before[score.twin] = {
            "twin": score.twin,
            "date": today,
            "commit": commit(),
            "seed": seed,
            "sample": size,
            "examples": examples,
            "on": ON,
            "gptwin": __version__,
            "python": platform.python_version(),
            "mutants": score.n_derived,
            "run": len(score.verdicts),
            "killed": len(score.killed),
            "survived": [mutant.name for mutant in score.survivors],
            "equivalent": [mutant.name for mutant in score.equivalent],
            "second": {m.name: str(second[m]) for m in score.verdicts if m in second},
            "score": round(score.share, 4),
            "by_operator": _by_operator(score),
            "how": _how(score),
        }
    return [before[n] for n in dict.fromkeys((*TWINS, *before)) if n in before]


def _by_operator(score: Score) -> dict[str, list[int]]:
    """Count killed, survivors and equivalent mutants of each kind of fault."""
    groups = (score.killed, score.survivors, score.equivalent)
    operators = sorted({mutant.operator for mutant in score.verdicts})
    return {o: [sum(m.operator == o for m in group) for group in groups] for o in operators}


def _how(score: Score) -> dict[str, int]:
    """Count in how many ways killed mutants were noticed."""
    counts = dict.fromkeys(
        ("wrong result", "out of bounds", "exception", "crash", "out of time"), 0
    )
    for mutant in score.killed:
        counts[_kind(score.verdicts[mutant].why)] += 1
    return counts


def _kind(why: str) -> str:
    for start, kind in (("crashed", "crash"), ("out of time", "out of time")):
        if why.startswith(start):
            return kind
    if "out of bounds" in why:
        return "out of bounds"
    return "wrong result" if why.endswith("beyond the budget") else "exception"


def _by_prove_alone(row: dict[str, Any]) -> int:
    """Count the mutants that every check passed, and that are not the kernel's function."""
    return sum(said.startswith("alive") for said in row.get("second", {}).values())


def _markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "# Mutation scores",
        "",
        "Written by `gptwin mutate --json … --table …`; what the columns mean:",
        f"[mutate.md](mutate.md). Required: {REQUIRED_SCORE:.0%}.",
        "",
        "| twin | mutants | run | killed | survived | by prove alone | equivalent | score | on "
        "| seed | date | commit |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|---:|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['twin']} | {row['mutants']} | {row['run']} | {row['killed']} "
            f"| {len(row['survived'])} | {_by_prove_alone(row)} | {len(row['equivalent'])} "
            f"| {row['score']:.1%} | {row.get('on', '')} | {row['seed']} | {row['date']} "
            f"| {row.get('commit', '')[:7]} |"
        )
    lines += ["", "| fault | killed | survived | equivalent |", "|---|---:|---:|---:|"]
    totals: dict[str, list[int]] = {}
    for row in rows:
        for operator, counts in row["by_operator"].items():
            total = totals.setdefault(operator, [0, 0, 0])
            totals[operator] = [a + b for a, b in zip(total, counts, strict=True)]
    lines += [f"| {o} | {k} | {s} | {e} |" for o, (k, s, e) in sorted(totals.items())]
    how: dict[str, int] = {}
    for row in rows:
        for kind, count in row["how"].items():
            how[kind] = how.get(kind, 0) + count
    noticed = ", ".join(f"{kind} {count}" for kind, count in how.items())
    return "\n".join([*lines, "", f"Noticed by: {noticed}.", ""])
