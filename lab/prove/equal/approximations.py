"""How far declared approximations are from what they stand for: every float32 of the interval.

    python -m gptwin.lab.prove.equal.approximations lab/prove/equal/approximations.jsonl

Compiled for the CPU (kernels/native), since there are up to 2³¹ numbers. The truth is a series in
float64 with so many terms that the next one is below its rounding; no exponential of anybody's is
trusted. The error is in units of the last place (ulp) of the truth in float32.
"""

import dataclasses
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....core.language.sampling import MAX_STEPS, STEP_BITS, WEIGHT_BITS, steps_per_unit
from ....kernels import native
from ....kernels.common._triton import tl, triton
from ....kernels.language import sampling
from ....kernels.rlhf import kl, reward_loss
from ...store import made_with, write_rows

# Numbers of one program; a launch looks at fewer than 2³¹ of them.
PER_PROGRAM, BLOCK = 1 << 20, 1 << 10
_LOG2_E = tl.constexpr(math.log2(math.e))
_LN_2 = tl.constexpr(math.log(2))
_STEPS_PER_UNIT = tl.constexpr(steps_per_unit(1.0))
_UNIT = tl.constexpr(2.0**-WEIGHT_BITS)
_MANTISSA, _EXPONENT_OF_1 = tl.constexpr(2**52 - 1), tl.constexpr(1023 << 52)  # of a float64


@triton.jit
def _k3(x):
    """Return e^(−x) − 1 + x for |x| ≤ ½ in float64: 20 terms of the series."""
    near = 1.0 - x / 21.0
    for i in tl.static_range(18):
        near = 1.0 - x / (20.0 - i) * near
    return 0.5 * x * x * near


@triton.jit
def _log_1_plus(x):
    """Return log(1 + x) for 0 ≤ x ≤ 1 in float64: 2·artanh(x / (x + 2)), 20 terms."""
    s = x / (x + 2.0)
    q = s * s
    series = q * 0.0
    for i in tl.static_range(20):
        series = series * q + 2.0 / (39.0 - 2.0 * i)
    return series * s


@triton.jit
def _log_1_plus_far(x):
    """Return log(1 + x) for any x ≥ 0 in float64: 1 + x = 2^k · (1 + y), and y at most 1."""
    bits = (1.0 + x).to(tl.int64, bitcast=True)  # exact where x is a float32 beyond 1
    k = tl.where(x <= 1.0, 0, (bits >> 52) - 1023)
    y = ((bits & _MANTISSA) | _EXPONENT_OF_1).to(tl.float64, bitcast=True) - 1.0
    return k.to(tl.float64) * _LN_2 + _log_1_plus(tl.where(x <= 1.0, x, y))


@triton.jit
def _decay(x):
    """Return e^(−x) for x ≥ 0 in float64: 2^−whole · 2^−rest."""
    doublings = x * _LOG2_E
    whole = doublings.to(tl.int64)
    y = (doublings - whole.to(tl.float64)) * _LN_2
    series = y * 0.0 + 1.0
    for i in tl.static_range(24):
        series = 1.0 - y / (24.0 - i) * series
    power = ((1023 - whole) << 52).to(tl.float64, bitcast=True)
    return series * power


@triton.jit
def _near_k3(x):
    return kl.k3_near_0(x).to(tl.float64), _k3(x.to(tl.float64))


@triton.jit
def _near_log(x):
    return reward_loss._log_1_plus(x).to(tl.float64), _log_1_plus(x.to(tl.float64))


@triton.jit
def _near_log_of_rest(x):
    return sampling._log_1_plus(x).to(tl.float64), _log_1_plus_far(x.to(tl.float64))


@triton.jit
def _near_weight(x):
    weight = sampling._weights(-x, 0.0, _STEPS_PER_UNIT)
    return weight.to(tl.float64) * _UNIT, _decay(x.to(tl.float64))


