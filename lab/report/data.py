"""What the report shows, read from what the other instruments and the benchmarks stored.

The benchmarks' files are read as files: lab/ and benchmarks/ do not import one another.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.checks import refuse
from .. import store
from ..twins.roofline import DEVICES, Device, Typical, predicted_seconds, ridge, typical
from ..twins.twin import Twin
from ..verify.console import brief

BENCHMARK_FORMAT = 2  # benchmarks/result_file.py
OURS = "gptwin"  # benchmarks/gpu/operations/results.py
Document = Mapping[str, Any]


# --- verification --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Verified:
    """One row of the verification: a twin in one dtype.

    Attributes
    ----------
    operation, dtype : str
    cases, reached, variants : int
        Checks run; kernels with their configurations that ran, and that there are.
    share : float or None
        The largest share of its budget that an element used up; None if nothing was compared.
    where : str
        In which result or gradient, of which case.
    passed : bool
    error : str
        What the kernel raised, in one line; empty if nothing.
    reproduce : str or None
        The command that shows a disagreement again.
    """

    operation: str
    dtype: str
    cases: int
    reached: int
    variants: int
    share: float | None
    where: str
    passed: bool
    error: str
    reproduce: str | None


@dataclasses.dataclass(frozen=True)
class Verification:
    """A run of `gptwin verify`.

    Attributes
    ----------
    document : dict
        What it was made with: versions, device, date, seed.
    passed : bool
    rows : list of Verified
    changed : list of str or None
        Source files that say something else now; None if the run did not note its sources.
    """

    document: Document
    passed: bool
    rows: list[Verified]
    changed: list[str] | None

    def of(self, operation: str) -> list[Verified]:
        """Return a twin's rows."""
        return [row for row in self.rows if row.operation == operation]

    def only(self, operations: list[str]) -> "Verification":
        """Return what it says of some twins."""
        rows = [row for row in self.rows if row.operation in operations]
        # A run also fails without a failed row: no case may have reached a kernel.
        passed = self.passed or any(not row.passed for row in self.rows)
        passed = passed and all(row.passed for row in rows)
        return dataclasses.replace(self, rows=rows, passed=passed)

    @property
    def worst(self) -> Verified | None:
        """The row that came nearest to its budget, or went furthest beyond."""
        compared = [row for row in self.rows if row.share is not None]
        return max(compared, key=lambda row: row.share or 0.0, default=None)


def read_verification(path: Path) -> Verification:
    """Read what `gptwin verify --json` stored.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Verification

    Raises
    ------
    ValueError
        If the file is not there, or is something else.
    """
    document = _read("verification", path, "gptwin verify --json")
    try:
        rows = [_verified(row) for row in document["rows"]]
        passed = bool(document["passed"])
        document["device"], document["seed"], document["torch"]
    except (KeyError, TypeError, ValueError, AttributeError):
        refuse("verification", "a file that gptwin verify --json wrote", f"another: {path}")
    return Verification(document, passed, rows, _changed(document))


def _verified(row: Document) -> Verified:
    comparisons = row["worst"]["comparisons"] if row["worst"] else []
    # Infinity and NaN are stored as strings; NaN is beyond any budget.
    shares = [(float(c["share"]), c["name"]) for c in comparisons]
    share, name = max(((s if s == s else float("inf"), n) for s, n in shares), default=(None, ""))
    return Verified(
        operation=row["operation"],
        dtype=row["dtype"],
        cases=int(row["cases"]),
        reached=int(row["variants_reached"]),
        variants=int(row["variants"]),
        share=share,
        where=f"{name} {brief(row['worst']['case'])}" if name else "",
        passed=bool(row["passed"]),
        error=(row["failure"] or {}).get("error", "").partition("\n")[0],
        reproduce=row["reproduce"],
    )


# --- what the kernels take -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class KernelTaken:
    """What one kernel takes on one architecture, over its autotune configurations.

    Attributes
    ----------
    kernel, arch : str
    configurations : int
    registers, shared_bytes, occupancy : (least, most)
        Of a thread, of a block, and as a share of the multiprocessor's warps.
    spill_bytes : int
        The most.
    """

    kernel: str
    arch: str
    configurations: int
    registers: tuple[int, int]
    shared_bytes: tuple[int, int]
    occupancy: tuple[float, float]
    spill_bytes: int


