"""End to end: training steps of GPT-2 124M, everyone's, in tokens a second.

    gptwin, compiled and not      parameters in bfloat16, moments in float32
    nanoGPT, compiled and not     (1) parameters and moments in bfloat16; (2) as nanoGPT itself
                                  trains: parameters in float32, autocast to bfloat16
    transformers, compiled        parameters and moments in bfloat16

MFU, model FLOPs utilisation, is nanoGPT's and PaLM's (Chowdhery et al. 2022, appendix B):

    FLOPs a token = 6·N + 12·L·C·T        N: all parameters but the position table

over the vendor's dense rate of the dtype, and beside it over the rate of a matmul measured in the
same run. The gate: the losses of the first steps are those of nanoGPT's model in float32, up to
what bfloat16 rounds away.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from ....core.model.presets import GPTConfig, parameter_count, preset
from ...models import QUICK, describe_model, draw_parameters
from ...timing import Contender, Finding, describe, expect_same, spread
from ...training_step import as_tensors, gptwin, nanogpt, transformers
from ..operations.cells import Event, free
from ..operations.clock import Clock
from ..operations.results import not_measured
from ..operations.roofline import TOLERANCE

BATCH, DTYPE = 32, "bfloat16"
# bfloat16 has 8 bits: a loss of 10.8 keeps 2 or 3 digits, and a step's progress fewer.
TOLERANCES = {"first loss": 0.005, "later losses": 0.02, "progress": 0.25}


def training(
    clock: Clock | None,
    device: str,
    peaks: Mapping[str, Any] | None,
    *,
    tiny: bool = False,
    only: frozenset[str] = frozenset(),
    done: frozenset[str] = frozenset(),
) -> Iterator[Event]:
    """Measure training steps.

    Parameters
    ----------
    clock : Clock or None
        None: compile, and time nothing.
    device : str
    peaks : dict or None
    tiny : bool
        For a dry run.
    only, done
        As in `cells.Measurement`.

    Yields
    ------
    dict
        Events.
    """
    config = QUICK if tiny else preset("gpt2")
    batch, time = (2, 8) if tiny else (BATCH, config.n_ctx)
    parameters = as_tensors(draw_parameters(config))
    tokens = np.random.default_rng(2).integers(0, config.vocab_size, (2, batch, time))
    data = torch.from_numpy(tokens).to(device)
    todo = {
        name: make
        for name, make in makers(config, parameters, data, "aot_eager" if tiny else "inductor")
        if name not in done and (not only or name.split(",")[0] in only)
    }
    if not todo:
        return
    settings = describe_model(
        config, batch=batch, time=time, dtype=DTYPE, timed="forward, backward, clipping, AdamW",
    )  # fmt: skip
    yield {"begin": list(todo)}
    truth = nanogpt(config, parameters, data).result() if clock else None
    for name, make in todo.items():
        free(device)
        yield {"begin": [name]}
        try:
            provider = make()
            losses = provider.result()
            if clock is None or truth is None:
                continue
            for key, tolerance in TOLERANCES.items():
                expect_same(f"{name}: {key}", losses[key], truth[key], tolerance)
            timing = clock.time(provider.run)
        except ImportError as error:
            yield {"finding": not_measured(name, "skipped", describe(error), provider=name)}
            continue
        except Exception as error:  # whatever a provider raises is what is found
            yield {"finding": not_measured(name, "failed", describe(error), provider=name)}
            continue
        n = batch * time
        used = utilisation(config, time, n, timing.seconds, peaks)
        reason = above_the_peak(used["flops_per_s"], peaks)
        yield {"finding": {
            "name": name, "provider": name, "reason": reason,
            "status": "rejected" if reason else "measured",
            "unit": "tokens/s", "value": spread([n / s for s in timing.seconds]),
            "samples": len(timing.seconds), "extra_bytes": timing.extra_bytes,
            "host_seconds": timing.host_seconds, "launch_bound": timing.launch_bound,
            "settings": settings, **used,
        }}  # fmt: skip


def makers(
    config: GPTConfig, parameters: Mapping[str, torch.Tensor], data: torch.Tensor, compiler: str
) -> Iterator[tuple[str, Callable[[], Contender]]]:
    """Yield everyone who trains: name, and what makes the provider."""
    half = getattr(torch, DTYPE)
    for name, build in (("gptwin", gptwin), ("nanoGPT", nanogpt), ("transformers", transformers)):
        for way, chosen in (("", None), (", compiled", compiler)):
            if name == "transformers" and not chosen:
                continue
            yield (
                f"{name}{way}",
                functools.partial(build, config, parameters, data, compiler=chosen, dtype=half),
            )
    yield (
        "nanoGPT, autocast, compiled",
        lambda: nanogpt(config, parameters, data, compiler=compiler, autocast=half),
    )


def flops_per_token(config: GPTConfig, time: int) -> int:
    """Return 6·N + 12·L·C·T."""
    n = parameter_count(config) - config.n_ctx * config.d_model
    return 6 * n + 12 * config.n_layer * config.d_attention * time


def utilisation(
    config: GPTConfig,
    time: int,
    n_tokens: int,
    seconds: list[float],
    peaks: Mapping[str, Any] | None,
) -> Finding:
    """Return MFU and what it was computed from."""
    flops = flops_per_token(config, time)
    rate = flops * n_tokens / float(np.median(seconds))
    vendor = peaks["datasheet"] if peaks else None
    return {
        "flops_per_token": flops,
        "flops_formula": "6 N + 12 L C T, N without the position table",
        "flops_per_s": rate,
        "mfu": rate / vendor[DTYPE] if vendor else None,
        "share_of_measured_matmul": rate / peaks[DTYPE] if peaks else None,
    }


def above_the_peak(rate: float, peaks: Mapping[str, Any] | None) -> str | None:
    """Say so if a rate in FLOP/s is more than the device can do: the clock is wrong then."""
    if peaks is None:
        return None
    who, peak = "measured", peaks[DTYPE] * TOLERANCE
    if peaks["datasheet"]:
        who, peak = "datasheet's", peaks["datasheet"][DTYPE]
    return f"{rate / peak:.2f} times the {who} peak of flops" if rate > peak else None
