"""Compiled kernels at the sizes people run: beside eager PyTorch, and beside both interpreters.

Eager PyTorch takes turns with them, round by round. An interpreter gets up to three turns, in a
process of its own, since Triton decides when a kernel is decorated whether it is interpreted: ours
at the full size where that takes less than a minute, Triton's own at a small one. Kernels are given
one turn for their machine code before the clock starts.
"""

import functools
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from ...kernels import native as kernels_native
from ...kernels.common import launch
from ...lab.processes import end_with_parent
from ...lab.twins.catalogue import TWINS
from ...lab.twins.twin import Case
from ..inputs import Arguments
from ..models import Settings
from ..operations import arguments, by_torch, comparable
from ..timing import FASTER, Claim, Contender, Finding, Skipped, finding, measure, not_measured
from .growth import TOLERANCE

OURS, EAGER = "kernel, compiled for the CPU", "eager PyTorch"
INTERPRETERS = {"mended": "gptwin's interpreter", "own": "Triton's own interpreter"}
GOAL = 1000.0  # times as fast as an interpreter, at real sizes
LIMIT_S = 90.0  # for an interpreter's process
TURNS = 3  # of an interpreter; none begins after so many seconds:
ENOUGH_S = 20.0
OUR_TURNS = 15
WARM_UP = 6  # until memory is where it stays: the first turns take up to twice as long


class Size(NamedTuple):
    """What is timed.

    Attributes
    ----------
    twin : str
    case : Case
        The size that people run.
    small : Case
        One that interpreters can do in seconds.
    bound : float or None
        The goal beside eager PyTorch: memory-bound operations are to be as fast.
    backward : bool
        Whether gradients are computed, too.
    whole : bool
        Whether our interpreter gets its turn at the full size.
    """

    twin: str
    case: Case
    small: Case
    bound: float | None = 1.0
    backward: bool = False
    whole: bool = False


def _attention(batch: int, time: int) -> Case:
    return {"batch": batch, "head": 12, "queries": time, "d_head": 64, "causal": True}


# PyTorch's norm of a gradient is too small: by 0.27% for 39M numbers, which it sums in float32 as
# they come. The kernel's is right to the last digits.
NORM_TOLERANCE = {"gradient_norm": 0.005}
_NORM = {"shape": [4096, 1024]}
_SMALL_ATTENTION = {"batch": 1, "head": 2, "queries": 128, "d_head": 64, "causal": True}
SIZES = {
    "softmax, 4096 x 1024": Size(
        "softmax", {"shape": [1, 1, 4096, 1024]}, {"shape": [1, 1, 256, 1024]}, whole=True
    ),
    "layer norm, 4096 x 1024": Size("layer_norm", _NORM, {"shape": [256, 1024]}, whole=True),
    "layer norm and its gradients, 4096 x 1024": Size(
        "layer_norm", _NORM, {"shape": [256, 1024]}, backward=True
    ),
    "GELU, 4096 x 3072": Size("gelu", {"shape": [4096, 3072]}, {"shape": [256, 3072]}, whole=True),
    "linear, 1024 x 768 x 3072": Size(
        "linear", {"rows": 1024, "d_in": 768, "d_out": 3072, "bias": True},
        {"rows": 128, "d_in": 768, "d_out": 384, "bias": True}, 1 / 3, whole=True,
    ),
    "attention, 4 x 12 x 256 x 64": Size(
        "attention", _attention(4, 256), _SMALL_ATTENTION, 0.5, whole=True
    ),
    "attention, 1 x 12 x 1024 x 64": Size("attention", _attention(1, 1024), _SMALL_ATTENTION, 0.5),
    "attention and its gradients, 4 x 12 x 256 x 64": Size(
        "attention", _attention(4, 256), _SMALL_ATTENTION, None, backward=True
    ),
    "attention and its gradients, 1 x 12 x 1024 x 64": Size(
        "attention", _attention(1, 1024), _SMALL_ATTENTION, None, backward=True
    ),
    "cross-entropy, 1024 x 768, 50257 words": Size(
        "cross_entropy", {"tokens": 1024, "d_model": 768, "vocab": 50257, "tied": True},
        {"tokens": 32, "d_model": 256, "vocab": 2048, "tied": True}, None,
    ),
    # Half of GPT-2: with all that is compared, the whole takes 22 GB.
    "AdamW, 60M parameters": Size(
        "adamw", {"shapes": [[50257, 768], [12 * 768, 2304]]},
        {"shapes": [[256, 768], [64, 64]]},
    ),
}  # fmt: skip
# What is tried instead where figures mean nothing.
QUICK = "softmax, 4096 x 1024"


