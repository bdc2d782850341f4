"""What the kernels must reach on a GPU, as one list, and README's table, made from it.

    gptwin bench table README.md      writes it between that file's markers, from what is stored

A goal is measured over all of its sizes, and its figure is the worst of them: so "faster than X at
every shape" is one number. It is reached when every size has a figure. Sizes that the other is not
made for do not count; where it is not installed the goal is not measured.

Goals are ratios, so they hold for every GPU of an architecture (results.FAMILIES). README shows the
newest result of a GPU of Hopper, or else of Ampere, and says which device it was.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ....core.checks import refuse
from ....lab.twins.catalogue import TWINS
from ....lab.twins.twin import Case
from ....records import write_whole
from ...models import AS_TRL
from ...result_file import RESULTS, Part, load
from ...timing import Finding
from ..operations.cells import cost_of
from ..operations.results import FAMILIES, OURS, family, is_real, newest
from ..operations.shapes import is_sweep, shapes

BEGIN, END = "<!-- goals: gptwin bench table README.md -->", "<!-- end of goals -->"
NOT_MEASURED = "not measured"
LARGE, BOUND_BY_MEMORY = 16 * 2**20, 8 * 2**20  # bytes

Cell = Mapping[str, Finding]  # of one size and direction, by provider
Cells = Mapping[tuple[str, str, str], Cell]  # by part, shape and direction


@dataclasses.dataclass(frozen=True)
class Size:
    """A size that is measured.

    Attributes
    ----------
    name : str
    case : Case
    bytes : int
        That a direction must move.
    """

    name: str
    case: Case
    bytes: int


@dataclasses.dataclass(frozen=True)
class Figure:
    """What is judged of one size.

    Attributes
    ----------
    of : callable
        From the cells' findings, all measured, to a number, or None.
    needs : tuple of str
        Providers that must have a figure beside gptwin.
    """

    of: Callable[[Cell], float | None]
    needs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Goal:
    """One row of the table.

    Attributes
    ----------
    operation : str
        As README says it.
    claim : str
        What is claimed.
    part : str
        Of the result file.
    direction : str
    figure : Figure
    bound : float
    at_least : bool
        Whether the figure must be at least the bound, or at most.
    sizes : callable
        Which of the operation's sizes it is about.
    unit : str
        "x": times as fast; "%": share.
    """

    operation: str
    claim: str
    part: str
    direction: str
    figure: Figure
    bound: float
    at_least: bool = True
    sizes: Callable[[Size], bool] = lambda size: True
    unit: str = "x"


def times_as_fast_as(*others: str) -> Figure:
    """Return a figure: the fastest other's time over gptwin's.

    Parameters
    ----------
    *others : str
        The first must have a figure; of the rest those that have one count.
    """

    def figure(cell: Cell) -> float:
        times = [seconds(cell[name]) for name in others if name in cell]
        return min(times) / seconds(cell[OURS])

    return Figure(figure, others[:1])


def times_its_time(other: str) -> Figure:
    """Return a figure: gptwin's time over another's."""
    return Figure(lambda cell: seconds(cell[OURS]) / seconds(cell[other]), (other,))


def times_its_memory(other: str) -> Figure:
    """Return a figure: gptwin's extra memory over another's."""

    def figure(cell: Cell) -> float | None:
        ours, theirs = (cell[name]["extra_bytes"] for name in (OURS, other))
        return ours / theirs if theirs else None

    return Figure(figure, (other,))


def _share(cell: Cell) -> float | None:
    roofline = cell[OURS]["roofline"]
    return min(1.0, roofline["share"]) if roofline else None


SHARE_OF_ROOFLINE = Figure(_share)


def seconds(found: Finding) -> float:
    """Return a cell's median."""
    return float(found["value"]["median"])


def _is_sweep(size: Size) -> bool:
    """Say whether a size is one of attention's lengths, 1k to 16k."""
    return is_sweep("attention", size.name)


