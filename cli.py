"""The command line: `gptwin verify`, `inspect`, `predict`, `prove`, `train`, `chat`, `report`, ...

Thin: it reads arguments and calls.
"""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_agents import agent, world
from .cli_backend import choose_cpu_backend, interpret_without_gpu, take_every_tile
from .cli_bench import bench
from .cli_corpus import corpus
from .cli_study import exercise, grade, study
from .cli_training import chat, evaluate, generate, model, prompt, train

if TYPE_CHECKING:
    from .lab.settings import Settings

app = typer.Typer(
    help="The ChatGPT training stack twice: NumPy to be read, Triton to be fast.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(bench, name="bench")
app.add_typer(corpus, name="corpus")


@app.callback()
def gptwin() -> None:
    """Keep `verify` a subcommand also while it is alone."""


@app.command()
def verify(
    operations: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OP]...", help="Twins, your own as package.module:NAME; default: all."
        ),
    ] = None,
    examples: Annotated[int | None, typer.Option(help="Random cases per twin and dtype.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random cases.")] = 0,
    dtype: Annotated[
        list[str] | None, typer.Option(help="float32, float16 or bfloat16; may be repeated.")
    ] = None,
    thorough: Annotated[bool, typer.Option(help="Many more random cases.")] = False,
    text: Annotated[
        str | None, typer.Option(help="Text file for the real activations; default: Python's docs.")
    ] = None,
    case: Annotated[str | None, typer.Option(help="Run this one case (JSON).")] = None,
    json: Annotated[str | None, typer.Option(help="Store the findings in this file.")] = None,
    remember: Annotated[
        bool, typer.Option("--remember", help="Keep what fails, to be replayed first: a checkout.")
    ] = False,
    on: Annotated[
        str | None,
        typer.Option(help="Without a GPU: native or interpreter. Default: native, with llvmlite."),
    ] = None,
    batch_invariant: Annotated[
        bool,
        typer.Option("--batch-invariant", help="Check instead: a row's bits, in every batch."),
    ] = False,
) -> None:
    """Check each kernel against its NumPy reference, forward and backward.

    Runs on the GPU if there is one, else on the CPU: compiled for it, beside a sample of the cases
    in Triton's interpreter, or in that alone, which is the default for a twin of your own.
    Exit code 1 if a twin disagrees, with the smallest failing case and the command that reproduces
    it.
    """
    chosen = _chosen(operations)
    choose_cpu_backend(on, chosen)
    take_every_tile()
    if batch_invariant:
        from .lab.verify.invariance_console import verify_invariance

        raise typer.Exit(verify_invariance(chosen, dtypes=dtype or [], json_file=json))
    from .lab.verify import console

    raise typer.Exit(
        console.verify(
            chosen,
            dtypes=dtype or [],
            examples=examples,
            seed=seed,
            thorough=thorough,
            text=text,
            case=case,
            json_file=json,
            remember=remember,
        )
    )


@app.command()
def run(
    command: Annotated[
        list[str],
        typer.Argument(metavar="-- python ...", help="A script or test suite, run as it is."),
    ],
    unchecked: Annotated[
        bool,
        typer.Option("--unchecked", help="Faster, and an access beyond a tensor may end Python."),
    ] = False,
) -> None:
    """Run a program whose Triton kernels want a GPU: "cuda" means the CPU, kernels are compiled.

    gptwin run -- python -m pytest tests/ runs a test suite, unchanged, on a machine without a GPU.
    An access beyond a tensor is an error with its line. Needs llvmlite. The exit code is the
    program's own.
    """
    from .core.checks import refuse
    from .lab.sanitize.program import is_command, run_natively

    if not is_command(command):
        refuse("command", "python or pytest, with its arguments, after --", " ".join(command))
    choose_cpu_backend("native")
    raise typer.Exit(run_natively(command, checked=not unchecked))


