"""Fifteen minutes of a GPU: what is measured in them, in order of value, decided beforehand.

    gptwin bench gpu --plan 15        prints it: what runs, for how long at most, what is left out
    gptwin bench gpu --within 15      runs it, ten minutes at a time; the same command goes on

A *piece* is a few parts of driver.py with the providers and sizes that matter most. How long it
will take is estimated from counts: processes, sizes, cells, and what is to be compiled. A piece
that would not fit gets what is left, and what its time cuts off is stored as far as it came.
Whatever is stored is not done again, so a lost connection loses a cell.
"""

import dataclasses
import functools
from collections.abc import Callable, Container, Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ...core.checks import expect_positive, refuse
from ...lab.inspect.ahead import Calls
from ...lab.twins.attention.hopper import CASES as CASES_FOR_HOPPER
from ...lab.twins.attention.hopper import DTYPES as FOR_HOPPER
from ...lab.twins.catalogue import TWINS
from ...lab.twins.twin import Case
from ..inputs import ROOTS
from .operations.cells import default_dtypes, directions_of, timed_at
from .operations.providers import providers, switches
from .operations.results import (
    AS_ON_AMPERE,
    BATCH_INVARIANT,
    CALIBRATION,
    HOPPER,
    INVARIANCE,
    ON_HOPPER,
    OURS,
    VERIFY,
)
from .operations.shapes import shapes

COMMAND_S = 560.0  # of one command: ten minutes, less what starts it and draws its pictures
STARTING_S = 5.0  # until a command's first piece begins
ENDING_S = 3.0  # to end processes and store what they found
LEAST_S = 15.0  # nothing begins with less
UP = "the time is up"

# Seconds, as a guess until a run has stored its own: of a process until it is ready, of a size's
# arguments and truth, of a cell, of a kernel's or torch.compile's compilation, side by side.
PROCESS_S, SIZE_S, CELL_S = 7.0, 1.5, 0.6
COMPILE_S, COMPILE_CARRIED_S = 1.2, 0.05
# Of a case of `gptwin verify`, on one of several processes; and those processes.
CASE_S, SIDE_BY_SIDE = 0.08, 6
NONFINITE = 10  # cases of NaN and infinity that come of one small case, as counted
WHOLE_MODEL_S = 20.0  # of one way to train, generate or update, to be built, gated and timed


@dataclasses.dataclass(frozen=True)
class Piece:
    """Something worth measuring.

    Attributes
    ----------
    name : str
    parts : tuple of str
        As driver.py names them.
    only : tuple of str
        Providers; empty for all.
    sizes : tuple of str
        Names of sizes; empty for all.
    most_s : float
        When it is cut.
    """

    name: str
    parts: tuple[str, ...]
    only: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    most_s: float = 120.0


def _of(*names: str) -> tuple[str, ...]:
    """Return operations' parts, in what they are measured in."""
    half = {n for n in names if "bfloat16" in TWINS[n].dtypes and n not in ("adamw", "ema")}
    return tuple(f"{n}/{'bfloat16' if n in half else 'float32'}" for n in names)


_LONG = ("gpt2 training", "4k, d_head 64, causal", "4k, d_head 128, causal",
         "16k, d_head 128, causal")  # fmt: skip
# Whose lists of configurations are an architecture's own, and sizes of theirs.
_LISTS, _LISTED = ("attention", "linear", "cross_entropy", "layer_norm"), (
    "gpt2 mlp up", "gpt2", "gpt2 block",
)  # fmt: skip
_NORMS = ("gpt2 block", "d_model 4096", "64 MiB", "gpt2 vocabulary", "gpt2 attention scores")
_COMPILED = "torch.compile"

