"""What is measured of the NumPy model on a CPU: its generation, and its training pass."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ...core.model.generation import KVCache, extend, generate
from ...core.model.gpt import loss_and_gradients
from ...core.model.parameters import Parameters
from ...core.model.presets import preset
from ..baselines import picogpt
from ..baselines.nanogpt import NanoGPT, is_projection
from ..models import QUICK, Settings, describe_model, draw_parameters
from ..timing import LONGER, Claim, Contender, Finding, measure


def numpy_generation(settings: Settings) -> Iterator[Finding]:
    """Time generation with a cache against picoGPT's, which runs all tokens for each new one."""
    config = QUICK if settings.quick else preset("gpt2")
    n_prompt, n_new = (5, 4) if settings.quick else (64, 32)
    parameters = draw_parameters(config)
    prompt = np.random.default_rng(2).integers(0, config.vocab_size, n_prompt).tolist()
    size = config.n_layer, config.n_head

    def cached() -> list[int]:
        return generate(parameters, config, [prompt], max_new_tokens=n_new, temperature=0.0)[0]

    def cached_logits() -> np.ndarray:
        cache = KVCache(config, np.zeros(1, np.int64), n_prompt, parameters["wte.weight"].dtype)
        extend(parameters, np.array([prompt[:-1]]), config, cache)
        return extend(parameters, np.array([prompt[-1:]]), config, cache)[0]

    def make_gptwin() -> Contender:
        return Contender(cached, lambda: {"tokens": cached(), "logits": cached_logits()})

    def make_picogpt(keep_float32: bool) -> Contender:
        def run() -> list[int]:
            return picogpt.generate(
                prompt, parameters, *size, max_new_tokens=n_new, keep_float32=keep_float32
            )

        def logits() -> np.ndarray:
            return picogpt.gpt2(prompt, parameters, *size, keep_float32=keep_float32)[-1]

        return Contender(run, lambda: {"tokens": run(), "logits": logits()})

    # The harder goal is picoGPT without its slip into float64 under NumPy 2. It comes first, and
    # apart, so that it is stored even if the other fails.
    for name, keep_float32 in (("picoGPT kept in float32", True), ("picoGPT as it is", False)):
        yield from measure(
            [Claim("gptwin, NumPy", name, 10.0)],
            {name: functools.partial(make_picogpt, keep_float32), "gptwin, NumPy": make_gptwin},
            tolerances={"tokens": 0.0, "logits": 1e-4},
            settings=describe_model(config, prompt=n_prompt, new_tokens=n_new, dtype="float32"),
            rounds=3 if settings.quick else 5,
            budget_s=settings.limit_s / 4,
        )


def numpy_training(settings: Settings) -> Iterator[Finding]:
    """Time the hand-written forward and backward pass against eager PyTorch's."""
    config = QUICK if settings.quick else preset("gpt2")
    batch, time = (2, 8) if settings.quick else (4, 64)
    parameters = draw_parameters(config)
    tokens, targets = np.random.default_rng(2).integers(0, config.vocab_size, (2, batch, time))

    def make_gptwin() -> Contender:
        def run() -> tuple[np.ndarray, Parameters]:
            return loss_and_gradients(parameters, tokens, targets, config)

        def result() -> dict[str, Any]:
            loss, gradients = run()
            return {"loss": loss, **gradients}

        return Contender(run, result)

    def make_pytorch() -> Contender:
        model = NanoGPT(config.vocab_size, config.n_ctx, config.n_layer, config.n_head,
                        config.d_model, config.bias)  # fmt: skip
        model.load({name: torch.from_numpy(p) for name, p in parameters.items()})
        inputs = torch.from_numpy(tokens), torch.from_numpy(targets)

        def run() -> torch.Tensor:
            model.zero_grad(set_to_none=True)
            loss = model.loss(*inputs)
            loss.backward()
            return loss

        def result() -> dict[str, Any]:
            results = {"loss": run().detach().numpy()}
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None
                gradient = parameter.grad.numpy()
                results[name] = gradient.T if is_projection(name) else gradient
            return results

        return Contender(run, result)

    yield from measure(
        [Claim("gptwin, NumPy", "PyTorch, eager", 1.5, LONGER)],
        {"PyTorch, eager": make_pytorch, "gptwin, NumPy": make_gptwin},
        tolerances={"loss": 1e-5, **dict.fromkeys(parameters, 1e-4)},
        settings=describe_model(
            config, batch=batch, time=time, dtype="float32", timed="forward and backward"
        ),
        rounds=3 if settings.quick else 25,
        budget_s=settings.limit_s / 3,
    )
