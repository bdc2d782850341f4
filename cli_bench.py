"""The command line of `gptwin bench`: gpu, cpu, trl, compare, table, plot.

Thin, as cli.py: it reads arguments and calls. What runs of the pipeline is handed to the
benchmarks from here, since they do not import it.
"""

import shlex
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

# How a measurement was asked for while `gptwin bench` was one command with all the options.
OLD_MODES = {"--compare": "compare", "--table": "table", "--plot": "plot"}
OLD_GPU_OPTIONS = (
    "--dry-run", "--dtype", "--provider", "--again", "--budget", "--workers", "--limit", "--out",
)  # fmt: skip


class Benchmarks(TyperGroup):
    """The sub-commands; an old spelling is answered with the new one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse an old spelling before anything is read from it."""
        if args and args[0] not in (*self.commands, "--help"):
            words = new_spelling(args, list(self.commands))
            if words:
                old, new = shlex.join(args), shlex.join(words)
                raise ValueError(f"bench {old}: say gptwin bench {new}")
        return super().parse_args(ctx, args)


def new_spelling(words: list[str], commands: list[str]) -> list[str]:
    """Say in sub-commands what was asked for in options.

    Parameters
    ----------
    words : list of str
        Behind `gptwin bench`; the first is no sub-command.
    commands : list of str
        The sub-commands.

    Returns
    -------
    list of str
        Empty if the words never meant anything.
    """
    for option, command in OLD_MODES.items():
        if option in words:
            others = [word for word in words if word != option]
            # Of these two, --out named the file that was read.
            read = {"--out": "--results"} if command in ("table", "plot") else {}
            return [command, *(read.get(word, word) for word in others)]
    for command in commands:
        if command in words:  # behind its options
            return [command, *(word for word in words if word != command)]
    from .benchmarks.gpu.driver import ASKED_FOR

    if words[0] in ASKED_FOR or words[0].partition("=")[0] in OLD_GPU_OPTIONS:
        return ["gpu", *words]
    return []


bench = typer.Typer(
    cls=Benchmarks,
    help="Time gptwin side by side with others, each behind a check that both compute the same.",
    no_args_is_help=True,
)

BUDGET_S = 520.0
PLAN_LIMIT_S = 60.0

Out = Annotated[
    str | None, typer.Option(help="Result file, .jsonl; default: in benchmarks/results.")
]
Quick = Annotated[
    bool, typer.Option("--quick", help="Tiny models, every path; the figures mean nothing.")
]
Threads = Annotated[int | None, typer.Option(help="Default: all cores.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Show what the libraries say, failure or not.")
]
Results = Annotated[
    str | None, typer.Option(help="Result file to read; default: the newest of a GPU.")
]


@bench.command()
def gpu(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OP]...",
            help="Operations (or all of them: operations), training, generation, ppo, verify. "
            "Default: all but verify.",
        ),
    ] = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help="float32, float16 or bfloat16; may be repeated.")
    ] = None,
    provider: Annotated[
        list[str] | None, typer.Option(help="Only these, such as gptwin; may be repeated.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Every path, tiny, no GPU, as a list; or OP's alone."),
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Measure also what is stored.")] = False,
    budget: Annotated[float, typer.Option(help="Seconds for the whole run.")] = BUDGET_S,
    limit: Annotated[
        float,
        typer.Option(help="Seconds that a provider may take at a size; in a plan at most 60."),
    ] = 90,
    workers: Annotated[int | None, typer.Option(help="Processes that compile ahead.")] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="Result file, .jsonl; default: the device's in benchmarks/results, of a dry run "
            "in build."
        ),
    ] = None,
    plan: Annotated[
        float | None, typer.Option(metavar="MINUTES", help="Print what --within would run.")
    ] = None,
    within: Annotated[
        float | None,
        typer.Option(metavar="MINUTES", help="What matters most, in so many minutes in all."),
    ] = None,
    kernels: Annotated[
        str | None, typer.Option(help="Folder of kernels that `gptwin bench ahead` compiled.")
    ] = None,
) -> None:
    """Time kernels, training, generation and PPO on a GPU.

    Every part runs in a process of its own, and is stored at once: what is stored for this commit
    is not measured again. Exit code 1 if a figure of gptwin's is missing, 3 if the time is up.
    """
    if plan is not None or within is not None:
        _expect_alone(
            "--within" if plan is None else "--plan",
            {
                "OP": what, "--dtype": dtype, "--provider": provider, "--again": again,
                "--budget": budget != BUDGET_S,
                "--within": plan is not None and within is not None,
            },
        )  # fmt: skip
    if plan is not None:
        from .benchmarks.gpu.plan import print_plan

        print_plan(plan, carried=kernels is not None)
        raise typer.Exit()
    carried = kernels is not None
    if kernels is not None:
        from pathlib import Path

        from .lab.inspect.ahead import misfit, settle

        if within is not None and (why := misfit(Path(kernels))):
            # The machine's minutes run: without them it is slower, not useless.
            print(f"{kernels} is left out, kernels are compiled here: it is {why}")
            carried = False
        else:
            print(f"{settle(Path(kernels)):,} kernels were compiled ahead")
    if within is not None:
        from .benchmarks.gpu.within import run_within

        raise typer.Exit(
            run_within(within, dry_run=dry_run, out=out, limit_s=min(limit, PLAN_LIMIT_S),
                       workers=workers, carried=carried)
        )  # fmt: skip
    if dry_run and not (what or dtype or provider):
        from .benchmarks.gpu.dry_run import dry_run as try_every_path

        raise typer.Exit(
            try_every_path(_workloads, out=out, again=again, limit_s=limit, budget_s=budget)
        )
    from .benchmarks.gpu import driver

    raise typer.Exit(
        driver.bench(
            what or [],
            dtypes=dtype or [],
            providers=provider or [],
            dry_run=dry_run,
            out=out,
            again=again,
            limit_s=limit,
            budget_s=budget,
            workers=workers,
        )
    )