PIECES: tuple[Piece, ...] = (
    Piece("verification: corners and real sizes",
          tuple(f"{VERIFY}/{name}" for name in TWINS), most_s=175),
    Piece("calibration of the model's guesses", (CALIBRATION,), most_s=40),
    Piece("batch invariance: the same bits", (INVARIANCE,), most_s=60),
    Piece("Hopper's lists of configurations: before", _of(*_LISTS), (AS_ON_AMPERE,),
          (*_LONG, *_LISTED), 75),
    Piece("attention: after, and peers", _of("attention"),
          (OURS, "SDPA flash", "SDPA cuDNN", "flash-attn"), _LONG, 100),
    Piece("attention for Hopper, in Gluon: right or not, then timed",
          (HOPPER, *_of("attention")), (ON_HOPPER,), _LONG, 60),
    Piece("layer norm and softmax", _of("layer_norm", "softmax"),
          (OURS, _COMPILED, "Liger"), _NORMS, 70),
    Piece("the head and its loss", _of("cross_entropy"), (OURS, "Liger", "bare matmuls"),
          ("gpt2", "vocabulary 151,936"), 50),
    Piece("PPO, by phase and beside TRL", ("ppo",), most_s=130),
    Piece("training", ("training",), most_s=90),
    Piece("generation", ("generation",), most_s=75),
    Piece("decoding", _of("decode_attention", "sampling", "qkv_projection"),
          (OURS, "FlashInfer", "SDPA", "softmax + multinomial", "layer norm + linear"), most_s=60),
    Piece("RLHF's own operations", _of("ppo_loss", "gae", "reward_loss", "kl", "token_rewards"),
          (OURS, "eager", _COMPILED), most_s=60),
    Piece("what batch invariance costs", _of("attention", "linear", "decode_attention"),
          (OURS, BATCH_INVARIANT), ("gpt2 training", "gpt2 mlp up", "gpt2 rollout"), 45),
    Piece("every other size and peer", _of(*TWINS), most_s=600),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Planned:
    """A piece, and its time.

    Attributes
    ----------
    piece : Piece
    expected_s : float
        As estimated.
    seconds : float
        When it is cut; 0: left out.
    command : int
        Which of the commands begins it, from 1.
    """

    piece: Piece
    expected_s: float
    seconds: float
    command: int

    @property
    def runs(self) -> bool:
        """Whether there is time for it."""
        return self.seconds > 0


def make_plan(
    seconds: float,
    pieces: Sequence[Piece] = PIECES,
    *,
    carried: bool = False,
    command_s: float = COMMAND_S,
    estimate: Callable[[Piece, bool], float] | None = None,
) -> list[Planned]:
    """Share out some time.

    Parameters
    ----------
    seconds : float
        In all.
    pieces : sequence of Piece
        The most valuable first.
    carried : bool
        Whether kernels were compiled ahead (lab/inspect/ahead.py).
    command_s : float
        The longest that one command may take.
    estimate : callable, optional
        `(piece, carried) -> seconds`.

    Returns
    -------
    list of Planned
        In order; those that there is no time for, too.
    """
    estimate = estimate or expected_seconds
    planned = []
    left, command, in_command = seconds - STARTING_S, 1, command_s - STARTING_S
    for piece in pieces:
        expected = estimate(piece, carried)
        if in_command < 2 * LEAST_S and left - STARTING_S >= LEAST_S:
            command, left, in_command = command + 1, left - STARTING_S, command_s - STARTING_S
        given = min(piece.most_s, left, in_command)
        given = given if given >= LEAST_S else 0.0
        planned.append(Planned(piece, expected, given, command))
        # What is saved of one piece is left for the next ones; the estimate is what is counted on.
        used = min(given, expected) if given else 0.0
        left, in_command = left - used, in_command - used
    return planned


def expected_seconds(piece: Piece, carried: bool) -> float:
    """Estimate a piece from counts.

    Parameters
    ----------
    piece : Piece
    carried : bool
        As in `make_plan`.
    """
    if piece.parts[0].startswith(VERIFY):
        counts = [count_verification(part.partition("/")[2]) for part in piece.parts]
        cases, compilations = map(sum, zip(*counts, strict=True))
        starting = PROCESS_S * len(piece.parts)
        compiling = compilations * (COMPILE_CARRIED_S if carried else COMPILE_S)
        return (starting + cases * CASE_S + compiling) / SIDE_BY_SIDE
    return sum(_part_seconds(part, piece, carried) for part in piece.parts)


def _part_seconds(part: str, piece: Piece, carried: bool) -> float:
    operation = part.partition("/")[0]
    if operation not in TWINS:
        return PROCESS_S + {CALIBRATION: 10.0, HOPPER: 15.0, INVARIANCE: 40.0}.get(
            part, WHOLE_MODEL_S
        )
    twin = TWINS[operation]
    directions = len(directions_of(twin))
    total = PROCESS_S
    for shape in shapes(twin):
        if piece.sizes and shape not in piece.sizes:
            continue
        who = [p for p in timed_at(twin, shape, providers(operation))
               if not piece.only or p.name in piece.only]  # fmt: skip
        total += SIZE_S + len(who) * directions * CELL_S
        per = COMPILE_CARRIED_S if carried else COMPILE_S
        total += sum(per for p in who if p.compiles) * directions
    return total


@functools.cache
def count_verification(operation: str) -> tuple[int, int]:
    """Count what verifies a twin, and how much of it is compiled.

    Corners, real text and a random case in every configuration; NaN and infinity in each number of
    small cases, in the first dtype all and in the others every fourth; and real sizes.

    Parameters
    ----------
    operation : str

    Returns
    -------
    cases, compilations : int
    """
    twin = TWINS[operation]
    configurations = max(
        (len(getattr(kernel, "configs", None) or [None]) for kernel in twin.kernels().values()),
        default=1,
    )
    dtypes, extremes = len(twin.dtypes), len(twin.extremes)
    compiled = dtypes * ((len(twin.corners) + 1) * configurations + 1) + len(twin.shapes)
    nonfinite = extremes * NONFINITE * (3 + dtypes) // 4
    return compiled + nonfinite, compiled + dtypes * extremes


def calls_ahead(operations: Sequence[str] = (), arch: str = "sm_90") -> list[Calls]:
    """Return what a run calls, to be compiled ahead.

    Parameters
    ----------
    operations : sequence of str
        Of these alone; empty for all.
    arch : str
        What the run's GPU is.

    Returns
    -------
    list of Calls
        The small cases of verification in every dtype, real sizes in what they are measured in, and
        of each piece whose processes choose other kernels what it measures.

    Raises
    ------
    ValueError
        If there is no such operation.
    """
    for name in operations:
        if name not in TWINS:
            refuse("op", f"one of {', '.join(TWINS)}", repr(name))
    twins = {name: TWINS[name] for name in operations or TWINS}
    usual = switches(())
    small = {
        name: [(d, case) for d in twin.dtypes for case in (*twin.corners, *twin.extremes)]
        for name, twin in twins.items()
    }
    real = {
        name: [(d, case) for d in default_dtypes(twin) for case in shapes(twin).values()]
        for name, twin in twins.items()
    }
    # Elsewhere nothing is for Hopper, and on Ampere its lists are the usual ones.
    own = [p for p in PIECES if arch == "sm_90" and switches(p.only) != usual]
    found = [Calls(usual, small), Calls(usual, real, ROOTS)]
    found += [Calls(switches(p.only), _measured_by(p, twins), ROOTS) for p in own]
    found += [Calls(switches(p.only), _verified_by(p, twins)) for p in own]
    return [calls for calls in found if calls.cases]


def _measured_by(piece: Piece, operations: Container[str]) -> dict[str, list[tuple[str, Case]]]:
    """Return the sizes that a piece measures of some operations."""
    found: dict[str, list[tuple[str, Case]]] = {}
    for part in piece.parts:
        name, _, dtype = part.partition("/")
        if name in operations:
            sizes = shapes(TWINS[name])
            found[name] = [(dtype, sizes[size]) for size in piece.sizes if size in sizes]
    return found


def _verified_by(piece: Piece, operations: Container[str]) -> dict[str, list[tuple[str, Case]]]:
    """Return the cases that a piece verifies beside those of every verification."""
    if HOPPER not in piece.parts or "attention" not in operations:
        return {}
    corners = (*CASES_FOR_HOPPER, *TWINS["attention"].corners)
    return {"attention": [(dtype, case) for dtype in FOR_HOPPER for case in corners]}


# --- running it -----------------------------------------------------------------------------------


@dataclasses.dataclass
class Spent:
    """How much of the time is gone, kept where the next command finds it.

    Attributes
    ----------
    seconds : float
        Of all commands, that of the piece that runs now included in full.
    store : callable
        Keeps `seconds`, and what became of a piece.
    """

    seconds: float
    store: Callable[[float, "Ended | None"], None]


@dataclasses.dataclass(frozen=True)
class Ended:
    """What became of a piece.

    Attributes
    ----------
    name : str
    status : str
        "measured", "cut", "failed" or "left out".
    reason : str
    seconds : float
    """

    name: str
    status: str
    reason: str
    seconds: float


def run_plan(
    planned: Sequence[Planned],
    *,
    total_s: float,
    spent: Spent,
    execute: Callable[[Piece, float], str],
    now: Callable[[], float],
    command_s: float = COMMAND_S,
    started_s: float = STARTING_S,
) -> Iterator[Ended]:
    """Run what is left of a plan, within this command's time and that of all.

    Parameters
    ----------
    planned : sequence of Planned
        From `make_plan`, without what is done.
    total_s : float
        Of all commands.
    spent : Spent
        Of commands before this one.
    execute : callable
        `(piece, seconds) -> reason`: measures a piece and is over after so many seconds; returns
        why it is not complete, or "".
    now : callable
        The clock, in seconds.
    command_s : float
        Of this command.
    started_s : float
        What this command has taken already.

    Yields
    ------
    Ended
        As pieces end.
    """
    began = now()
    before = spent.seconds
    if total_s - before < started_s + LEAST_S + ENDING_S:
        yield from (Ended(late.piece.name, "left out", UP, 0.0) for late in planned)
        return
    spent.seconds = before + started_s
    for i, plan in enumerate(planned):
        used = now() - began + started_s
        left = min(total_s - before - used, command_s - used) - ENDING_S
        seconds = min(plan.piece.most_s, left)
        if seconds < min(LEAST_S, plan.piece.most_s):
            spent.seconds = before + used
            for late in planned[i:]:
                ended = Ended(late.piece.name, "left out", UP, 0.0)
                spent.store(spent.seconds, ended)
                yield ended
            return
        spent.seconds = before + used + seconds
        spent.store(spent.seconds, None)  # should this process die, the piece counts in full
        at = now()
        try:
            reason = execute(plan.piece, seconds)
            status = "cut" if reason else "measured"
        except Exception as error:  # whatever it is, the next pieces are worth their time
            status, reason = "failed", f"{type(error).__name__}: {error}"
        took = now() - at
        spent.seconds = before + used + took
        ended = Ended(plan.piece.name, status, reason, took)
        spent.store(spent.seconds, ended)
        yield ended


# --- printing it ----------------------------------------------------------------------------------


def print_plan(minutes: float, *, carried: bool = False, console: Console | None = None) -> None:
    """Print what some minutes would be used for.

    Parameters
    ----------
    minutes : float
    carried : bool
        As in `make_plan`.
    console : rich.console.Console, optional

    Raises
    ------
    ValueError
        If there are no minutes.
    """
    expect_positive("plan", minutes)
    console = console or Console(highlight=False)
    planned = make_plan(60 * minutes, carried=carried)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("command", justify="right")
    table.add_column("piece", overflow="fold")
    for heading in ("expected", "cut after"):
        table.add_column(heading, justify="right")
    for one in planned:
        if one.runs:
            table.add_row(str(one.command), one.piece.name, f"{one.expected_s:.0f} s",
                          f"{one.seconds:.0f} s")  # fmt: skip
    console.print(table)
    out = [one.piece.name for one in planned if not one.runs]
    console.print(f"left out: {'; '.join(out) or 'nothing'}", soft_wrap=True)
    how = "are carried along" if carried else "are compiled there"
    console.print(
        f"{minutes:g} minutes, {max(one.command for one in planned)} commands; kernels {how}; "
        "times are estimates from counts, and no piece takes longer than it may",
        soft_wrap=True,
    )
