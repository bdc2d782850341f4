"""nanoGPT's CPU example: a small model learns Shakespeare, letter by letter, from 1.1 MB of him.

The configuration is that of nanoGPT's README (github.com/karpathy/nanoGPT): 4 layers, 4 heads,
width 128, 64 letters of context, batches of 12, 2,000 iterations. The loss that is reported is not
an estimate from a few batches but the mean over the whole validation split, read once in windows of
64: every letter but the first is predicted exactly once.

nanoGPT draws the first parameters as GPT-2 does, with 0.02 at any width. Both that and `fan_in` are
trained: at a width of 128 it is what makes the most of the 2,000 iterations.
"""

import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...core.checks import refuse
from ...core.model.parameters import INITS, init_parameters
from ...core.model.presets import GPTConfig, parameter_count
from ...kernels.cpu import speed_up
from ...kernels.model.gpt import GPT
from ...kernels.optimizer.adamw import AdamW
from ..models import Settings, describe_model
from ..timing import NATS, Finding, GateError, Skipped, expect_same, finding
from ..training_step import BETAS, CLIP, as_tensors, decay_groups, gptwin, nanogpt
from .torch_model import PARAMETERS_OF_SHAKESPEARE, SHAKESPEARE

GOAL = 1.89
LETTERS = 65
TRAINING_SHARE = 0.9
SEEDS = (1337, 1338, 1339)
LR, MIN_LR, WARM_UP = 1e-3, 1e-4, 100
NEEDS = (
    "needs --text tinyshakespeare.txt: 1,115,394 characters, 65 different ones "
    "(github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt)"
)


def shakespeare(settings: Settings) -> Iterator[Finding]:
    """Train from several seeds; after each, yield what is known so far."""
    text = read_text(settings)
    letters = sorted(set(text))
    ids = torch.from_numpy(np.searchsorted(letters, list(text)))
    n_training = int(len(ids) * TRAINING_SHARE)
    split = ids[:n_training], ids[n_training:]
    if settings.quick:
        config, batch, iterations, every = GPTConfig(len(letters), 8, 1, 2, 16, bias=False), 4, 6, 3
    else:
        config, batch, iterations, every = SHAKESPEARE, 12, 2000, 250
    seeds = SEEDS[:2] if settings.quick else SEEDS
    check_count(config, settings.quick)
    check_step(config, split[0], batch)

    began = time.monotonic()
    curves: dict[str, list[dict]] = {init: [] for init in INITS}
    for n, (seed, init) in enumerate(itertools.product(seeds, INITS)):
        spent = time.monotonic() - began
        if n and spent + 1.3 * spent / n > settings.limit_s:
            break  # the next training would not end in time
        curves[init].append(train(config, split, batch, iterations, every, seed, init))
        yield finding(
            f"validation loss, drawn by {init}",
            [curve["validation"][-1] for curve in curves[init]],
            GOAL,
            NATS,
            describe_model(
                config, batch=batch, iterations=iterations, parameters=parameter_count(config),
                training_characters=n_training, validation_characters=len(split[1]),
                seeds=[curve["seed"] for curve in curves[init]], dtype="float32", init=init,
                lr=LR, min_lr=MIN_LR, warm_up=WARM_UP, betas=BETAS, max_norm=CLIP,
            ),
            curves=curves[init],
        )  # fmt: skip


