"""A training step of GPT-2 by everyone: forward, backward, clipping, AdamW.

Everyone takes the same step: gradients clipped to norm 1, AdamW with weight decay on matrices. The
others get PyTorch's fused AdamW, the fastest there is. The device is that of the data.
"""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from ..core.model.parameters import Parameters
from ..core.model.presets import GPTConfig
from ..kernels.cpu import speed_up
from ..kernels.model.gpt import GPT
from ..kernels.optimizer.adamw import AdamW
from .baselines.nanogpt import NanoGPT
from .timing import Contender

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

BETAS, DECAY, CLIP = (0.9, 0.99), 0.1, 1.0
GATE_STEPS = 3


def gptwin(
    config: GPTConfig,
    parameters: Mapping[str, torch.Tensor],
    data: torch.Tensor,
    *,
    compiler: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Contender:
    """Make gptwin's training step."""
    model = speed_up(GPT(config).to(data.device, dtype))

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
    dtype: torch.dtype = torch.float32,
    autocast: torch.dtype | None = None,
) -> Contender:
    """Make the plain model's training step, perhaps with products in another dtype."""
    model = NanoGPT(config.vocab_size, config.n_ctx, config.n_layer, config.n_head,
                    config.d_model, config.bias).to(data.device, dtype)  # fmt: skip

    def load() -> None:
        model.load(dict(parameters))

    load()
    optimizer = torch.optim.AdamW(decay_groups(model), lr=1e-3, betas=BETAS, fused=True)

    def loss(tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast(data.device.type, autocast, enabled=autocast is not None):
            return model.loss(tokens, targets)

    return provider(model, loss, load, optimizer, CLIP, data, compiler)


def transformers(
    config: GPTConfig,
    parameters: Mapping[str, torch.Tensor],
    data: torch.Tensor,
    *,
    compiler: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Contender:
    """Make the training step of transformers' GPT2LMHeadModel."""
    model = transformers_model(config).to(data.device, dtype).train()

    def load() -> None:
        load_transformers(model, parameters)

    def loss(tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = model(tokens).logits
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    load()
    optimizer = torch.optim.AdamW(decay_groups(model), lr=1e-3, betas=BETAS, fused=True)
    return provider(model, loss, load, optimizer, CLIP, data, compiler)


def transformers_model(config: GPTConfig) -> Any:
    """Return transformers' GPT2LMHeadModel of a size, without dropout."""
    with checkout_hidden():
        # Not by `import`: type checkers would follow it to "kernels", and find ours.
        library = importlib.import_module("transformers")
    return library.GPT2LMHeadModel(library.GPT2Config(
        vocab_size=config.vocab_size, n_positions=config.n_ctx, n_embd=config.d_model,
        n_layer=config.n_layer, n_head=config.n_head, layer_norm_epsilon=config.eps,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
        bos_token_id=None, eos_token_id=None,
    ))  # fmt: skip


@torch.no_grad()
def load_transformers(model: Any, parameters: Mapping[str, torch.Tensor]) -> None:
    """Set the parameters of transformers' model.

    It has biases always: where the model has none they are 0 and not trained, which spares it
    their gradients.
    """
    for name, parameter in model.transformer.named_parameters():
        if name in parameters:
            parameter.copy_(parameters[name])
        else:
            parameter.zero_().requires_grad_(False)


def provider(
    model: torch.nn.Module,
    loss: Loss,
    load: Callable[[], None],
    optimizer: torch.optim.Optimizer,
    clip: float | None,
    data: torch.Tensor,
    compiler: str | None,
) -> Contender:
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
    Contender
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

    return Contender(step, result)


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