def _is_sweep_of_64(size: Size) -> bool:
    return _is_sweep(size) and size.case["d_head"] == 64


def _is_large(size: Size) -> bool:
    return size.bytes >= LARGE


def _is_bound_by_memory(size: Size) -> bool:
    return size.bytes >= BOUND_BY_MEMORY


def _is_training(size: Size) -> bool:
    """Say whether a size is that of a GPT-2."""
    return size.name.startswith("gpt2")


def _is_cross_entropy(size: Size) -> bool:
    return size.name in ("gpt2", "vocabulary 151,936")


def _has_gelu(size: Size) -> bool:
    return size.case.get("activation") == "gelu"


def _is_one_query(size: Size) -> bool:
    """Say whether a size is a step of decoding without a window."""
    return size.case.get("n_query") == 1 and not size.case.get("window")


def _is_unfiltered(size: Size) -> bool:
    """Say whether a size draws from all tokens, as `torch.multinomial` does."""
    return not {"top_k", "top_p"} & set(size.case) and size.case.get("temperature", 1.0) != 0


SDPA_BUT_CUDNN = ("SDPA flash", "SDPA efficient", "SDPA math", "flash-attn")
BANDWIDTH = "of the measured copy bandwidth"
COMPILE, CUDNN = ("torch.compile",), ("SDPA cuDNN",)


def _attention(direction: str) -> list[Goal]:
    """Return the goals of attention, forward or backward."""
    about = ("attention/bfloat16", direction)
    name = f"attention {direction}, bf16, head dim 64 and 128, 1k to 16k"
    return [
        Goal(name, "as fast as FlashAttention-2 and every SDPA backend but cuDNN", *about,
             times_as_fast_as(*SDPA_BUT_CUDNN), 1.0, sizes=_is_sweep),
        Goal(name, "of cuDNN's speed", *about, times_as_fast_as(*CUDNN), 0.9, sizes=_is_sweep),
        Goal(f"attention {direction}, head dim 64", "as fast as cuDNN", *about,
             times_as_fast_as(*CUDNN), 1.0, sizes=_is_sweep_of_64),
    ]  # fmt: skip


def _memory_bound(operation: str, part: str, share: Mapping[str, float]) -> list[Goal]:
    """Return the goals of an operation bound by memory, for each direction."""
    goals = []
    for direction, bound in share.items():
        name, about = f"{operation} {direction}", (part, direction)
        goals.append(Goal(name, BANDWIDTH, *about, SHARE_OF_ROOFLINE, bound, sizes=_is_large,
                          unit="%"))  # fmt: skip
        goals += [
            Goal(name, f"as fast as {other}", *about, times_as_fast_as(other), 1.0, sizes=_is_large)
            for other in ("torch.compile", "Liger")
        ]
    return goals


def _rlhf(operation: str, part: str, directions: tuple[str, ...], large: bool = True) -> list[Goal]:
    """Return the goals of RLHF's operations and AdamW; `large`: some sizes are bound by memory."""
    goals = []
    for direction in directions:
        about = (part, direction)
        name = f"{operation} {direction}"
        if large:
            goals.append(Goal(name, BANDWIDTH, *about, SHARE_OF_ROOFLINE, 0.85,
                              sizes=_is_bound_by_memory, unit="%"))  # fmt: skip
        goals.append(Goal(name, "as fast as eager PyTorch", *about, times_as_fast_as("eager"), 5.0))
        goals.append(
            Goal(name, "as fast as torch.compile", *about, times_as_fast_as(*COMPILE), 1.0)
        )
    return goals


_CE = "fused linear cross-entropy, vocabulary 50,257 and 151,936, 8,192 tokens"
_CE_BOTH = ("cross_entropy/bfloat16", "both")