def _expect_alone(option: str, others: dict[str, Any]) -> None:
    """Refuse what a plan would not look at: it decides itself what is measured, and how long."""
    from .core.checks import refuse

    for name, given in others.items():
        if given:
            refuse(name, f"none beside {option}", "one", "the plan decides what is measured")


@bench.command()
def ahead(
    folder: Annotated[str, typer.Argument(help="Where the kernels go, to be carried.")],
    op: Annotated[list[str] | None, typer.Option(help="These alone; may be repeated.")] = None,
    arch: Annotated[str, typer.Option(help="sm_80 or sm_90.")] = "sm_90",
    workers: Annotated[int | None, typer.Option(help="Processes; default: all cores.")] = None,
) -> None:
    """Compile the kernels of `bench gpu --within` for a GPU that is not here.

    With the Triton and the Python that its machine has: another's kernels are not found.
    """
    from pathlib import Path

    from . import records
    from .benchmarks.gpu.plan import calls_ahead
    from .lab.inspect.ahead import compile_ahead

    made = compile_ahead(
        Path(folder), arch, calls_ahead(op or [], arch), workers or records.available_cores()
    )
    for failure in made.failures:
        print(failure)
    print(f"{made.kernels:,} kernels for {arch}, {made.bytes / 2**20:.1f} MiB in {folder}")
    raise typer.Exit(1 if made.failures else 0)


@bench.command()
def calibrate(results: Results = None) -> None:
    """Write what a GPU's calibration found into the table that `gptwin predict` uses."""
    from .benchmarks.gpu.operations.results import calibrated
    from .lab.predict import measured

    arch, numbers, source = calibrated(results)
    measured.write(arch, numbers, source)
    print(f"{arch}: {', '.join(numbers)} are measured now: {source}")


@bench.command()
def cpu(
    quick: Quick = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Measure this part alone; may be repeated.")
    ] = None,
    threads: Threads = None,
    text: Annotated[
        str | None, typer.Option(help="tinyshakespeare.txt, for the part shakespeare.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave out what is stored as measured.")
    ] = False,
    limit: Annotated[float, typer.Option(help="Seconds after which a part is ended.")] = 540,
    out: Out = None,
    verbose: Verbose = False,
) -> None:
    """Time what a machine without a GPU can measure honestly.

    Every part runs in a process of its own, and is stored at once. Exit code 1 if one failed; a
    missed goal is a result.
    """
    from .benchmarks.cpu import driver

    raise typer.Exit(
        driver.bench(
            quick=quick,
            only=only,
            threads=threads,
            text=text,
            out=out,
            resume=resume,
            limit_s=limit,
            verbose=verbose,
        )
    )


@bench.command()
def trl(
    quick: Quick = False, threads: Threads = None, out: Out = None, verbose: Verbose = False
) -> None:
    """Time an iteration of PPO on the CPU beside TRL's, which must be installed.

    Exit code 1 if something failed: then nothing is stored.
    """
    from .benchmarks.ppo import peer
    from .rl.studies.workloads import ppo_like, ppo_repeated

    raise typer.Exit(
        peer.bench(ppo_like, ppo_repeated, quick=quick, threads=threads, out=out, verbose=verbose)
    )


@bench.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A.jsonl", help="Result file of before.")],
    b: Annotated[str, typer.Argument(metavar="B.jsonl", help="Result file of after.")],
) -> None:
    """Say what became faster or slower from one result file to another, beyond the noise.

    Exit code 1 if a figure of gptwin's became worse, or is gone.
    """
    from .benchmarks.compare import compare as compare_files

    raise typer.Exit(compare_files(a, b))


@bench.command()
def table(
    file: Annotated[
        str, typer.Argument(metavar="[FILE.md]", help="Holds the markers of the table.")
    ] = "README.md",
    results: Results = None,
) -> None:
    """Write the table of a GPU's goals, and what was measured of them, into a page."""
    from .benchmarks.gpu.shown import goals

    goals.update(file, results)


@bench.command()
def plot(
    results: Results = None,
    out: Annotated[
        str | None, typer.Option(help="Folder; default: beside the result file, of its name.")
    ] = None,
) -> None:
    """Draw what is stored of a GPU."""
    from .benchmarks.gpu.shown import plots

    plots.plot_file(results, out)


@bench.command(hidden=True)
def job(arguments: Annotated[str, typer.Argument(metavar="JSON")]) -> None:
    """Do one part of a GPU's in this process; benchmarks/gpu/supervise.py asks for it."""
    from .benchmarks.gpu.job import run_job_of_json

    run_job_of_json(arguments, _workloads)


def _workloads() -> Any:
    """Return what benchmarks run of the pipeline, which they do not import."""
    from .benchmarks.ppo.beside_trl import beside_trl
    from .rl.studies.workloads import WORKLOADS, ppo_like

    def ppo(device: str, *, tiny: bool) -> dict[str, Any]:
        beside = beside_trl(ppo_like, device, tiny=tiny)
        return WORKLOADS["ppo"](device, tiny=tiny) | beside

    return WORKLOADS | {"ppo": ppo}