@app.command()
def inspect(
    operations: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OP]...", help="Twins, your own as package.module:NAME; default: all."
        ),
    ] = None,
    arch: Annotated[
        list[str] | None,
        typer.Option(help="sm_80, sm_90, sm_100 or gfx942; may be repeated; default: all four."),
    ] = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help="float32, float16 or bfloat16; may be repeated.")
    ] = None,
    show: Annotated[
        str | None,
        typer.Option(help="Print each kernel as ttir, ttgir, ptx, sass, amdgcn or source."),
    ] = None,
    typical: Annotated[
        bool,
        typer.Option("--typical", help="First named shape alone, in bfloat16 where it is taken."),
    ] = False,
    json: Annotated[str | None, typer.Option(help="Store the rows in this file.")] = None,
    batch_invariant: Annotated[
        bool,
        typer.Option("--batch-invariant", help="Compare instead the order of sums over batches."),
    ] = False,
) -> None:
    """Compile every kernel and configuration for a GPU that need not be there.

    Prints registers, spills, shared memory, occupancy and tensor-core instructions. Exit code 1 if
    a configuration does not compile, spills, or does not fit.
    """
    from .lab.inspect.console import inspect_operations
    from .lab.twins.twin import DTYPES

    dtypes = tuple(dtype) if dtype else DTYPES
    if batch_invariant:
        from .lab.inspect.batches import inspect_batches

        lines = inspect_batches(operations or [], arch or [], dtypes)
        print("\n".join(lines))
        raise typer.Exit(int(any(line.startswith("DIFFERS") for line in lines)))
    raise typer.Exit(
        inspect_operations(
            _chosen(operations), arch or [], show, dtypes, typical=typical, json_file=json
        )
    )


@app.command()
def predict(
    operations: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OP]...", help="Twins, your own as package.module:NAME; default: all."
        ),
    ] = None,
    arch: Annotated[
        list[str] | None,
        typer.Option(
            help="sm_90 (default) or sm_80; sm_100, gfx942: the roofline alone; may be repeated."
        ),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, float16 or bfloat16; default: the twin's last.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="One of the twin's named shapes; default: its first.")
    ] = None,
    json: Annotated[str | None, typer.Option(help="Store the rows in this file.")] = None,
) -> None:
    """Estimate how long kernels take on a GPU that need not be there, and what binds them.

    From the compiled machine code: cycles of each hot loop, busy pipes, what warps wait for, time
    beside the roofline. Estimates with a known error: docs/predict.md. Exit code 1 if a
    configuration does not compile.
    """
    from .lab.predict.console import predict_operations

    raise typer.Exit(
        predict_operations(_chosen(operations), arch or [], dtype, shape, json_file=json)
    )


