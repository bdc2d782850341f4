"""The command line of `gptwin corpus`: plan, filter, dedupe, clean, contamination.

Thin, as cli.py: it reads arguments and calls.
"""

from typing import Annotated

import typer

corpus = typer.Typer(
    help="Texts to pretrain on: how much of what, how good, and without the tests.",
    no_args_is_help=True,
)
Data = Annotated[str, typer.Argument(help="JSON lines with text, a .txt, or a folder of them.")]
Out = Annotated[str, typer.Option(help="Stores the texts that are left, as JSON lines.")]
Tests = Annotated[str, typer.Option(help="JSON lines as gptwin evaluate reads them.")]


@corpus.command()
def plan(
    mixture: Annotated[str, typer.Argument(help="TOML file with a table for each set.")],
    tokens: Annotated[int, typer.Option(help="That the run draws in all.")],
    model: Annotated[str, typer.Option(help="Folder whose tokenizer counts; else words.")] = "",
) -> None:
    """Print each set's weight, tokens and epochs in a run of so many tokens."""
    from .rl.corpus import console

    raise typer.Exit(console.plan_mixture(mixture, tokens, model))


@corpus.command("filter")
def filter_command(
    data: Data,
    good: Annotated[str, typer.Option(help="Texts of the quality that is wanted.")],
    out: Out,
    other: Annotated[str, typer.Option(help="Texts that they are told from; default: DATA.")] = "",
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
) -> None:
    """Keep the texts that are like good ones, and by chance a few that are not."""
    from .rl.corpus import console

    raise typer.Exit(console.filter_texts(data, good, other, out, seed))


@corpus.command()
def dedupe(
    data: Data,
    out: Out,
    threshold: Annotated[float, typer.Option(help="Least share of runs that copies share.")] = 0.8,
) -> None:
    """Drop texts that are nearly copies of an earlier one."""
    from .rl.corpus import console

    raise typer.Exit(console.drop_copies(data, out, threshold))


@corpus.command()
def clean(data: Data, tests: Tests, out: Out) -> None:
    """Cut the questions of a test out of the texts."""
    from .rl.corpus import console

    raise typer.Exit(console.cut_tests(data, tests, out))


@corpus.command()
def contamination(
    data: Data,
    tests: Tests,
    answers: Annotated[str, typer.Option(help="What gptwin evaluate stored of these tests.")] = "",
) -> None:
    """Say which questions of a test stand in the texts, and what they add to its score."""
    from .rl.corpus import console

    raise typer.Exit(console.find_tests(data, tests, answers))