GOALS: tuple[Goal, ...] = (
    *_attention("forward"),
    *_attention("backward"),
    Goal("qkv_attention forward + backward", "as fast as linear + split + SDPA under torch.compile",
         "qkv_attention/bfloat16", "both", times_as_fast_as("linear + SDPA, compiled"), 1.0,
         sizes=_is_training),
    *_memory_bound("softmax", "softmax/bfloat16", {"forward": 0.9, "backward": 0.8}),
    *_memory_bound("layer norm", "layer_norm/bfloat16", {"forward": 0.9, "backward": 0.8}),
    Goal("GELU epilogue", "as fast as torch.compile", "linear/bfloat16", "forward",
         times_as_fast_as(*COMPILE), 1.0, sizes=_has_gelu),
    Goal("GELU epilogue", "of the roofline", "linear/bfloat16", "forward", SHARE_OF_ROOFLINE, 0.9,
         sizes=_has_gelu, unit="%"),
    Goal(_CE, "the bare matmuls' time", *_CE_BOTH, times_its_time("bare matmuls"), 1.5,
         at_least=False, sizes=_is_cross_entropy),
    Goal(_CE, "of eager's extra memory", *_CE_BOTH, times_its_memory("eager"), 0.125,
         at_least=False, sizes=_is_cross_entropy),
    Goal(_CE, "as fast as Liger", *_CE_BOTH, times_as_fast_as("Liger"), 1.0,
         sizes=_is_cross_entropy),
    Goal(_CE, "of Liger's extra memory", *_CE_BOTH, times_its_memory("Liger"), 1.0,
         at_least=False, sizes=_is_cross_entropy),
    Goal("log-prob + entropy, from hidden states", "as fast as eager PyTorch",
         "cross_entropy/bfloat16", "forward", times_as_fast_as("eager"), 5.0,
         sizes=_is_cross_entropy),
    Goal("log-prob + entropy, from hidden states", "as fast as torch.compile",
         "cross_entropy/bfloat16", "forward", times_as_fast_as(*COMPILE), 1.0,
         sizes=_is_cross_entropy),
    *_rlhf("ppo_loss", "ppo_loss/float32", ("forward", "backward")),
    *_rlhf("reward_loss", "reward_loss/float32", ("forward", "backward"), large=False),
    *_rlhf("gae", "gae/float32", ("forward",)),
    *_rlhf("adamw", "adamw/float32", ("forward",)),
    Goal("decode attention, one query, full caches", "as fast as FlashInfer",
         "decode_attention/bfloat16", "forward", times_as_fast_as("FlashInfer"), 1.0,
         sizes=_is_one_query),
    Goal("decode attention, one query, full caches", "as fast as SDPA with a mask",
         "decode_attention/bfloat16", "forward", times_as_fast_as("SDPA"), 1.0,
         sizes=_is_one_query),
    Goal("sampling", "as fast as softmax + torch.multinomial", "sampling/bfloat16", "forward",
         times_as_fast_as("softmax + multinomial"), 1.0, sizes=_is_unfiltered),
    *(
        Goal(f"qkv_projection {direction}", "as fast as layer norm + cuBLAS + bias",
             "qkv_projection/bfloat16", direction, times_as_fast_as("layer norm + linear"), 1.0,
             sizes=_is_training)
        for direction in ("forward", "backward")
    ),
)  # fmt: skip

_TRAINING = ("GPT-2 124M training", "training", "step")
TRAINING = (
    Goal(_TRAINING[0], "as fast as nanoGPT under torch.compile", *_TRAINING[1:],
         times_as_fast_as("nanoGPT, compiled"), 1.0),
    Goal(_TRAINING[0], "model FLOPs utilisation", *_TRAINING[1:], Figure(lambda cell: None), 0.5,
         unit="%"),
)  # fmt: skip


PPO = Goal("PPO update, end to end", "as fast as TRL's", "ppo", "update",
           Figure(lambda cell: None), 1.0)  # fmt: skip
TRL, NO_TRL = "TRL", "TRL is not installed, or was not run"


