"""Where results are kept: one file, a finding a line, replaced in one step, part by part.

The file is JSON lines (`.jsonl`):

    {"gptwin": "0.1.0", "format": 2}
    {"part": "numpy-training", "status": ..., "reason": ..., "settings": ..., "environment": ...}
    {"part": "numpy-training", "name": "gptwin, NumPy against PyTorch, eager", "value": ..., ...}
    ...

Behind the first line each part has one line about itself, then one for each of its findings. A
part carries the machine, the versions and the commit that it was measured with, since parts can be
measured again one by one. Of samples the median, p20 and p80 are kept, and how many there were.
"""

import functools
import os
import subprocess
from pathlib import Path
from typing import Any

from .. import __version__
from ..core.checks import refuse
from ..records import json_lines, provenance, read_json_lines, results_folder, write_whole

FORMAT = 2
ENDING = ".jsonl"
RESULTS = results_folder("benchmarks/results")
PACKAGES = ("numpy", "torch", "transformers", "matplotlib")
GPU_PACKAGES = ("numpy", "torch", "triton", "transformers", "liger-kernel", "flash-attn")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Part = dict[str, Any]


def load(path: Path) -> dict[str, Part]:
    """Read the parts of a result file; none if there is no such file.

    Raises
    ------
    ValueError
        If the file is something else.
    """
    if not path.exists():
        return {}
    try:
        head, *lines = read_json_lines(path)
        if head["format"] == FORMAT:
            return _parts_of(lines)
    except (ValueError, KeyError, TypeError):
        pass
    cause = "an older gptwin's, in JSON" if path.suffix == ".json" else ""
    refuse("out", f"a result file of format {FORMAT}, or none yet", path.name, cause)


def _parts_of(lines: list[dict[str, Any]]) -> dict[str, Part]:
    """Put each finding into its part."""
    parts: dict[str, Part] = {}
    for line in lines:
        name = line.pop("part")
        if "environment" in line:  # the part's own
            parts[name] = line | {"findings": []}
        else:
            parts[name]["findings"].append(line)
    return parts


def save(path: Path, name: str, part: Part) -> None:
    """Store one part and leave the others; the file is replaced in one step or not at all."""
    lines: list[dict[str, Any]] = [{"gptwin": __version__, "format": FORMAT}]
    for each, stored in (load(path) | {name: part}).items():
        about = {key: value for key, value in stored.items() if key != "findings"}
        lines.append({"part": each, **about})
        lines += [{"part": each, **found} for found in stored["findings"]]
    write_whole(path, json_lines(lines))


def results_path(out: str | None, name: str) -> Path:
    """Say where results are stored, before anything is measured.

    Parameters
    ----------
    out : str or None
        As the user gave it.
    name : str
        Of the file in benchmarks/results, without its ending, if the user gave none.

    Raises
    ------
    ValueError
        If `out` ends otherwise, or its folder does not exist.
    """
    if out is None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        return RESULTS / f"{name}{ENDING}"
    path = Path(out)
    if path.suffix != ENDING or path.is_dir() or not path.resolve().parent.is_dir():
        refuse("out", f"a {ENDING} file in a directory that exists", out)
    return path


def environment(threads: int) -> dict[str, Any]:
    """Describe the machine that is measured on, for JSON.

    Parameters
    ----------
    threads : int
        As asked for.
    """
    import torch

    return provenance(*PACKAGES) | {
        "load_average": os.getloadavg()[0],
        "threads": {
            "asked": threads,
            "torch": torch.get_num_threads(),
            **{name: os.environ.get(name) for name in THREAD_VARIABLES},
        },
    }


def gpu_environment(device: str) -> dict[str, Any]:
    """Describe the GPU that is measured on, for JSON.

    Parameters
    ----------
    device : str
        Its name.
    """
    import torch

    return provenance(*GPU_PACKAGES) | {
        "device": device,
        "driver": driver_version(),
        "cuda": torch.version.cuda,
    }


@functools.cache  # every part asks, and it takes a while
def driver_version() -> str | None:
    """Return the version of NVIDIA's driver, None if there is none."""
    command = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.splitlines()[0].strip() if found.stdout.strip() else None
