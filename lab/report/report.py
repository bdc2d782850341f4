"""`gptwin report`: one HTML file, which needs no network, of all that is known of the twins.

Verification is run for it, or read where it was stored; what kernels take and what was measured is
read from the folder of results. Nothing is measured here, and what nobody measured is said so.
"""

import datetime
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ... import __version__
from ...core.checks import refuse
from ...records import results_folder, write_whole
from .. import store
from ..twins.catalogue import TWINS
from ..twins.find import expect_twins, find_twin, is_own
from ..twins.roofline import DEVICES
from ..twins.twin import DTYPES
from ..verify import console
from .claims import claims_of
from .data import (
    Benchmark,
    Inspection,
    Timed,
    Verification,
    costs_of,
    read_benchmarks,
    read_inspection,
    read_verification,
    timed,
)
from .plots import budget_strip, roofline, stored_plots
from .predicted import Prediction, read_predictions
from .safety import read_safety
from .sources import anchor, files_of, read_source

RESULTS = results_folder("benchmarks/results")
FRESH = "fresh"


def report(
    operations: Sequence[str] = (),
    *,
    out: str = "report.html",
    verification: str = FRESH,
    examples: int | None = None,
    results: str | None = None,
) -> int:
    """Write the page.

    Parameters
    ----------
    operations : sequence of str
        Twins to show; none means all.
    out : str
        The HTML file.
    verification : str
        What `gptwin verify --json` stored; "fresh" runs it.
    examples : int, optional
        Random cases per row of a fresh verification.
    results : str, optional
        Folder of stored results; the checkout's own if left out.

    Returns
    -------
    int
        0, or 1 if a twin disagrees; the page is written in either case.

    Raises
    ------
    ValueError
        If an argument makes no sense, or a file is not what it should be.
    RuntimeError
        If the page cannot be written, or Triton is missing for a fresh verification.
    """
    expect_twins(operations)
    path = store.expect_writable("out", out)
    folder = RESULTS if results is None else Path(results)
    if results is not None and not folder.is_dir():
        refuse("results", "a directory", results)
    if examples is not None and verification != FRESH:
        refuse("examples", "none beside a stored verification", str(examples))
    # We read first, so that a bad file is refused before minutes of verification.
    inspection, benchmarks = read_inspection(folder / "inspect.jsonl"), read_benchmarks(folder)
    _, predictions = read_predictions(folder / "predict.jsonl")
    names = list(dict.fromkeys(operations)) or list(TWINS)
    if verification == FRESH:
        verified = verify_afresh(names, examples)
    else:
        verified = read_verification(Path(verification)).only(names)
    page = render(names, verified, inspection, benchmarks, folder, predictions)
    write_whole(path, page)
    size = len(page.encode()) / 1e6
    print(f"{path}: {len(names)} twins, {verdict(verified, names)}; {size:.1f} MB")
    return 0 if verified.passed else 1


def verify_afresh(names: list[str], examples: int | None) -> Verification:
    """Verify twins now.

    Parameters
    ----------
    names : list of str
    examples : int, optional

    Returns
    -------
    Verification
    """
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder, "verification.json")
        console.verify(names, dtypes=[], examples=examples, json_file=str(stored))
        return read_verification(stored)


