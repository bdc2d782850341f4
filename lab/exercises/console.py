"""What `gptwin exercise` and `gptwin grade` print."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...core.checks import refuse
from . import hand_out
from .grade import grade


def list_exercises() -> int:
    """Print the exercises.

    Returns
    -------
    int
        0.
    """
    table = Table("exercise", "level", "what to do", box=None, padding=(0, 2, 0, 0))
    for chapter in hand_out.CHAPTERS:
        table.add_row(f"[bold]{chapter}[/bold]")
        for name in hand_out.names():
            if hand_out.chapter_of(name) == chapter:
                level = str(hand_out.level_of(name))
                table.add_row(name, level, escape(hand_out.title_of(name)))
    console = Console()
    console.print(table)
    console.print("gptwin exercise NAME writes NAME.py here; gptwin grade NAME.py looks at it")
    return 0


def hand_over(name: str, *, hint: int | None, solution: bool) -> int:
    """Write an exercise into the working directory, or print a hint or the solution.

    Parameters
    ----------
    name : str
    hint : int, optional
        Which hint, from 1 on.
    solution : bool
        Whether to print the solution.

    Returns
    -------
    int
        0.

    Raises
    ------
    ValueError
        If there is no such exercise or hint, or the file is there already.
    """
    exercise = hand_out.find(name)
    if solution:
        print(hand_out.solution(name), end="")
        return 0
    if hint is not None:
        if not 1 <= hint <= len(exercise.hints):
            refuse("hint", f"1 to {len(exercise.hints)}", str(hint))
        print(exercise.hints[hint - 1])
        return 0
    path = Path(f"{name}.py")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(hand_out.task(name))
    except FileExistsError:
        refuse("exercise", f"no file {path} here yet", "one", "it holds your work: move it away")
    print(f"{path}: {hand_out.title_of(name)}")
    print(f"the statement is in it; then: gptwin grade {path}")
    return 0


def print_grade(path: str, name: str | None, on: str) -> int:
    """Grade a file and print what was found.

    Parameters
    ----------
    path : str
    name : str, optional
    on : str
        As in `grade`.

    Returns
    -------
    int
        0 if it passes, else 1.
    """
    verdict = grade(path, name, on)
    if verdict.passed and on == "native":
        print(f"{path}: compiled, it is right. Races, reads and memory that nobody wrote show in")
        print(f"gptwin grade {path}")
        return 0
    if verdict.passed:
        print(f"{path}: passed. It runs, touches what it should, and is right")
        return 0
    print(f"{path}: not yet ({verdict.look})")
    for message in verdict.messages:
        print(message)
    n_hints = len(hand_out.find(verdict.name).hints)
    print(f"{n_hints} hints: gptwin exercise {verdict.name} --hint 1")
    return 1