@app.command()
def sanitize(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OP | FILE.py::KERNEL]... | -- python ...",
            help="Default: all operations. After --: a script or test suite, run as it is.",
        ),
    ] = None,
    driver: Annotated[
        str | None, typer.Option(help="Function that launches; default: drive_<kernel>.")
    ] = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help="float32, float16 or bfloat16; may be repeated.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Kind not to report; may be repeated.")
    ] = None,
    configs: Annotated[
        int | None,
        typer.Option(help="Most configurations of an autotuned kernel that run; default: 3."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the programs' shuffled order.")] = 0,
    json: Annotated[str | None, typer.Option(help="Store the findings in this file.")] = None,
) -> None:
    """Check every access of memory that kernels make, without a GPU.

    Out of bounds, unwritten or undefined values, writes to inputs, races, order:
    docs/sanitize.md. For kernels of your own: gptwin sanitize -- python -m pytest tests/ -k norm.
    Exit code 1 on findings, and if no kernel was launched.
    """
    os.environ["TRITON_INTERPRET"] = "1"
    take_every_tile()
    from .lab.sanitize import console as sanitize_console
    from .lab.sanitize.program import CONFIGURATIONS, is_command

    raise typer.Exit(
        sanitize_console.run(
            targets if targets and is_command(targets) else _chosen(targets),
            driver=driver,
            dtypes=dtype or [],
            allow=[*_settings().allow, *(allow or [])],
            seed=seed,
            configs=_settings().configs or CONFIGURATIONS if configs is None else configs,
            updates=_settings().updates,
            json_file=json,
        )
    )


@app.command()
def barriers(
    kernels: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KERNEL | FILE.py::FUNCTION]... | -- python ...",
            help="Default: the project's. After --: a script or test suite, run as it is.",
        ),
    ] = None,
    mutants: Annotated[
        bool, typer.Option("--mutants", help="Break every barrier operation, one after another.")
    ] = False,
    order: Annotated[
        list[str] | None,
        typer.Option(help="behind (default), ahead, or a seed; may be repeated."),
    ] = None,
    strict: Annotated[
        bool | None,
        typer.Option(help="Miss a fence, too, that Triton adds itself; default: in our own."),
    ] = None,
    json: Annotated[str | None, typer.Option(help="Store the rows in this file.")] = None,
) -> None:
    """Play Gluon kernels for Hopper on a model of its barriers, and find what none orders.

    Races, deadlocks, phases, bytes, fences and products in flight, without a GPU: docs/barriers.md.
    For kernels of your own: gptwin barriers -- python script.py. Exit code 1 on findings, and if no
    Gluon kernel was launched; with --mutants, if one is not noticed and not known to be harmless.
    """
    os.environ["TRITON_INTERPRET"] = "1"
    from .lab.gluon import console

    raise typer.Exit(
        console.barriers(
            kernels or [],
            with_mutants=mutants,
            schedules=order or [],
            strict=strict,
            json_file=json,
        )
    )


