"""Pictures of a GPU's stored results: time and throughput over size, the roofline, memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ....core.checks import refuse
from ...result_file import RESULTS, Part, load
from ...timing import Finding
from ..operations.results import OURS, is_real, measured, newest

# People who see few colours can tell these apart (Okabe and Ito); gptwin's is the darkest.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#b8a000")
MINE = "#111111"
MARKERS = "osD^vP*X"


def plot_file(file: str | None, out: str | None) -> None:
    """Draw a result file's pictures into a folder.

    Parameters
    ----------
    file : str, optional
        By default the newest stored one.
    out : str, optional
        The folder; by default beside the file, of its name.

    Raises
    ------
    ValueError
        If there is no such file, or nothing in it to draw.
    """
    path = Path(file) if file else newest(RESULTS)
    if path is None or not path.is_file():
        refuse("results", "a result file to draw", file or "none stored", "nothing measured yet")
    folder = path.with_suffix("") if out is None else Path(out)
    written = plot(load(path), folder, dry_runs=True)
    if not written:
        refuse("results", "a result file with figures of a GPU's operations", str(path))
    print(f"{len(written)} pictures in {folder}")


def plot(parts: Mapping[str, Part], folder: Path, *, dry_runs: bool = False) -> list[Path]:
    """Draw every picture that the results give.

    Parameters
    ----------
    parts : dict
        Of a result file.
    folder : Path
        Made if it is not there.
    dry_runs : bool
        Whether to draw a dry run's figures, labelled as meaning nothing.

    Returns
    -------
    list of Path
        PNG files that were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    title = _title(parts)
    by_operation: dict[str, list[Finding]] = {}
    for operation, dtype, found in measured(parts, dry_runs=dry_runs):
        by_operation.setdefault(f"{operation} {dtype}", []).append(found)
    written = []
    for name, findings in by_operation.items():
        path = folder / f"{name.replace(' ', '-')}.png"
        _save(_over_size(name, findings), f"{name}\n{title}", path)
        written.append(path)
    if by_operation:
        for name, figure in (
            ("roofline", _roofline(by_operation, _peaks(parts))),
            ("memory", _memory(by_operation)),
        ):
            _save(figure, f"{name}\n{title}", folder / f"{name}.png")
            written.append(folder / f"{name}.png")
    return written


def _title(parts: Mapping[str, Part]) -> str:
    """Say what was measured on; of a dry run that it means nothing."""
    here = [part["environment"] for part in parts.values()]
    text = ", ".join(dict.fromkeys(f"{e['device']}, commit {e['commit'][:12]}" for e in here))
    if not all(is_real(part) for part in parts.values()):
        text += ": a dry run, the figures mean nothing"
    return text


def _peaks(parts: Mapping[str, Part]) -> Mapping[str, Any] | None:
    """Return the roofline that a part was measured with."""
    for part in parts.values():
        if part["settings"].get("peaks"):
            return part["settings"]["peaks"]
    return None


def _save(figure: Figure, title: str, path: Path) -> None:
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)


def _style(provider: str, providers: list[str]) -> dict[str, Any]:
    """Return how a provider's points are drawn: gptwin dark and on top."""
    if provider == OURS:
        return {"color": MINE, "marker": "o", "zorder": 5, "linewidth": 2}
    around, i = divmod(providers.index(provider), len(COLOURS))
    marker = MARKERS[(i + around) % len(MARKERS)]
    return {"color": COLOURS[i], "marker": marker, "zorder": 3, "linewidth": 1, "alpha": 0.85}


def _over_size(name: str, findings: list[Finding]) -> Figure:
    """Draw time and throughput over size, a row for each direction."""
    directions = list(dict.fromkeys(found["direction"] for found in findings))
    figure = Figure(figsize=(12, 3.6 * len(directions) + 0.8), layout="constrained")
    axes = figure.subplots(len(directions), 2, squeeze=False)
    for row, direction in zip(axes, directions, strict=True):
        chosen = [found for found in findings if found["direction"] == direction]
        # Sizes are measured in what bounds most of them.
        bounds = [found["roofline"]["bound"] for found in chosen if found["roofline"]]
        measure = "flops" if bounds.count("flops") * 2 > len(bounds) else "bytes"
        _lines(row[0], chosen, measure, lambda found: found["value"]["median"] * 1e6)
        row[0].set(title=f"{direction}: time", ylabel="µs (median)", yscale="log")
        scale, unit = (1e12, "TFLOP/s") if measure == "flops" else (1e9, "GB/s")
        rate = f"{measure}_per_s"
        _lines(row[1], chosen, measure, lambda found, r=rate, s=scale: found[r] / s)
        _limit(row[1], chosen, measure, scale)
        row[1].set(title=f"{direction}: throughput", ylabel=unit)
        row[1].set_ylim(bottom=0)
        label = "FLOPs of a call" if measure == "flops" else "bytes that a call must move"
        for one in row:
            one.set(xlabel=label, xscale="log")
            one.grid(alpha=0.3)
    axes[0][0].legend(fontsize=7)
    return figure


