"""The trace of an exercise's solution, as the page that `gptwin trace` writes."""

import re
import tempfile
from pathlib import Path

import torch

from ...core.checks import refuse
from ...kernels.common import plain
from ..exercises import hand_out
from ..pretend.gpu import pretend_gpu
from ..sanitize.drivers import load
from ..trace.page import write_page
from ..trace.record import recording_tiles


def page_of(name: str, case: int) -> Path:
    """Run a solution in the interpreter and write what its programs did.

    Parameters
    ----------
    name : str
        An exercise.
    case : int
        Which of its cases.

    Returns
    -------
    Path
        In a folder of its own.
    """
    exercise = hand_out.find(name)
    folder = Path(tempfile.mkdtemp())
    file = folder / f"{name}.py"
    # A file of its own, as a student's: a launch of this package's own kernels needs its door.
    file.write_text(without_marks(hand_out.solution(name)), encoding="utf-8")
    module = load(str(file))
    drawn = exercise.draw(exercise.cases[case], torch.Generator().manual_seed(0))
    arguments = {
        key: value.float() if torch.is_tensor(value) and value.is_floating_point() else value
        for key, value in drawn.items()
    }
    plain.watch_plain_launches()
    with pretend_gpu(), plain.choosing_here(), recording_tiles() as recorder:
        module.solve(**arguments)
    if not recorder.log:
        refuse("traced", f"a launch in the solution of {name}", "none")
    page = folder / f"{name}.html"
    write_page(page, f"{name}, {exercise.cases[case]}", recorder)
    return page


def without_marks(text: str) -> str:
    """Leave out where an exercise's holes begin and end.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
    """
    return re.sub(r"^ *# (?:hole \d+: .*|end)\n", "", text, flags=re.MULTILINE)