def render(
    names: list[str],
    verification: Verification,
    inspection: Inspection | None,
    benchmarks: list[Benchmark],
    folder: Path,
    predictions: Mapping[str, Prediction],
) -> str:
    """Write the page's text.

    Parameters
    ----------
    names : list of str
        Twins, in the order of the page.
    verification : Verification
    inspection : Inspection or None
    benchmarks : list of Benchmark
    folder : Path
        Where the benchmarks' pictures are.
    predictions : dict of str to Prediction
        By twin.

    Returns
    -------
    str
        HTML.
    """
    environment = Environment(
        loader=PackageLoader("gptwin.lab.report"),
        autoescape=lambda name: name is None or ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": console.percent, "count": count, "duration": duration, "figure": figure,
    }  # fmt: skip
    declared = [name for name in names if "cost" not in find_twin(name).undeclared]
    costs = {name: costs_of(find_twin(name)) for name in declared}
    plots = {benchmark.name: stored_plots(folder, benchmark.name) for benchmark in benchmarks}
    twins = _twins(names, verification, inspection, benchmarks)
    for twin in twins:
        twin["predicted"] = predictions.get(twin["name"])
    safety = read_safety(folder / "safe.jsonl")
    for twin in twins:  # an operation's own pictures stand beside it
        twin["safety"] = safety.get(twin["name"])
        twin["plots"] = [p for own in plots.values() for p in own if _is_of(p.name, twin["name"])]
    plots = {
        name: [p for p in own if not any(_is_of(p.name, twin) for twin in TWINS)]
        for name, own in plots.items()
    }
    return environment.get_template("report.html.j2").render(
        names=names,
        twins=twins,
        verification=verification,
        verdict=verdict(verification, names),
        strip=budget_strip(verification),
        roofline=roofline((name, chosen.dtype, rows) for name, (chosen, rows) in costs.items()),
        devices=DEVICES,
        duration=duration,
        figure=figure,
        inspection=inspection,
        benchmarks=benchmarks,
        gpus=[benchmark.device for benchmark in benchmarks if benchmark.device],
        plots=plots,
        version=__version__,
        command=f"gptwin report{''.join(f' {n}' for n in names if len(names) < len(TWINS))}",
        date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _twins(
    names: list[str],
    verification: Verification,
    inspection: Inspection | None,
    benchmarks: list[Benchmark],
) -> list[dict[str, Any]]:
    """Gather what the page says of each twin; each file is shown once, others link to it."""
    files = {name: files_of(find_twin(name)) for name in names}
    placed = {path for name in names for path in files[name][:2]}
    twins = []
    for name in names:
        twin = find_twin(name)
        chosen, costs = (None, []) if "cost" in twin.undeclared else costs_of(twin)
        case = chosen.case if chosen else {}
        pair = [read_source(path) for path in files[name][:2]]
        more = [read_source(path) for path in files[name][2:] if path not in placed]
        placed |= {source.path for source in more}
        elsewhere = [path for path in files[name][2:] if path not in {s.path for s in more}]
        twins.append(
            {
                "name": name,
                "own": is_own(name),
                "summary": _sentence(pair[0].summary),
                "claims": claims_of(name),
                "rows": verification.of(name),
                "typical": chosen,
                "case": ", ".join(f"{key} {_plain(value)}" for key, value in case.items()),
                "costs": costs,
                "kernels": inspection.kernels.get(name, []) if inspection else [],
                "unreached": _unreached(name, inspection),
                "failures": inspection.failures.get(name, []) if inspection else [],
                "timed": _tables(timed(name, benchmarks)),
                "pair": pair,
                "more": more,
                "others": [(path, anchor(path)) for path in elsewhere],
            }
        )
    return twins


def _is_of(picture: str, operation: str) -> bool:
    """Say whether a picture is of one operation in one dtype, by the name that plots.py gave it."""
    return picture in {f"{operation}-{dtype}" for dtype in DTYPES}


def _unreached(name: str, inspection: Inspection | None) -> list[str]:
    """Name the kernels that a twin's typical shape does not launch."""
    if inspection is None or name not in inspection.kernels:
        return []
    compiled = {taken.kernel for taken in inspection.kernels[name]}
    return [kernel for kernel in find_twin(name).kernels() if kernel not in compiled]


def _tables(rows: list[Timed]) -> list[dict[str, Any]]:
    """Put what was timed on one device in one dtype into one table."""
    tables = []
    for device, dtype in dict.fromkeys((row.device, row.dtype) for row in rows):
        own = [row for row in rows if (row.device, row.dtype) == (device, dtype)]
        providers = list(dict.fromkeys(provider for row in own for provider in row.cells))
        tables.append({"device": device, "dtype": dtype, "providers": providers, "rows": own})
    return tables


# --- words and numbers ---------------------------------------------------------------------------


def verdict(verification: Verification, names: list[str]) -> str:
    """Say in a few words how the verification of these twins went."""
    failed = sum(not row.passed for row in verification.rows)
    if failed:
        return f"{failed} of {len(verification.rows)} rows disagree"
    if not verification.passed:
        return "some kernels were not reached"
    done = len({row.operation for row in verification.rows})
    return "all agree" if done == len(names) else f"{done} of {len(names)} twins verified"


def count(number: float) -> str:
    """Write a large number in three digits and a prefix: 12,900,000 as "12.9 M"."""
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if number >= 10**power:
            return f"{number / 10**power:.3g} {prefix}"
    return f"{number:.3g} "


def duration(seconds: float) -> str:
    """Write a time in three digits and its unit."""
    for scale, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def figure(value: float) -> str:
    """Write a measured figure: three digits, never an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def _sentence(summary: str) -> str:
    """Turn "Softmax: scores in, probabilities out." into what stands behind the name."""
    words = summary.partition(": ")[2] or summary
    return words[:1].upper() + words[1:]


def _plain(value: object) -> str:
    return "×".join(map(str, value)) if isinstance(value, list) else str(value)
