"""How exact the functions are that kernels call: compiled for the CPU, over every float32 there is.

    python -m gptwin.lab.verify.functions benchmarks/results/functions.jsonl

The truth is PyTorch's in float64, whose own error is some 10⁻⁹ of the unit that counts here: of the
last place (ulp) of the truth in float32. A result that is no number, or infinite, must be that one.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...kernels import native
from ...kernels.common._triton import tl, triton
from ..store import made_with, write_rows

FUNCTIONS = ("exp2", "exp", "log2", "log", "erf", "rsqrt", "tanh")
BLOCK = 4096
AT_ONCE = 1 << 24  # floats of one launch
SMALLEST_NORMAL = np.float32(2**-126)


@triton.jit
def function_kernel(x_ptr, y_ptr, n, NAME: tl.constexpr, BLOCK: tl.constexpr):
    """Apply the function of that name to n floats."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n)
    if NAME == "exp2":
        y = tl.exp2(x)
    elif NAME == "exp":
        y = tl.exp(x)
    elif NAME == "log2":
        y = tl.log2(x)
    elif NAME == "log":
        y = tl.log(x)
    elif NAME == "erf":
        y = tl.erf(x)
    elif NAME == "rsqrt":
        y = tl.rsqrt(x)
    else:
        y = tl.extra.cuda.libdevice.tanh(x)
    tl.store(y_ptr + at, y, mask=at < n)


def errors(name: str, bits: np.ndarray) -> np.ndarray:
    """Return how far a function is from the truth.

    Parameters
    ----------
    name : str
        One of FUNCTIONS.
    bits : numpy.ndarray [n], integers
        The float32 that it is given, by their bits.

    Returns
    -------
    numpy.ndarray [n]
        float64, in units of the last place; infinite where it had to be a number and is none, or
        the other way round.
    """
    x = torch.from_numpy(bits.astype(np.uint32).view(np.float32))
    y = torch.zeros(len(x))
    with native.unchecked():
        function_kernel[(triton.cdiv(len(x), BLOCK),)](x, y, len(x), NAME=name, BLOCK=BLOCK)
    of_torch = getattr(torch.special if name == "erf" else torch, name)
    truth, got = of_torch(x.double()).numpy(), y.numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = truth.astype(np.float32)
        unit = np.spacing(np.maximum(np.abs(rounded), SMALLEST_NORMAL)).astype(np.float64)
        found = np.abs(got - truth) / unit
    same = (rounded == got) | (np.isnan(rounded) & np.isnan(got))
    return np.where(np.isfinite(rounded) & np.isfinite(got), found, np.where(same, 0.0, np.inf))


def measure(name: str, every: int = 1) -> dict[str, Any]:
    """Find the worst error of a function over all float32.

    Parameters
    ----------
    name : str
        One of FUNCTIONS.
    every : int
        Take one in so many.

    Returns
    -------
    dict
        The row that is stored.
    """
    started = time.process_time()
    worst, at, total = -1.0, 0, 0
    for first in range(0, 2**32, AT_ONCE * every):
        bits = np.arange(first, min(first + AT_ONCE * every, 2**32), every, dtype=np.int64)
        found = errors(name, bits)
        total += len(bits)
        if found.max() > worst:
            worst, at = float(found.max()), int(bits[found.argmax()])
    return {
        "function": name,
        "numbers": total,
        "worst_ulp": round(worst, 3),
        "at": float(np.uint32(at).view(np.float32)),
        "processor_seconds": round(time.process_time() - started, 1),
    }


def main(path: str) -> None:
    """Measure all and store them."""
    native.activate()
    rows = []
    for name in FUNCTIONS:
        rows.append(measure(name))
        print(rows[-1], flush=True)
    write_rows(Path(path), made_with(), rows)


if __name__ == "__main__":
    main(sys.argv[1])
