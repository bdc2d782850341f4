"""The command line of those who study: `gptwin study`, `exercise` and `grade`.

Thin, as cli.py: it reads arguments and calls.
"""

import os
from typing import Annotated

import typer

from .cli_backend import choose_cpu_backend


def exercise(
    name: Annotated[str | None, typer.Argument(help="Default: list them.")] = None,
    hint: Annotated[int | None, typer.Option(help="Print this hint, from 1 on.")] = None,
    solution: Annotated[bool, typer.Option("--solution", help="Print the solution.")] = False,
) -> None:
    """Write an exercise, a kernel with holes or with a fault, into the working directory."""
    os.environ["TRITON_INTERPRET"] = "1"
    from .lab.exercises import console

    if name is None:
        raise typer.Exit(console.list_exercises())
    raise typer.Exit(console.hand_over(name, hint=hint, solution=solution))


def grade(
    file: Annotated[str, typer.Argument(help="As `gptwin exercise` wrote it, and you filled it.")],
    exercise: Annotated[
        str | None, typer.Option(help="Which it is, if its first line does not say.")
    ] = None,
    on: Annotated[
        str,
        typer.Option(help="interpreter, which sees all; native: compiled, needs llvmlite."),
    ] = "interpreter",
) -> None:
    """Say what is still wrong with an exercise: which tile, which lane, which rule.

    Exit code 1 if something is.
    """
    if on == "native":
        choose_cpu_backend(on)
    else:
        os.environ["TRITON_INTERPRET"] = "1"  # on a GPU, too: nothing could be watched there
    from .lab.exercises import console

    raise typer.Exit(console.print_grade(file, exercise, on))


def study(
    out: Annotated[str, typer.Option(help="Folder of the site.")] = "build/study",
    serve: Annotated[bool, typer.Option("--serve", help="Serve it to this machine.")] = False,
    port: Annotated[int, typer.Option(help="With --serve; 0: any that is free.")] = 8000,
) -> None:
    """Build the study, a book whose code, numbers and figures are made as it is built.

    Exit code 1 if a page asks for what is not there.
    """
    os.environ["TRITON_INTERPRET"] = "1"
    from .lab.study import build

    exit_code = build.build(out)
    if serve and not exit_code:
        build.serve(out, port)
    raise typer.Exit(exit_code)