def read_text(settings: Settings) -> str:
    """Read the text; in a quick run without one, make one.

    Raises
    ------
    Skipped
        If none was given.
    ValueError
        If it cannot be read, or is not the text that the goal was set for.
    """
    if settings.text is None:
        if not settings.quick:
            raise Skipped(NEEDS)
        return "to be, or not to be: that is the question.\n" * 20
    try:
        text = Path(settings.text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        refuse("text", "a file in UTF-8", str(error))
    if not settings.quick and len(set(text)) != LETTERS:
        refuse("text", f"{LETTERS} different characters", str(len(set(text))), NEEDS)
    return text


def check_count(config: GPTConfig, quick: bool) -> None:
    """Refuse a model of another size than nanoGPT's, positions included."""
    count = sum(p.numel() for p in GPT(config).parameters())
    expected = parameter_count(config) if quick else PARAMETERS_OF_SHAKESPEARE
    if count != expected:
        raise GateError(f"expected a model of {expected:,} parameters, got {count:,}")


def check_step(config: GPTConfig, ids: torch.Tensor, batch: int) -> None:
    """Refuse to train unless the first steps are those of the plain PyTorch model."""
    parameters = as_tensors(init_parameters(config, 0))
    data = torch.stack(draw_batch(ids, config.n_ctx, batch, torch.Generator().manual_seed(0)))
    ours, plain = (make(config, parameters, data).result() for make in (gptwin, nanogpt))
    for name, tolerance in (("first loss", 1e-5), ("later losses", 1e-3)):
        expect_same(f"gptwin: {name}", ours[name], plain[name], tolerance)


def train(
    config: GPTConfig,
    split: tuple[torch.Tensor, torch.Tensor],
    batch: int,
    iterations: int,
    every: int,
    seed: int,
    init: str,
) -> dict[str, Any]:
    """Train a fresh model.

    Parameters
    ----------
    config : GPTConfig
    split : (torch.Tensor of int, torch.Tensor of int)
        Training and validation.
    batch, iterations : int
    every : int
        Iterations between evaluations.
    seed : int
        Of the model and the batches.
    init : str
        As in core's `initial_std`.

    Returns
    -------
    dict
        The curve: `iterations`, the `validation` losses there and the mean `training` losses since
        the last ones, `seed`, and `seconds` that the iterations took, evaluations excluded.
    """
    generator = torch.Generator().manual_seed(seed)
    model = speed_up(GPT(config, generator, init=init))
    optimizer = AdamW(decay_groups(model), lr=LR, betas=BETAS, max_norm=CLIP)
    curve: dict = {"seed": seed, "iterations": [], "validation": [], "training": []}
    seconds, losses = 0.0, list[float]()
    for iteration in range(iterations + 1):
        if iteration % every == 0 or iteration == iterations:
            curve["iterations"].append(iteration)
            curve["validation"].append(loss_over(model, split[1]))
            curve["training"].append(float(np.mean(losses[-every:])) if losses else None)
        if iteration == iterations:
            break
        start = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(iteration, iterations)
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss(*draw_batch(split[0], config.n_ctx, batch, generator))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        seconds += time.perf_counter() - start
    curve["seconds"] = seconds
    return curve


def learning_rate(iteration: int, iterations: int) -> float:
    """Rise for WARM_UP iterations, then fall to MIN_LR along half a cosine."""
    if iteration < WARM_UP:
        return LR * (iteration + 1) / (WARM_UP + 1)
    share = (iteration - WARM_UP) / (iterations - WARM_UP)
    return MIN_LR + 0.5 * (1 + math.cos(math.pi * share)) * (LR - MIN_LR)


def draw_batch(
    ids: torch.Tensor, n_ctx: int, batch: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut windows at random: tokens, and the token that follows each."""
    starts = torch.randint(len(ids) - n_ctx, (batch, 1), generator=generator)
    windows = ids[starts + torch.arange(n_ctx + 1)]  # [batch, n_ctx + 1]
    return windows[:, :-1], windows[:, 1:]


@torch.no_grad()
def loss_over(model: GPT, ids: torch.Tensor, batch: int = 64) -> float:
    """Return the mean loss over all of `ids` but the first, each predicted once.

    Parameters
    ----------
    model : GPT
    ids : torch.Tensor of int [time]
    batch : int
        Windows at a time.

    Returns
    -------
    float
    """
    n_ctx = model.config.n_ctx
    tokens, targets = ids[:-1], ids[1:]
    n_full = len(tokens) // n_ctx * n_ctx
    pieces = list(
        zip(
            tokens[:n_full].view(-1, n_ctx).split(batch),
            targets[:n_full].view(-1, n_ctx).split(batch),
            strict=True,
        )
    )
    if n_full < len(tokens):  # the last window is shorter
        pieces.append((tokens[None, n_full:], targets[None, n_full:]))
    model.eval()
    total = sum(float(model.loss(x, y)) * y.numel() for x, y in pieces)
    model.train()
    return total / len(targets)
