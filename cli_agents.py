"""The command line of dialogue agents: `gptwin world` and `gptwin agent`.

Thin, as cli.py: it reads arguments and calls.
"""

from typing import Annotated

import typer


def world(
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    n: Annotated[int, typer.Option(help="Probes to show.")] = 8,
) -> None:
    """Print the world of the dialogue agents: rules, probes, twins, users, what people say."""
    from .rl.agents import console

    raise typer.Exit(console.print_world(seed, n))


def agent(
    name: Annotated[str, typer.Argument(help="lamda, sparrow, hh or blenderbot.")],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as base.seed=1."),
    ] = None,
    out: Annotated[str, typer.Option(help="Folder of the run; default: runs/NAME.")] = "",
    data: Annotated[
        str, typer.Option(help="Your own labels, JSON lines; default: the embedded world.")
    ] = "",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Train a dialogue agent in minutes; a run that was cut goes on: docs/agents.md."""
    from .rl.agents import console

    raise typer.Exit(console.train_agent(name, out, changes or [], data, quiet))
