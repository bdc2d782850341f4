"""What is measured of the PyTorch model on a CPU: a training step, eager and compiled.

Everyone takes the same step: forward, backward, gradients clipped to norm 1, AdamW with weight
decay on matrices. The others get PyTorch's fused AdamW, the fastest there is on a CPU, though
nanoGPT itself would take it on a GPU alone.
"""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ..core.parameters import Parameters
from ..core.presets import GPTConfig, preset
from ..kernels.adamw import AdamW
from ..kernels.gpt import GPT
from .baselines.nanogpt import NanoGPT
from .cpu_numpy import QUICK, Settings, describe_model, draw_parameters
from .timing import Claim, Finding, Provider, measure

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# nanoGPT's configuration for tinyshakespeare on a CPU.
SHAKESPEARE = GPTConfig(65, 64, 4, 4, 128, bias=False)
PARAMETERS_OF_SHAKESPEARE = 804_096
BETAS, DECAY, CLIP = (0.9, 0.99), 0.1, 1.0
GATE_STEPS = 3


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

    def make(build: Callable[..., Any], compiler: str | None = None) -> Callable[[], Provider]:
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


def gptwin(
    config: GPTConfig,
    parameters: Mapping[str, torch.Tensor],
    data: torch.Tensor,
    *,
    compiler: str | None = None,
) -> Provider:
    """Make gptwin's training step."""
    model = GPT(config)

    def load() -> None:
        model.load_state_dict(dict(parameters))

    load()
    optimizer = AdamW(decay_groups(model), lr=1e-3, betas=BETAS, max_norm=CLIP)
    return provider(model, model.loss, load, optimizer, None, data, compiler)


def nanogpt(
    config: GPTConfig,
    parameters: Mapping[str, torch.Tensor],
    data: torch.Tensor,
    *,
    compiler: str | None = None,
) -> Provider:
    """Make the plain model's training step."""
    model = NanoGPT(config.vocab_size, config.n_ctx, config.n_layer, config.n_head,
                    config.d_model, config.bias)  # fmt: skip

    def load() -> None:
        model.load(dict(parameters))

    load()
    optimizer = torch.optim.AdamW(decay_groups(model), lr=1e-3, betas=BETAS, fused=True)
    return provider(model, model.loss, load, optimizer, CLIP, data, compiler)


def transformers(
    config: GPTConfig,
    parameters: Mapping[str, torch.Tensor],
    data: torch.Tensor,
    *,
    compiler: str | None = None,
) -> Provider:
    """Make the training step of transformers' GPT2LMHeadModel.

    It has biases always: where the model has none they are 0 and not trained, which spares it
    their gradients.
    """
    with checkout_hidden():
        # Not by `import`: type checkers would follow it to "kernels", and find ours.
        library = importlib.import_module("transformers")
    model = library.GPT2LMHeadModel(library.GPT2Config(
        vocab_size=config.vocab_size, n_positions=config.n_ctx, n_embd=config.d_model,
        n_layer=config.n_layer, n_head=config.n_head, layer_norm_epsilon=config.eps,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
        bos_token_id=None, eos_token_id=None,
    ))  # fmt: skip
    model.train()

    @torch.no_grad()
    def load() -> None:
        for name, parameter in model.transformer.named_parameters():
            if name in parameters:
                parameter.copy_(parameters[name])
            else:
                parameter.zero_().requires_grad_(False)

    def loss(tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = model(tokens).logits
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    load()
    optimizer = torch.optim.AdamW(decay_groups(model), lr=1e-3, betas=BETAS, fused=True)
    return provider(model, loss, load, optimizer, CLIP, data, compiler)


def provider(
    model: torch.nn.Module,
    loss: Loss,
    load: Callable[[], None],
    optimizer: torch.optim.Optimizer,
    clip: float | None,
    data: torch.Tensor,
    compiler: str | None,
) -> Provider:
    """Make a provider of training steps on one batch.

    Parameters
    ----------
    model : torch.nn.Module
    loss : callable
        From tokens and targets.
    load : callable
        Sets the parameters back to the common ones.
    optimizer : torch.optim.Optimizer
    clip : float, optional
        Clip here, before the optimizer does its step; None: it does so itself.
    data : torch.Tensor of int [2, batch, time]
        Tokens and targets.
    compiler : str, optional
        What torch.compile compiles the loss with; None: it runs eagerly.

    Returns
    -------
    Provider
        Its result: losses of the first steps.
    """
    loss = torch.compile(loss, backend=compiler) if compiler else loss

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = loss(data[0], data[1])
        value.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        return value.detach()

    def result() -> dict[str, Any]:
        load()
        losses = [float(step()) for _ in range(GATE_STEPS)]
        return {
            "first loss": losses[0], "later losses": losses[1:],
            "progress": losses[0] - losses[-1],
        }  # fmt: skip

    return Provider(step, result)


def decay_groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Decay matrices, and neither biases nor norms."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


@contextlib.contextmanager
def checkout_hidden() -> Iterator[None]:
    """Take the checkout itself off the path: transformers would take kernels/ for its own."""
    root, before = Path(__file__).resolve().parent.parent, list(sys.path)
    sys.path[:] = [entry for entry in before if Path(entry or ".").resolve() != root]
    try:
        yield
    finally:
        sys.path[:] = before


def as_tensors(parameters: Parameters) -> dict[str, torch.Tensor]:
    """Share arrays with PyTorch."""
    return {name: torch.from_numpy(p) for name, p in parameters.items()}
