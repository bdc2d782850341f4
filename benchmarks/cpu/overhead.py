"""Kernels on a CPU, interpreted and compiled, and what torch.compile saves: ratios by operation.

The interpreter is for proving kernels, not for speed; the ratio tells a reader how long `gptwin
verify` will take beside the reference. torch.compile is what eager PyTorch has to be compared with.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

from ...kernels import native as kernels_native
from ...kernels.common import launch
from ...lab.twins.catalogue import TWINS
from ...lab.twins.twin import Twin
from ..compiling import under_compile
from ..inputs import Arguments
from ..models import Settings
from ..operations import MODEL_CASES, arguments, by_numpy, by_torch
from ..timing import FASTER, LONGER, Claim, Contender, Finding, Skipped, measure
from .growth import LENGTH, TOLERANCE, WIDTH

QUICK_TWINS = ("gelu", "gae")


def interpreter(settings: Settings) -> Iterator[Finding]:
    """Time each kernel in Triton's interpreter against its NumPy reference, at a corner case.

    At the first of the twin's corners where float32 suffices for the gate: some are made so that it
    hardly does.
    """
    if not launch.INTERPRETED:
        raise Skipped("needs Triton, and TRITON_INTERPRET=1 before it is imported")
    for name in QUICK_TWINS if settings.quick else TWINS:
        for case in TWINS[name].corners:
            found = _interpreter_at(arguments(TWINS[name], case), settings)
            if found["status"] == "measured":
                break
        yield found


def _interpreter_at(given: Arguments, settings: Settings) -> Finding:
    def interpreted(**tensors: Any) -> Any:
        with launch.backend("triton"):
            return given.twin.kernel(**tensors)

    return _ratio(
        given, Claim("Triton's interpreter", "NumPy reference", None, LONGER),
        {"NumPy reference": functools.partial(by_numpy, given),
         "Triton's interpreter": functools.partial(by_torch, given, interpreted)},
        {}, settings, len(TWINS),
    )  # fmt: skip


def native(settings: Settings) -> Iterator[Finding]:
    """Time each kernel of a decoder block, compiled for the CPU, against eager PyTorch."""
    if not kernels_native.available():
        raise Skipped("needs llvmlite")
    time, width = (4, 64) if settings.quick else (LENGTH, WIDTH)
    for name in QUICK_TWINS[:1] if settings.quick else MODEL_CASES:
        twin = TWINS[name]
        given = arguments(twin, MODEL_CASES[name](time, width))

        def on_triton(twin: Twin = twin, **tensors: Any) -> Any:
            with launch.backend("triton"):
                return twin.kernel(**tensors)

        yield _ratio(
            given, Claim("kernel, compiled for the CPU", "eager PyTorch", None, FASTER),
            {"eager PyTorch": functools.partial(by_torch, given, twin.eager),
             "kernel, compiled for the CPU": functools.partial(by_torch, given, on_triton)},
            {}, settings, len(MODEL_CASES),
        )  # fmt: skip


def compiled(settings: Settings) -> Iterator[Finding]:
    """Time each operation of a decoder block under torch.compile against eager PyTorch."""
    time, width = (4, 64) if settings.quick else (LENGTH, WIDTH)
    compiler = "aot_eager" if settings.quick else "inductor"
    for name in QUICK_TWINS[:1] if settings.quick else MODEL_CASES:
        twin = TWINS[name]
        given = arguments(twin, MODEL_CASES[name](time, width))

        def make_compiled(given: Arguments = given, twin: Twin = twin) -> Contender:
            return by_torch(given, under_compile(twin.eager, compiler))

        yield _ratio(
            given, Claim("torch.compile", "eager PyTorch", None, FASTER),
            {"eager PyTorch": functools.partial(by_torch, given, twin.eager),
             "torch.compile": make_compiled},
            {"compiler": compiler}, settings, len(MODEL_CASES),
        )  # fmt: skip


def _ratio(
    given: Arguments,
    claim: Claim,
    makers: dict[str, Callable[[], Contender]],
    kept: dict[str, Any],
    settings: Settings,
    of: int,
) -> Finding:
    """Measure one ratio of one twin, in its share of the part's time."""
    name, results = given.twin.name, by_numpy(given).result()
    [found] = measure(
        [claim], makers, tolerances=dict.fromkeys(results, TOLERANCE),
        settings=kept | {"operation": name, "case": given.case, "dtype": "float32"},
        rounds=3 if settings.quick else 30, budget_s=settings.limit_s / (2 * of),
    )  # fmt: skip
    return found | {"name": f"{name}: {found['name']}"}
