"""What a student gets: a solution with its holes opened, or with its fault put in."""

import ast
import importlib
import re
from collections.abc import Mapping
from pathlib import Path

from ...core.checks import refuse
from .exercise import Exercise

ROOM = Path(__file__).parent
CHAPTERS = ("tiles", "rows", "products", "training", "faults")
GRADERS_PART = "# --- The grader's part: a student does not see it. ---\n"
# "# hole 1: what belongs here", the solution's lines, "# end".
_HOLE = re.compile(r"^( *)# hole (\d+): (.*\n(?: *# .*\n)*?)((?:.*\n)*?) *# end\n", re.MULTILINE)
OPEN = "...  # hole"


def names() -> list[str]:
    """List the exercises, a chapter after the other, the easy ones first.

    Returns
    -------
    list of str
    """
    found = [path.stem for chapter in CHAPTERS for path in (ROOM / chapter).glob("[!_]*.py")]
    return sorted(found, key=lambda name: (CHAPTERS.index(chapter_of(name)), level_of(name), name))


def chapter_of(name: str) -> str:
    """Say in which room an exercise lies.

    Parameters
    ----------
    name : str

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If there is no such exercise.
    """
    for chapter in CHAPTERS:
        if name.isidentifier() and (ROOM / chapter / f"{name}.py").is_file():
            return chapter
    refuse("exercise", "a name that `gptwin exercise` lists", repr(name))


def find(name: str) -> Exercise:
    """Import an exercise's declaration.

    Parameters
    ----------
    name : str

    Returns
    -------
    Exercise
    """
    module = importlib.import_module(f".{chapter_of(name)}.{name}", __package__)
    declared = module.EXERCISE
    assert isinstance(declared, Exercise)
    return declared


def level_of(name: str) -> int:
    """Say how hard an exercise is, 1 to 5.

    Parameters
    ----------
    name : str

    Returns
    -------
    int
    """
    return find(name).level


def solution(name: str) -> str:
    """Give the solution's text, with its holes marked.

    Parameters
    ----------
    name : str

    Returns
    -------
    str
    """
    text = (ROOM / chapter_of(name) / f"{name}.py").read_text(encoding="utf-8")
    return text.partition(GRADERS_PART)[0].rstrip() + "\n"


def title_of(name: str) -> str:
    """Give the first line of an exercise's statement.

    Parameters
    ----------
    name : str

    Returns
    -------
    str
    """
    statement = ast.get_docstring(ast.parse(solution(name))) or ""
    return statement.splitlines()[0].partition(": ")[2]


def task(name: str) -> str:
    """Give the text that is handed out.

    Parameters
    ----------
    name : str

    Returns
    -------
    str
    """
    text = replaced(solution(name), find(name).broken)
    return _HOLE.sub(lambda hole: f"{hole[1]}# {hole[3]}{hole[1]}{OPEN} {hole[2]}\n", text)


def replaced(text: str, by: Mapping[str, str]) -> str:
    """Replace what stands once in a text.

    Parameters
    ----------
    text : str
    by : mapping of str

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If something does not stand there exactly once.
    """
    for old, new in by.items():
        if text.count(old) != 1:
            refuse("replace", "text that the solution holds once", f"{text.count(old)}: {old!r}")
        text = text.replace(old, new)
    return text


def open_holes(text: str) -> list[tuple[int, int]]:
    """Find the holes that are not filled.

    Parameters
    ----------
    text : str
        A student's file.

    Returns
    -------
    list of (int, int)
        Each one's number and line.
    """
    lines = enumerate(text.splitlines(), 1)
    return [(int(line.split(OPEN)[1]), at) for at, line in lines if OPEN in line]
