"""What the compiler makes of a kernel: each line of Python beside its PTX and its SASS.

Compiled for a GPU that need not be there, in a process of its own: in this one kernels are
interpreted.
"""

import html
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..exercises import hand_out
from .traced import without_marks

ARCHITECTURE = "sm_90"
_LOCATION = re.compile(r"\.loc\s+(\d+) (\d+) ")
_CHILD = """
import json, sys
from gptwin.lab.processes import end_with_parent
from gptwin.lab.study import compiled
end_with_parent(int(sys.argv[2]))
print(json.dumps(compiled.make(*json.loads(sys.argv[1]))))
"""


def table(name: str, kernel: str, arguments: list[str], constants: dict[str, int]) -> str:
    """Compile the kernel of an exercise's solution, and write the table as HTML.

    Parameters
    ----------
    name : str
        An exercise.
    kernel : str
        A function of its solution.
    arguments : list of str
        A dtype for a pointer to it, a number for itself.
    constants : dict of int
        Of the kernel, by name.

    Returns
    -------
    str
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.py"
        file.write_text(without_marks(hand_out.solution(name)), encoding="utf-8")
        told = json.dumps([str(file), kernel, arguments, constants])
        child = subprocess.run(
            [sys.executable, "-c", _CHILD, told, str(os.getpid())],
            capture_output=True, text=True, check=False,
            env={k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"},
        )  # fmt: skip
        if child.returncode:
            raise RuntimeError(child.stderr.strip().splitlines()[-1])
        source = file.read_text(encoding="utf-8").splitlines()
    made = json.loads(child.stdout.splitlines()[-1])
    rows = "".join(
        f"<tr><td><code>{number} {html.escape(source[number - 1].strip())}</code></td>"
        f"<td><pre>{_listed(made['ptx'], number)}</pre></td>"
        f"<td><pre>{_listed(made['sass'], number)}</pre></td></tr>"
        for number in made["lines"]
    )
    return (
        f'<div class="compiled"><table><thead><tr><th>Python</th><th>PTX</th>'
        f"<th>SASS, {ARCHITECTURE}</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _listed(texts: dict[str, list[str]], line: int) -> str:
    return html.escape("\n".join(texts.get(str(line), [])))


def make(file: str, kernel: str, arguments: list[str], constants: dict[str, int]) -> dict[str, Any]:
    """Compile a kernel of a file, in a process that does nothing else.

    Returns
    -------
    dict
        "lines" of the file that it was compiled from, and by line its "ptx" and its "sass".
    """
    from ..inspect import assembly, sass
    from ..inspect.targets import compile_for

    compile_for(ARCHITECTURE)  # before Triton's kernels are declared
    import torch

    from ..sanitize.drivers import load

    function = getattr(load(file, compiled=True), kernel)
    given = [getattr(torch, a) if hasattr(torch, a) else int(a) for a in arguments]
    compiled = function.warmup(*given, **constants, grid=(1,))
    first = function.fn.__code__.co_firstlineno + 1  # below the decorator
    by_line: dict[int, list[str]] = {}
    for instruction in sass.parse(assembly.listing(compiled)):
        is_padding = instruction.base in ("NOP", "BRA") and instruction.line == first
        if Path(instruction.file).name == Path(file).name and not is_padding:
            by_line.setdefault(instruction.line, []).append(instruction.text)
    ptx = _ptx_by_line(compiled.asm["ptx"])
    return {"lines": sorted({*by_line, *ptx}), "ptx": ptx, "sass": by_line}


def _ptx_by_line(text: str) -> dict[int, list[str]]:
    """Sort PTX's instructions by the line that the last .loc names."""
    found: dict[int, list[str]] = {}
    line = 0
    for part in map(str.strip, text.splitlines()):
        if location := _LOCATION.match(part):
            line = int(location[2])
        elif line and part.endswith(";") and not part.startswith((".", "$", "//")):
            found.setdefault(line, []).append(re.sub(r"\s+", " ", part))
        elif part == "}":
            line = 0
    return found