@dataclasses.dataclass(frozen=True)
class Inspection:
    """A run of `gptwin inspect`.

    Attributes
    ----------
    document : dict
        What it was made with: versions and date.
    kernels : dict of str to list of KernelTaken
        By twin.
    failures : dict of str to list of str
        By twin: what spills, does not fit or does not compile.
    changed : list of str or None
        As in `Verification`.
    """

    document: Document
    kernels: dict[str, list[KernelTaken]]
    failures: dict[str, list[str]]
    changed: list[str] | None


def read_inspection(path: Path) -> Inspection | None:
    """Read what `gptwin inspect --json` stored, if there is such a file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Inspection or None

    Raises
    ------
    ValueError
        If the file is something else.
    """
    if not path.exists():
        return None
    document = _read("results", path, "gptwin inspect --json")
    groups: dict[tuple[str, str, str], list[Document]] = {}
    failures: dict[str, list[str]] = {}
    try:
        for row in document["rows"]:
            for why in row["failures"]:
                words = f"{row['arch']} {row['kernel']} {row['dtype']}: {why}"
                failures.setdefault(row["operation"], []).append(words)
            if row["resources"]:
                key = row["operation"], row["kernel"], row["arch"]
                groups.setdefault(key, []).append(row)
        kernels: dict[str, list[KernelTaken]] = {}
        for (operation, kernel, arch), rows in groups.items():
            kernels.setdefault(operation, []).append(_taken(kernel, arch, rows))
    except (KeyError, TypeError, ValueError, AttributeError):
        refuse("results", "a file that gptwin inspect --json wrote", f"another: {path}")
    for of_twin in kernels.values():
        of_twin.sort(key=lambda taken: (taken.kernel, taken.arch))
    return Inspection(document, kernels, failures, _changed(document))


def _taken(kernel: str, arch: str, rows: list[Document]) -> KernelTaken:
    def of(name: str) -> list[Any]:
        return [row["resources"][name] for row in rows]

    occupancy = [row["occupancy"] for row in rows]
    return KernelTaken(
        kernel=kernel,
        arch=arch,
        configurations=len({row["configuration"] for row in rows}),
        registers=(min(of("registers")), max(of("registers"))),
        shared_bytes=(min(of("shared_bytes")), max(of("shared_bytes"))),
        occupancy=(min(occupancy), max(occupancy)),
        spill_bytes=max(of("spill_bytes")),
    )


# --- what a twin costs ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Predicted:
    """What the roofline says of one device: the least time, and what limits it."""

    device: Device
    seconds: float
    limit: str


@dataclasses.dataclass(frozen=True)
class Costs:
    """The cost of one direction of a twin at its typical shape."""

    direction: str
    flops: int
    bytes: int
    predicted: list[Predicted]

    @property
    def intensity(self) -> float:
        """FLOPs for each byte."""
        return self.flops / self.bytes


def costs_of(twin: Twin) -> tuple[Typical, list[Costs]]:
    """Count what a twin does at its first named shape, and predict from that.

    Parameters
    ----------
    twin : Twin

    Returns
    -------
    Typical
    list of Costs
    """
    chosen = typical(twin)
    rows = []
    for direction, cost in chosen.costs.items():
        predicted = []
        for device in DEVICES:
            memory = cost.flops / cost.bytes < ridge(chosen.dtype, device)
            seconds = predicted_seconds(cost, chosen.dtype, device)
            predicted.append(Predicted(device, seconds, "memory" if memory else "arithmetic"))
        rows.append(Costs(direction, cost.flops, cost.bytes, predicted))
    return chosen, rows


# --- benchmarks ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A result file of `gptwin bench`.

    Attributes
    ----------
    name : str
        The file's, without its ending.
    parts : dict
        As benchmarks/result_file.py describes them.
    """

    name: str
    parts: dict[str, Any]

    @property
    def device(self) -> str | None:
        """The GPU that was measured; None for a CPU's file."""
        return next((p["environment"].get("device") for p in self.parts.values()), None)

    def overall(self) -> dict[str, Any]:
        """Return the parts that belong to no one twin and dtype, and hold more than predictions."""
        return {
            name: part
            for name, part in self.parts.items()
            if "/" not in name and any(f["status"] != "predicted" for f in part["findings"])
        }

    def verified(self) -> tuple[list[str], list[str]]:
        """Return the twins that were verified on this device, and why others were not."""
        agree, other = [], []
        for name, part in self.parts.items():
            kind, _, operation = name.partition("/")
            if kind == "verify" and part["status"] == "measured":
                agree.append(operation)
            elif kind == "verify":
                other.append(f"{operation}: {part['reason'] or part['status']}")
        return agree, other

    def environments(self) -> list[str]:
        """Say on what the parts were measured, each once, with the commits that they are of."""
        commits: dict[str, list[str]] = {}
        for part in self.parts.values():
            here = part["environment"]
            machine = here.get("device") or here.get("cpu") or ""
            line = f"{machine}, torch {here.get('torch')}, {str(here.get('date'))[:10]}"
            commits.setdefault(line, []).append(str(here.get("commit"))[:9])
        return [
            f"{line}, commit{'s' if len(set(of)) > 1 else ''} {', '.join(dict.fromkeys(of))}"
            for line, of in commits.items()
        ]