def _lines(axes: Axes, findings: list[Finding], measure: str, height: Any) -> None:
    """Draw a line for each provider."""
    providers = sorted({found["provider"] for found in findings})
    for provider in providers:
        points = sorted(
            (found[measure], height(found)) for found in findings if found["provider"] == provider
        )
        axes.plot(*zip(*points, strict=True), label=provider, markersize=4,
                  **_style(provider, providers))  # fmt: skip


def _limit(axes: Axes, findings: list[Finding], measure: str, scale: float) -> None:
    """Draw the measured peak, where a size is bound by what is shown."""
    limits = [
        found[measure] / found["roofline"]["seconds"]
        for found in findings
        if found["roofline"] and found["roofline"]["bound"] == measure
    ]
    if limits:
        axes.axhline(max(limits) / scale, color="#666666", linestyle="--", linewidth=1)
        axes.annotate("measured peak", (0.01, max(limits) / scale), (0, 2), fontsize=7,
                      xycoords=("axes fraction", "data"), textcoords="offset points")  # fmt: skip


def _roofline(by_operation: Mapping[str, list[Finding]], peaks: Mapping[str, Any] | None) -> Figure:
    """Draw gptwin's FLOP/s over FLOPs a byte, under the roofs."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots()
    lowest, highest = 1e-1, 1e4
    for number, (name, findings) in enumerate(by_operation.items()):
        ours = [f for f in findings if f["provider"] == OURS and f["flops"] and f["bytes"]]
        if not ours:
            continue
        x = [found["flops"] / found["bytes"] for found in ours]
        lowest, highest = min(lowest, *x), max(highest, *x)
        axes.scatter(
            x, [found["flops_per_s"] for found in ours], s=22, label=name, alpha=0.85,
            color=COLOURS[number % len(COLOURS)], marker=MARKERS[number // len(COLOURS)],
        )  # fmt: skip
    if peaks:
        for names, style, who in ((peaks, "-", "measured"), (peaks["datasheet"], ":", "datasheet")):
            for dtype in ("bfloat16", "float32") if names else ():
                knee = names[dtype] / names["copy"]
                x = [lowest, knee, max(highest, 2 * knee)]
                y = [names["copy"] * lowest, names[dtype], names[dtype]]
                axes.plot(x, y, style, color="#666666", linewidth=1)
                axes.annotate(f"{dtype}, {who}", (x[-1], y[-1]), (-4, 3), ha="right", fontsize=7,
                              textcoords="offset points")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="FLOPs a byte that must move", ylabel="FLOP/s")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7, ncols=2, loc="lower right")
    return figure


def _memory(by_operation: Mapping[str, list[Finding]]) -> Figure:
    """Draw everyone's extra memory, at the largest size of each operation."""
    rows = []
    for name, findings in by_operation.items():
        last = "both" if any(f["direction"] == "both" for f in findings) else "forward"
        chosen = [f for f in findings if f["direction"] == last and f["extra_bytes"] is not None]
        if chosen:
            shape = max(chosen, key=lambda found: found["bytes"] or 0)["shape"]
            rows.append((f"{name}\n{shape}", [f for f in chosen if f["shape"] == shape]))
    figure = Figure(figsize=(11, 1.6 + 0.42 * max(6, len(rows))), layout="constrained")
    axes = figure.subplots()
    everyone = sorted({found["provider"] for _, findings in rows for found in findings})
    for row, (_, findings) in enumerate(rows):
        for found in findings:
            style = _style(found["provider"], everyone) | {"linestyle": "none"}
            axes.plot(max(found["extra_bytes"], 1) / 2**20, row, markersize=7, **style)
    for provider in everyone:
        axes.plot([], [], label=provider, **_style(provider, everyone) | {"linestyle": "none"})
    axes.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="MiB beyond inputs, at the most, forward and backward")
    axes.grid(alpha=0.3)
    if everyone:
        figure.legend(fontsize=7, loc="outside right upper")
    else:
        axes.set_title("nobody counted the memory", fontsize=9)
    return figure
