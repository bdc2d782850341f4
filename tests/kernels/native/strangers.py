"""What kernels of others give: the mended forms of those that the sanitizer finds faults in.

python tests/kernels/native/strangers.py FILE     compile them for the CPU, and keep the results
"""

import importlib.util
import sys
from pathlib import Path

import torch

LAB = Path(__file__).resolve().parents[2] / "lab"
PATHS = sorted([*(LAB / "foreign/broken").glob("*.py"), *(LAB / "sanitize/broken").glob("*.py")])


def results() -> dict[str, tuple[torch.Tensor, ...]]:
    """Run each kernel in this process, interpreted or compiled; return its tensors by its name."""
    found = {}
    for path in PATHS:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        torch.manual_seed(0)
        given = module.drive_fixed_kernel()
        found[path.stem] = given if isinstance(given, tuple) else (given,)
    return found


if __name__ == "__main__":
    from gptwin.kernels import native

    native.activate()
    torch.save(results(), sys.argv[1])