def read_benchmarks(folder: Path) -> list[Benchmark]:
    """Read all result files of a folder.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    list of Benchmark
        Without the parts of dry runs, and without what other instruments stored there.

    Raises
    ------
    ValueError
        If a file is no JSON, or its parts are not what benchmarks store.
    """
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        document = _read("results", path, "gptwin bench")
        if document.get("format") != BENCHMARK_FORMAT:
            continue
        try:
            stored = _parts_of(document["rows"])
            parts = {name: part for name, part in stored.items() if _is_real(part)}
        except (KeyError, TypeError, AttributeError):
            refuse("results", "files that gptwin bench wrote", f"another: {path}")
        if parts:
            found.append(Benchmark(path.stem, parts))
    return found


def _parts_of(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Put each finding into its part."""
    parts = {row["part"]: {**row, "findings": []} for row in rows if "environment" in row}
    for row in rows:
        if "environment" not in row:
            parts[row["part"]]["findings"].append(row)
    return parts


def _is_real(part: Document) -> bool:
    """Say whether a part's figures mean something; refuse what is no part."""
    part["status"], part["reason"], part["environment"]["date"], part["findings"]
    return not (part["settings"].get("quick") or part["settings"].get("dry_run"))


@dataclasses.dataclass(frozen=True)
class Timed:
    """What was measured of a twin at one shape, in one direction and dtype, on one GPU.

    Attributes
    ----------
    device, dtype, shape, direction : str
    cells : dict of str to (float or None, str)
        By provider, gptwin's first: the median in seconds, or None and why there is none.
    share : float or None
        Of the measured roofline, that gptwin's kernel reached.
    """

    device: str
    dtype: str
    shape: str
    direction: str
    cells: dict[str, tuple[float | None, str]]
    share: float | None


def timed(operation: str, benchmarks: list[Benchmark]) -> list[Timed]:
    """Collect a twin's times on GPUs.

    Parameters
    ----------
    operation : str
    benchmarks : list of Benchmark

    Returns
    -------
    list of Timed
    """
    rows: dict[tuple[str, str, str, str], list[Document]] = {}
    for benchmark in benchmarks:
        for name, part in benchmark.parts.items():
            twin, _, dtype = name.partition("/")
            if twin != operation or not benchmark.device:
                continue
            for found in part["findings"]:
                key = benchmark.device, dtype, found["shape"], found["direction"]
                rows.setdefault(key, []).append(found)
    collected = []
    for key, findings in rows.items():
        cells: dict[str, tuple[float | None, str]] = {OURS: (None, "not measured")}
        share = None
        for found in findings:
            measured = found["status"] == "measured"
            seconds = found["value"]["median"] if measured else None
            cells[found["provider"]] = seconds, found["reason"] or found["status"]
            if measured and found["provider"] == OURS:
                share = (found["roofline"] or {}).get("share")
        collected.append(Timed(*key, cells, share))
    return collected


# --- files ---------------------------------------------------------------------------------------


def _read(argument: str, path: Path, written_by: str) -> dict[str, Any]:
    """Read a JSON object, or refuse in one line."""
    expected = f"a file that {written_by} wrote"
    try:
        document = store.read_rows(path)
    except OSError as error:
        refuse(argument, expected, f"{path}: {error.strerror}")
    except ValueError as error:
        refuse(argument, expected, f"{path}, which is no JSON ({error})")
    if not isinstance(document, dict) or "rows" not in document:
        refuse(argument, expected, f"another: {path}")
    return document


def _changed(document: Document) -> list[str] | None:
    """Name the sources that say something else than when a document was stored."""
    then = document.get("sources")
    if then is None:
        return None
    now = store.fingerprints()
    return sorted(path for path in {*then, *now} if then.get(path) != now.get(path))