@dataclasses.dataclass(frozen=True)
class Row:
    """A goal, and what the results say of it.

    Attributes
    ----------
    operation, goal, figure, verdict : str
        As the table shows them.
    reached : bool or None
        None: not measured.
    """

    operation: str
    goal: str
    figure: str
    verdict: str
    reached: bool | None


def rows(parts: Mapping[str, Part]) -> list[Row]:
    """Judge every goal by a result file's parts; none: nothing is measured."""
    cells = _cells(parts)
    found = [_row(goal, cells) for goal in GOALS]
    return [*found, *_training_rows(parts), _ppo_row(parts)]


def _cells(parts: Mapping[str, Part]) -> Cells:
    """Sort findings by part, shape and direction, then by provider."""
    cells: dict[tuple[str, str, str], dict[str, Finding]] = {}
    for name, part in parts.items():
        if is_real(part):
            for found in part["findings"]:
                if "direction" in found:
                    key = (name, found["shape"], found["direction"])
                    cells.setdefault(key, {})[found["provider"]] = found
    return cells


def sizes_of(goal: Goal) -> Iterator[Size]:
    """Yield the sizes that a goal is about."""
    operation, _, dtype = goal.part.partition("/")
    twin = TWINS[operation]
    for name, case in shapes(twin).items():
        size = Size(name, case, cost_of(twin, case, dtype, goal.direction).bytes)
        if goal.sizes(size):
            yield size


def _row(goal: Goal, cells: Cells) -> Row:
    """Take the worst of a goal's sizes."""
    known: dict[str, float] = {}
    n_sizes, skipped = 0, ""
    for size in sizes_of(goal):
        cell = cells.get((goal.part, size.name, goal.direction), {})
        wanted = [cell.get(name) for name in (OURS, *goal.figure.needs)]
        reasons = [f["reason"] for f in wanted if f and f["status"] == "skipped"]
        if reasons:
            skipped = str(reasons[0])
            continue
        n_sizes += 1
        measured = {name: f for name, f in cell.items() if f["status"] == "measured"}
        if all(name in measured for name in (OURS, *goal.figure.needs)):
            figure = goal.figure.of(measured)
            if figure is not None:
                known[size.name] = figure
    if not known:
        return make_row(goal, None, skipped)
    worst = (min if goal.at_least else max)(known, key=known.__getitem__)
    note = f"{worst}; {len(known)} of {n_sizes} sizes"
    return make_row(goal, known[worst], note, complete=len(known) == n_sizes)


def make_row(goal: Goal, figure: float | None, note: str, complete: bool = True) -> Row:
    """Write a row."""
    sign = "≥" if goal.at_least else "≤"
    claim = f"{sign} {_written(goal.bound, goal.unit)} {goal.claim}"
    if figure is None:
        text = NOT_MEASURED + (f" ({note})" if note else "")
        return Row(goal.operation, claim, text, "", None)
    reached = figure >= goal.bound if goal.at_least else figure <= goal.bound
    verdict = "missed" if not reached else "reached" if complete else "incomplete"
    return Row(goal.operation, claim, f"{_written(figure, goal.unit)} ({note})", verdict, reached)


def _written(value: float, unit: str) -> str:
    return f"{value:.0%}" if unit == "%" else f"{value:.3g}×"


def _training_rows(parts: Mapping[str, Part]) -> Iterator[Row]:
    """Judge GPT-2's training."""
    part = parts.get("training")
    found = {f["name"]: f for f in part["findings"]} if part and is_real(part) else {}
    rates = {n: f["value"]["median"] for n, f in found.items() if f["status"] == "measured"}
    ours = max((n for n in rates if n.startswith(OURS)), key=rates.__getitem__, default=None)
    others = [rate for n, rate in rates.items() if n.startswith("nanoGPT") and "compiled" in n]
    ratio = mfu = None
    if ours is not None:
        ratio = rates[ours] / max(others) if others else None
        mfu = found[ours]["mfu"]
    for goal, figure in zip(TRAINING, (ratio, mfu), strict=True):
        yield make_row(goal, figure, ours or "")