@app.command()
def mutate(
    operations: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OP]...", help="Twins, your own as package.module:NAME; default: all."
        ),
    ] = None,
    sample: Annotated[int | None, typer.Option(help="Mutants of each twin; default: all.")] = None,
    seed: Annotated[int, typer.Option(help="Of the sample and of the random cases.")] = 0,
    examples: Annotated[int, typer.Option(help="Random cases beside the twin's own.")] = 10,
    processes: Annotated[int | None, typer.Option(help="Default: one per core.")] = None,
    store: Annotated[
        str, typer.Option(help="File of the verdicts so far: an ended run goes on from there.")
    ] = "build/mutation.jsonl",
    json: Annotated[str | None, typer.Option(help="Store the scores in this file.")] = None,
    table: Annotated[str | None, typer.Option(help="Write them as Markdown, too.")] = None,
    on: Annotated[
        str, typer.Option(help="How kernels run: interpreter, or native (needs llvmlite).")
    ] = "interpreter",
    prove: Annotated[bool, typer.Option(help="Ask prove --equal of what no check noticed.")] = True,
    listed: Annotated[
        bool, typer.Option("--listed", help="Ask it of those listed as equivalent, and no others.")
    ] = False,
) -> None:
    """Break each kernel in small ways and count how many the twin's checks notice.

    Exit code 1 if a twin's score is below 95%, or a mutant listed as equivalent is alive.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # children are forked: CUDA does not survive that
    if listed:
        os.environ.pop("TRITON_INTERPRET", None)  # a proof compiles
        from .lab.mutate.console import check_listed

        raise typer.Exit(check_listed(_chosen(operations), processes=processes, json_file=json))
    choose_cpu_backend(on)
    from .lab.mutate import console as mutate_console

    raise typer.Exit(
        mutate_console.mutate(
            _chosen(operations),
            size=sample,
            seed=seed,
            examples=examples,
            processes=processes,
            store=store,
            json_file=json,
            table_file=table,
            prove=prove,
        )
    )


@app.command()
def prove(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OP | TWIN | FILE.py::KERNEL]...",
            help="Twins, your own as package.module:NAME, or kernels of a file; default: all.",
        ),
    ] = None,
    safe: Annotated[bool, typer.Option("--safe", help="In bounds, at every size.")] = False,
    equal: Annotated[
        bool, typer.Option("--equal", help="The reference's function, on every input.")
    ] = False,
    seeds: Annotated[int, typer.Option(help="Fields that an equality is tried in.")] = 2,
    json: Annotated[str | None, typer.Option(help="Store the rows in this file.")] = None,
) -> None:
    """Prove kernels safe at every size, and equal to their reference on every input.

    Both unless one is named; docs/prove.md says what is proved and what is not. Runs on Triton's
    IR, without a GPU. Exit code 1 if something is not proved.
    """
    os.environ.pop("TRITON_INTERPRET", None)  # an interpreted kernel has no IR
    from .lab.prove import command

    raise typer.Exit(
        command.prove(_chosen(targets), safe=safe, equal=equal, seeds=seeds, json_file=json)
    )


@app.command()
def trace(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="OP | FILE.py::KERNEL | -- python ...",
            help="Twin, or your own kernel. After --: a script or test suite, run as it is.",
        ),
    ],
    case: Annotated[
        str | None, typer.Option(help="Trace this case (JSON); default: a small one.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    out: Annotated[
        str | None, typer.Option(help="Folder of pictures; default: build/trace.")
    ] = None,
    driver: Annotated[
        str | None, typer.Option(help="Function that launches; default: drive_<kernel>.")
    ] = None,
) -> None:
    """Draw which program reads and writes which tile, and count the bytes.

    Leaves OP-forward and OP-backward, .png and .svg, and a page, OP.html, with a slider over the
    programs and their tiles' numbers. Exit code 1 if the bytes of a tensor are not those that the
    twin declares as the least.
    """
    os.environ["TRITON_INTERPRET"] = "1"  # on a GPU nothing could be watched
    from .lab.sanitize.program import is_command
    from .lab.trace.trace import trace_file, trace_operation, trace_program

    if is_command(what):
        raise typer.Exit(trace_program(what, out=out))
    operation, *more = what
    if more:
        raise ValueError(f"operation: expected one, got {len(what)}: {', '.join(what)}")
    if operation.partition("::")[0].endswith(".py"):
        raise typer.Exit(trace_file(operation, driver=driver, out=out))

    raise typer.Exit(trace_operation(operation, case=case, dtype=dtype, out=out))


@app.command()
def report(
    operations: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OP]...", help="Twins, your own as package.module:NAME; default: all."
        ),
    ] = None,
    out: Annotated[str, typer.Option(help="The page, one HTML file.")] = "report.html",
    verification: Annotated[
        str, typer.Option(help="What `verify --json` stored; fresh: verify now.")
    ] = "fresh",
    examples: Annotated[
        int | None, typer.Option(help="Random cases per row of a fresh verification.")
    ] = None,
    results: Annotated[
        str | None, typer.Option(help="Folder of results; default: benchmarks/results.")
    ] = None,
) -> None:
    """Write one HTML page of everything that is known of the twins; it needs no network.

    The verification, the plots, the roofline, and each twin's NumPy and Triton source side by
    side. Exit code 1 if a twin disagrees.
    """
    interpret_without_gpu()
    from .lab.report.report import report as write_report

    raise typer.Exit(
        write_report(
            _chosen(operations),
            out=out,
            verification=verification,
            examples=examples,
            results=results,
        )
    )


for command in (
    model, train, chat, generate, evaluate, prompt, world, agent, study, exercise, grade,
):  # fmt: skip
    app.command()(command)


def _settings() -> "Settings":
    """Read what the project in the current folder says of itself."""
    from .lab.settings import read_settings

    return read_settings()


def _chosen(operations: list[str] | None) -> list[str]:
    """Take what was typed, else the project's own twins, else all."""
    return operations or list(_settings().twins)


def main() -> None:
    """Run the command line; bad input is one line on stderr and exit code 2."""
    try:
        app()
    except (ValueError, RuntimeError, FloatingPointError, OSError) as error:
        print(f"gptwin: {error}", file=sys.stderr)
        raise SystemExit(2) from None
