"""What can be said of a kernel that was never run: its resources, its cost, and a predicted time.

Registers, spills, shared memory and occupancy come from `gptwin inspect --typical --json`, which
stores them beside the results; nothing is compiled here. FLOPs and bytes are the twin's own count
for a call at its first named shape. The time is the roofline's for the datasheet's peaks: a lower
bound, predicted and not measured.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ...lab.twins.catalogue import TWINS
from ...lab.twins.roofline import DEVICES, predicted_seconds, typical
from ...records import read_json_lines
from ..models import Settings
from ..timing import Finding

INSPECTED = Path(__file__).resolve().parents[1] / "results" / "inspect.jsonl"
COMMAND = "gptwin inspect --typical --json benchmarks/results/inspect.jsonl"
PREDICTED = "predicted"
RESOURCES = ("registers", "spill_bytes", "shared_bytes")


def static(settings: Settings) -> Iterator[Finding]:
    """Predict each twin's times, and add what its kernels take where that is stored."""
    kernels = read_kernels(INSPECTED)
    for name, twin in TWINS.items():
        chosen = typical(twin)
        yield {
            "name": name, "status": PREDICTED, "unit": "seconds, predicted, not measured",
            "reason": None if name in kernels else f"kernels not compiled: {COMMAND}",
            "goal": None, "reached": None, "clear": None,
            "settings": {"shape": chosen.shape, "case": chosen.case, "dtype": chosen.dtype},
            "costs": {
                direction: {
                    "flops": cost.flops, "bytes": cost.bytes,
                    "predicted_seconds": {
                        device.name: predicted_seconds(cost, chosen.dtype, device)
                        for device in DEVICES
                    },
                }
                for direction, cost in chosen.costs.items()
            },
            "kernels": kernels.get(name, []),
        }  # fmt: skip


def read_kernels(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Read what `gptwin inspect --json` stored.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict
        By twin, a list of what each kernel takes in each configuration; empty without the file.

    Raises
    ------
    ValueError
        If the file is something else.
    """
    if not path.exists():
        return {}
    found: dict[str, list[dict[str, Any]]] = {}
    try:
        for row in read_json_lines(path)[1:]:  # the first line says what made them
            if row["resources"]:
                taken = {name: row[name] for name in ("kernel", "arch", "dtype", "configuration")}
                taken |= {name: row["resources"][name] for name in RESOURCES}
                found.setdefault(row["operation"], []).append(
                    taken | {"occupancy": row["occupancy"]}
                )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name}: expected what {COMMAND} stores, got another") from error
    return found


def print_static(findings: list[Finding], console: Console) -> None:
    """Print a row for each twin, and below it one for each of its kernels.

    Parameters
    ----------
    findings : list of dict
    console : rich.console.Console
    """
    table = Table(
        box=SIMPLE_HEAD, pad_edge=False, title="static: predicted, not measured",
        title_justify="left", caption_justify="left",
        caption="least time forward (and backward) by the datasheet's peaks; of a kernel the "
        "least and the most of its configurations",
    )  # fmt: skip
    table.add_column("twin, kernel", overflow="fold")
    for device in DEVICES:
        table.add_column(f"{device.name} (µs)", justify="right", no_wrap=True)
    for heading in ("registers", "spills", "shared (B)", "occupancy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for found in findings:
        table.add_row(
            f"[bold]{found['name']}[/bold]",
            *(
                ", ".join(
                    f"{cost['predicted_seconds'][device.name] * 1e6:.3g}"
                    for cost in found["costs"].values()
                )
                for device in DEVICES
            ),
        )
        for kernel, arch in dict.fromkeys((k["kernel"], k["arch"]) for k in found["kernels"]):
            own = [k for k in found["kernels"] if (k["kernel"], k["arch"]) == (kernel, arch)]
            cells = [_range(own, name) for name in (*RESOURCES, "occupancy")]
            table.add_row(f"  {kernel} ({arch})", *("" for _ in DEVICES), *cells)
    console.print(table)


def _range(rows: list[Mapping[str, Any]], name: str) -> str:
    values = [row[name] for row in rows]
    form = "{:.0%}" if name == "occupancy" else "{:,}"
    least, most = form.format(min(values)), form.format(max(values))
    return least if least == most else f"{least}-{most}"