@triton.jit
def errors_kernel(
    worst_ptr,  # float64 [program], written
    where_ptr,  # int32 [program], written: the bits of the number
    first,  # bits of the first number
    n_numbers,
    BOTH: tl.constexpr,
    OF_ONE: tl.constexpr,  # in ulp of 1, not of the truth
    PER_PROGRAM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Find the worst error among PER_PROGRAM neighbouring numbers."""
    program = tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    worst = tl.full([BLOCK], -1.0, tl.float64)
    where = tl.zeros([BLOCK], tl.int32)
    for start in range(0, PER_PROGRAM, BLOCK):
        number = program.to(tl.int64) * PER_PROGRAM + start + lane
        bits = (first + number).to(tl.int32)
        near, truth = BOTH(bits.to(tl.float32, bitcast=True))
        # 2^(e − 23), e the truth's exponent; below 2^-126 all float32 are as far apart.
        exponent = ((truth.to(tl.int64, bitcast=True) >> 52) & 2047) - 1023
        exponent = tl.maximum(exponent, -126)
        if OF_ONE:
            exponent = tl.zeros([BLOCK], tl.int64)
        ulp = ((exponent - 23 + 1023) << 52).to(tl.float64, bitcast=True)
        error = tl.where(number < n_numbers, tl.abs(near - truth) / ulp, -1.0)
        where = tl.where(error > worst, bits, where)
        worst = tl.maximum(worst, error)
    most = tl.max(worst, axis=0)
    tl.store(worst_ptr + program, most)
    tl.store(where_ptr + program, tl.max(tl.where(worst == most, where, -(2**31)), axis=0))


@dataclasses.dataclass(frozen=True)
class Approximation:
    """One that is measured.

    Attributes
    ----------
    name : str
    declared : a `triton.jit` function
        With `stands_for` above it.
    both : a `triton.jit` function
        Returns what it computes and the truth, in float64.
    of_one : bool
        Whether errors are in ulp of 1, the likeliest token's weight.
    low, high : float
        The interval.
    """

    name: str
    declared: Any
    both: Any
    low: float
    high: float
    of_one: bool = False


def declared(name: str, function: Any, both: Any) -> Approximation:
    """Take the interval from the declaration."""
    said = function.approximation
    return Approximation(name, function, both, said.low, said.high)


# Beyond MAX_STEPS a weight is 0.
_LARGEST_DISTANCE = MAX_STEPS / 2**STEP_BITS * math.log(2)
APPROXIMATIONS = (
    declared("k3 near 0", kl.k3_near_0, _near_k3),
    declared("log(1 + e)", reward_loss._log_1_plus, _near_log),
    declared("log(1 + rest)", sampling._log_1_plus, _near_log_of_rest),
    Approximation(
        "a token's weight", sampling._rest, _near_weight, 0.0, _LARGEST_DISTANCE, of_one=True
    ),
)


def stretches(low: float, high: float) -> list[tuple[int, int]]:
    """List what float32 there are from `low` to `high`: the bits of the first, and how many."""

    def count(bound: float) -> int:
        return int(np.float32(bound).view(np.uint32)) + 1

    found = [(0, count(high))] if high >= 0 else []
    return found + ([(-(2**31), count(-low))] if low < 0 else [])


def measure(
    approximation: Approximation, on_programs: Callable[[int], None] = lambda n: None
) -> dict[str, Any]:
    """Find the worst error of an approximation.

    Parameters
    ----------
    approximation : Approximation
    on_programs : callable
        Called with how many were run.

    Returns
    -------
    dict
        The row that is stored.
    """
    started, cpu = time.monotonic(), time.process_time()
    worst, at, total = -1.0, 0, 0
    for first, n in stretches(approximation.low, approximation.high):
        n_programs = -(-n // PER_PROGRAM)
        errors = torch.empty(n_programs, dtype=torch.float64)
        where = torch.empty(n_programs, dtype=torch.int32)
        errors_kernel[(n_programs,)](
            errors, where, first, n, BOTH=approximation.both, OF_ONE=approximation.of_one,
            PER_PROGRAM=PER_PROGRAM, BLOCK=BLOCK,
        )  # fmt: skip
        total += n
        on_programs(n_programs)
        if float(errors.max()) > worst:
            worst, at = float(errors.max()), int(where[errors.argmax()])
    number = float(np.array([at], np.int32).view(np.float32)[0])
    module = approximation.declared.__module__.rpartition(".")[2]
    return {
        "approximation": approximation.name,
        "function": f"{module}.{approximation.declared.__name__}",
        "low": approximation.low,
        "high": approximation.high,
        "numbers": total,
        "worst_ulp": round(worst, 3),
        "of": "1" if approximation.of_one else "the truth",
        "at": number,
        "seconds": round(time.monotonic() - started, 1),
        "processor_seconds": round(time.process_time() - cpu, 1),
    }


def main(path: str) -> None:
    """Measure all and store them."""
    native.activate()
    rows = []
    for approximation in APPROXIMATIONS:
        rows.append(measure(approximation))
        print(rows[-1], flush=True)
    write_rows(Path(path), made_with(), rows)


if __name__ == "__main__":
    main(sys.argv[1])