def sizes(settings: Settings) -> Iterator[Finding]:
    """Time each kernel at its size against eager PyTorch, and against the interpreters."""
    if not kernels_native.available():
        raise Skipped("needs llvmlite")
    for label, size in SIZES.items():
        if settings.quick and label != QUICK:
            continue
        case = size.small if settings.quick else size.case
        yield named(label, beside_eager(size, case, settings))
        for kind in INTERPRETERS:
            at = case if size.whole and kind == "mended" and not settings.quick else size.small
            yield named(label, beside_interpreter(size, at, kind))


def named(label: str, found: Finding) -> Finding:
    """Put what was timed before who was compared."""
    return found | {"name": f"{label}: {found['name']}"}


def contender(given: Arguments, operation: Any, *, backward: bool) -> Contender:
    """Make the provider of an operation on tensors, with gradients or without."""
    if backward:
        return by_torch(given, operation)

    def run() -> dict[str, torch.Tensor]:
        with torch.no_grad():
            return given.forward(_without_gradients(operation))

    return Contender(run, lambda: comparable({n: x.numpy() for n, x in run().items()}))


def _without_gradients(operation: Any) -> Any:
    def call(**given: Any) -> Any:
        with torch.no_grad():
            return operation(**given)

    return call


def on_triton(operation: Any) -> Any:
    """Return an operation that takes the kernel."""

    def call(**given: Any) -> Any:
        with launch.backend("triton"):
            return operation(**given)

    return call


def beside_eager(size: Size, case: Case, settings: Settings) -> Finding:
    """Let the kernel and eager PyTorch take turns."""
    twin = TWINS[size.twin]
    given = arguments(twin, case)
    make = functools.partial(contender, given, backward=size.backward)
    results = contender(given, twin.eager, backward=size.backward).result()
    [found] = measure(
        [Claim(OURS, EAGER, size.bound, FASTER)],
        {EAGER: lambda: make(twin.eager), OURS: lambda: make(on_triton(twin.kernel))},
        tolerances={name: NORM_TOLERANCE.get(name, TOLERANCE) for name in results},
        settings={"operation": size.twin, "case": case, "backward": size.backward},
        rounds=3 if settings.quick else 20, budget_s=10.0, warm_up=WARM_UP,
    )  # fmt: skip
    return found


def beside_interpreter(size: Size, case: Case, kind: str) -> Finding:
    """Give an interpreter a few turns, the kernel more; the ratio is of their medians."""
    claim = Claim(OURS, INTERPRETERS[kind], GOAL if case == size.case else None, FASTER)
    told = {"operation": size.twin, "case": case, "backward": size.backward}
    try:
        child = subprocess.run(
            [sys.executable, "-c", _CHILD, json.dumps(told), kind, str(os.getpid())],
            capture_output=True, text=True, check=False, timeout=LIMIT_S,
            env=os.environ | {"TRITON_INTERPRET": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return not_measured(claim, f"not done after {LIMIT_S:.0f} s", told)
    if child.returncode:
        last = [line for line in child.stderr.splitlines() if line.strip()][-1:]
        return not_measured(claim, f"failed: {''.join(last)[:200]}", told)
    seconds = float(child.stdout.splitlines()[-1])
    given = arguments(TWINS[size.twin], case)
    run = contender(given, on_triton(TWINS[size.twin].kernel), backward=size.backward).run
    ours = seconds_of(run, OUR_TURNS)
    return finding(
        claim.name, [seconds / ours], claim.bound, FASTER, told,
        seconds={OURS: {"median": ours}, INTERPRETERS[kind]: {"median": seconds}},
    )  # fmt: skip


def seconds_of(run: Any, turns: int, *, warm_up: int = 1, enough_s: float = math.inf) -> float:
    """Return the median time of a call; no turn begins after `enough_s` of them."""
    for _ in range(warm_up):
        run()
    times: list[float] = []
    while len(times) < turns and sum(times) < enough_s:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


# Triton's own interpreter is the one that nobody has mended.
_CHILD = """
import sys
from gptwin.kernels import interpreter
if sys.argv[2] == "own":
    interpreter.install = lambda: None
from gptwin.benchmarks.cpu.sizes import interpret
interpret(sys.argv[1], int(sys.argv[3]))
"""


def interpret(asked: str, parent: int) -> None:
    """Give an interpreter its turns, in this process, and print its seconds."""
    end_with_parent(parent)
    told = json.loads(asked)
    twin = TWINS[told["operation"]]
    given = arguments(twin, told["case"])
    run = contender(given, on_triton(twin.kernel), backward=told["backward"]).run
    print(seconds_of(run, TURNS, warm_up=0, enough_s=ENOUGH_S))
