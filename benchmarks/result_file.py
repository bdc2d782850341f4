"""Where results are kept: one JSON file, replaced in one step, part by part.

Each part carries the machine, the versions and the commit that it was measured with, since parts
can be measured again one by one.
"""

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from .. import __version__
from ..core.checks import refuse

FORMAT = 1
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
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] == FORMAT:
            return document["parts"]
    except (json.JSONDecodeError, KeyError, TypeError):
        pass
    refuse("out", f"a result file of format {FORMAT}, or none yet", path.name)


def save(path: Path, name: str, part: Part) -> None:
    """Store one part and leave the others; the file is replaced in one step or not at all."""
    parts = load(path) | {name: part}
    document = {"gptwin": __version__, "format": FORMAT, "parts": parts}
    handle, temporary = tempfile.mkstemp(dir=path.resolve().parent, suffix=".json")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1, allow_nan=False)
            file.write("\n")
        os.chmod(temporary, 0o644)  # mkstemp's is for its owner alone
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def environment(threads: int) -> dict[str, Any]:
    """Describe what is measured on.

    Parameters
    ----------
    threads : int
        As asked for.

    Returns
    -------
    dict
        Ready for JSON.
    """
    import torch

    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "cpu": cpu_name(),
        "cores": available_cores(),
        "load_average": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "threads": {
            "asked": threads,
            "torch": torch.get_num_threads(),
            **{name: os.environ.get(name) for name in THREAD_VARIABLES},
        },
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def gpu_environment(device: str) -> dict[str, Any]:
    """Describe the GPU that is measured on.

    Parameters
    ----------
    device : str
        Its name.

    Returns
    -------
    dict
        Ready for JSON.
    """
    import torch

    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "device": device,
        "driver": driver_version(),
        "cuda": torch.version.cuda,
        "cpu": cpu_name(),
        "cores": available_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in GPU_PACKAGES},
    }


def driver_version() -> str | None:
    """Return the version of NVIDIA's driver, None if there is none."""
    command = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.splitlines()[0].strip() if found.stdout.strip() else None


def available_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """Return the processor's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def version(package: str) -> str | None:
    """Return a package's version, None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str:
    """Return the commit of this checkout, with a + if Python files have changed since.

    Of a copy without Git's data: `GPTWIN_COMMIT`, or else a hash of the Python files.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ("git", "-C", str(Path(__file__).parent), *arguments),
            capture_output=True, text=True, check=True, timeout=20,
        ).stdout.strip()  # fmt: skip

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/*.py")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("GPTWIN_COMMIT") or f"files {hash_of_files()}"


def hash_of_files() -> str:
    """Return a hash of the package's Python files."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for folder in ("core", "kernels", "lab", "rl", "benchmarks"):
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