def _ppo_row(parts: Mapping[str, Part]) -> Row:
    """Judge an iteration of PPO beside TRL's, by tokens a second."""
    part = parts.get(PPO.part)
    found = part["findings"] if part and is_real(part) else []
    rates = {
        f["provider"]: f["value"]["median"]
        for f in found
        if f["status"] == "measured" and f["shape"].endswith(AS_TRL)
    }
    ratio = rates[OURS] / rates[TRL] if {OURS, TRL} <= set(rates) else None
    return make_row(PPO, ratio, "" if ratio else NO_TRL)


def table(path: Path | None) -> str:
    """Return the table in Markdown.

    Parameters
    ----------
    path : Path or None
        A result file; None: nothing is measured.
    """
    parts = load(path) if path else {}
    by_operation: dict[str, list[Row]] = {}
    for row in rows(parts):
        name, direction = _heading(row.operation)
        goal = f"{direction}: {row.goal}" if direction else row.goal
        by_operation.setdefault(name, []).append(dataclasses.replace(row, goal=goal))
    lines = [_source(parts), "", "| operation | goal | measured |", "|---|---|---|"]
    for operation, group in by_operation.items():
        goals = "<br>".join(row.goal for row in group)
        figures = [f"{row.figure}{': ' if row.verdict else ''}{row.verdict}" for row in group]
        same = len(set(figures)) == 1
        lines.append(f"| {operation} | {goals} | {figures[0] if same else '<br>'.join(figures)} |")
    return "\n".join(lines)


def _heading(operation: str) -> tuple[str, str]:
    """Take the direction out of a name: both directions stand in one row."""
    for direction in ("forward", "backward"):
        before, found, after = operation.partition(f" {direction}")
        if found and "+" not in operation:  # "forward + backward" is one
            return before + after, direction
    return operation, ""


def _source(parts: Mapping[str, Part]) -> str:
    """Say where the figures come from."""
    real = [part for part in parts.values() if is_real(part)]
    if not real:
        return f"No result of a GPU of {' or '.join(FAMILIES)} is stored: every row says so."
    here = real[-1]["environment"]
    of = family(here["device"]) or "another architecture"
    return (
        f"Measured on {here['device']} ({of}), driver {here['driver']}, PyTorch {here['torch']}, "
        f"Triton {here['triton']}, commit {here['commit'][:12]}; each figure is the worst of its "
        "sizes."
    )


def update(file: str, results: str | None) -> None:
    """Write the table into a file, from a result file or the newest stored one.

    Parameters
    ----------
    file : str
        With the markers.
    results : str, optional
        Result file.

    Raises
    ------
    ValueError
        If a file is missing or is none of the kind.
    """
    for name, path in (("table", file), ("results", results)):
        if path is not None and not Path(path).is_file():
            refuse(name, "a file", path)
    read = Path(results) if results else stored()
    write_table(Path(file), table(read))
    print(f"{file}: the goals, by {read or 'no result: none is stored'}")


def stored() -> Path | None:
    """Return the result file that the table shows: Hopper's newest, or else Ampere's; or None."""
    found = (newest(RESULTS, of) for of in FAMILIES)
    return next((path for path in found if path), None)


def write_table(file: Path, text: str) -> None:
    """Put the table between a file's markers.

    Raises
    ------
    ValueError
        If the file lacks them.
    """
    before = file.read_text(encoding="utf-8")
    if BEGIN not in before or END not in before:
        refuse("table", f"a file with the lines {BEGIN} and {END}", str(file))
    head, _, rest = before.partition(BEGIN)
    _, _, tail = rest.partition(END)
    write_whole(file, f"{head}{BEGIN}\n{text}\n{END}{tail}")
