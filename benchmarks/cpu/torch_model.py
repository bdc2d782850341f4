"""What is measured of the PyTorch model on a CPU: a training step, eager and compiled.

The others get PyTorch's fused AdamW (training_step.py), the fastest there is on a CPU, though
nanoGPT itself would take it on a GPU alone.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from ...core.model.presets import GPTConfig, preset
from ..models import QUICK, Settings, describe_model, draw_parameters
from ..timing import Claim, Contender, Finding, measure
from ..training_step import as_tensors, gptwin, nanogpt, transformers

# nanoGPT's configuration for tinyshakespeare on a CPU.
SHAKESPEARE = GPTConfig(65, 64, 4, 4, 128, bias=False)
PARAMETERS_OF_SHAKESPEARE = 804_096


def torch_training_small(settings: Settings) -> Iterator[Finding]:
    """Time training steps of nanoGPT's smallest model, eager."""
    config = QUICK if settings.quick else SHAKESPEARE
    yield from _training(config, *((2, 8) if settings.quick else (12, 64)), settings, False)


def torch_training_small_compiled(settings: Settings) -> Iterator[Finding]:
    """Time training steps of nanoGPT's smallest model, under torch.compile."""
    config = QUICK if settings.quick else SHAKESPEARE
    yield from _training(config, *((2, 8) if settings.quick else (12, 64)), settings, True)


def torch_training_124m(settings: Settings) -> Iterator[Finding]:
    """Time training steps of GPT-2 124M, eager."""
    config = QUICK if settings.quick else preset("gpt2")
    yield from _training(config, *((2, 8) if settings.quick else (4, 64)), settings, False)


def torch_training_124m_compiled(settings: Settings) -> Iterator[Finding]:
    """Time training steps of GPT-2 124M, under torch.compile."""
    config = QUICK if settings.quick else preset("gpt2")
    yield from _training(config, *((2, 8) if settings.quick else (4, 64)), settings, True)


def _training(
    config: GPTConfig, batch: int, time: int, settings: Settings, under_compile: bool
) -> Iterator[Finding]:
    parameters = as_tensors(draw_parameters(config))
    rng = np.random.default_rng(2)
    data = torch.from_numpy(rng.integers(0, config.vocab_size, (2, batch, time)))

    compiler = "aot_eager" if settings.quick else "inductor"

    def make(build: Callable[..., Any], compiler: str | None = None) -> Callable[[], Contender]:
        return lambda: build(config, parameters, data, compiler=compiler)

    eager = {"nanoGPT": make(nanogpt), "gptwin": make(gptwin), "transformers": make(transformers)}
    compiled = {"nanoGPT": make(nanogpt), "gptwin": make(gptwin)} | {
        f"{name}, compiled": make(build, compiler)
        for name, build in (
            ("gptwin", gptwin),
            ("nanoGPT", nanogpt),
            ("transformers", transformers),
        )
    }
    if under_compile:
        makers, claims = (
            compiled,
            [
                Claim("gptwin, compiled", "nanoGPT, compiled", 1.0),
                Claim("gptwin, compiled", "transformers, compiled", 1.0),
                Claim("gptwin, compiled", "nanoGPT", 1.0),
                Claim("gptwin", "nanoGPT, compiled", 1.0),
            ],
        )
    else:
        makers, claims = eager, [
            Claim("gptwin", "nanoGPT", 1.0), Claim("gptwin", "transformers", 1.0),
        ]  # fmt: skip
    yield from measure(
        claims,
        makers,
        # The first loss is the forward pass; the later ones are backward and AdamW as well,
        # whose first steps are ±lr even where a gradient is no more than rounding.
        tolerances={"first loss": 1e-5, "later losses": 1e-3, "progress": 0.02},
        settings=describe_model(
            config, batch=batch, time=time, dtype="float32",
            timed="forward, backward, clipping, AdamW", compiler=compiler,
            others_optimizer="torch.optim.AdamW(fused=True)",
        ),
        rounds=3 if settings.quick else 400 if config.d_model < 256 else 15,
        budget_s=settings.limit_s / 4,
    )  # fmt: skip
