"""A decoding step that lies on the device whole: the same logits, and nothing frozen in it."""

import contextlib
import dataclasses
import functools
import sys
import types

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from gptwin.core.model.parameters import init_parameters
from gptwin.core.model.presets import GPTConfig
from gptwin.kernels.common import launch
from gptwin.kernels.cpu import speed_up
from gptwin.kernels.cpu.block import StraightBlock
from gptwin.kernels.model.decode_step import BoundStep, DecodeStep, StaticKVCache
from gptwin.kernels.model.gpt import GPT
from gptwin.kernels.model.kv_cache import KVCache

CONFIG = GPTConfig(vocab_size=41, n_ctx=16, n_layer=2, n_head=2, d_model=32, band=5)
PROMPT = torch.tensor([[0, 0, 3, 1], [9, 2, 6, 5], [0, 5, 3, 5]])
STARTS = torch.tensor([2, 0, 1])
NEXT = torch.randint(41, (8, 3), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    fresh = init_parameters(CONFIG, 0, np.float32)
    model = GPT(CONFIG).eval()
    model.load_state_dict(
        {n: torch.from_numpy(p * (8 if p.ndim > 1 else 1)) for n, p in fresh.items()}
    )
    return model


def filled(kind, model, key_start, device="cpu"):
    cache = kind(CONFIG, 3, 13, device)
    with torch.no_grad():
        model(PROMPT.to(device), key_start=key_start, cache=cache)
    return cache


@pytest.mark.parametrize("prepared", [lambda model: model, speed_up], ids=["plain", "sped up"])
@pytest.mark.parametrize("starts", [STARTS, None])
def test_the_logits_are_the_growing_caches(model, starts, prepared):
    model = prepared(model)
    cache, bound, static = (
        filled(kind, model, starts) for kind in (KVCache, KVCache, StaticKVCache)
    )
    bound_step, step = BoundStep(model, bound), DecodeStep(model, static)
    for tokens in NEXT:
        with torch.no_grad():
            state = model(tokens[:, None], cache=cache)[:, -1]
        expected = state, model.logits(state)
        torch.testing.assert_close(bound_step(tokens), expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(step(tokens), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"^tokens: expected one a row, once the prompts"):
        model(NEXT[:2].T, cache=static)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prepared", [lambda model: model, speed_up], ids=["plain", "sped up"])
def test_a_bound_step_is_the_models_pass(norm, bias, dtype, prepared):
    config = dataclasses.replace(CONFIG, norm=norm, bias=bias, tied=bias)
    model = GPT(config, torch.Generator().manual_seed(0), init="fan_in").eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:  # or biases are 0, and weights of norms 1
            parameter.data.normal_(1, 0.5)
    if dtype == torch.bfloat16:
        model.compute_dtype = dtype
    model = prepared(model.to(torch.float32 if dtype == torch.bfloat16 else dtype))
    cache, bound = (KVCache(config, 3, 13, dtype=dtype) for _ in range(2))
    with torch.no_grad(), launch.backend("eager"):
        for each in (cache, bound):
            model(PROMPT, key_start=STARTS, cache=each)
        step = BoundStep(model, bound)
        bound_to = StraightBlock if prepared is speed_up else functools.partial
        assert all(isinstance(block, bound_to) for block in step.blocks)
        for tokens in NEXT[:3]:
            state = model(tokens[:, None], cache=cache)[:, -1]
            tolerance = 3e-2 if dtype == torch.bfloat16 else 1e-5
            torch.testing.assert_close(
                step(tokens), (state, model.logits(state)), rtol=tolerance, atol=tolerance
            )


def test_on_the_kernels_as_well(model, device):
    model.to(device)
    with launch.backend("triton"), launch.recording() as log:
        static = filled(StaticKVCache, model, STARTS.to(device), device)
        step = DecodeStep(model, static)
        found = [step(tokens.to(device))[1].clone() for tokens in NEXT[:2]]
    cache = filled(KVCache, model.cpu(), STARTS)
    for tokens, logits in zip(NEXT[:2], found, strict=True):
        with torch.no_grad():
            expected = model.logits(model(tokens[:, None], cache=cache)[:, -1])
        torch.testing.assert_close(logits.cpu(), expected, rtol=1e-3, atol=1e-3)
    assert "decode_attention_split_kernel" in {entry.kernel for entry in log}


def test_a_recorded_step_replays_at_every_position(model, monkeypatch):
    """Recorded once as operators and addresses, as a CUDA graph is, and replayed: had a position,
    a length or a token been Python's, it would still be the first step's."""
    cache, static = (filled(kind, model, STARTS) for kind in (KVCache, StaticKVCache))
    step = DecodeStep(model, static)
    lengths = static.lengths.clone()
    # On a CPU, as nowhere else, the embedding looks at its tokens; no graph could hold that.
    monkeypatch.setattr(
        sys.modules["gptwin.kernels.layers.embedding"], "check_ids", lambda *_: None
    )
    with torch.no_grad(), launch.backend("eager"):
        replay = make_fx(lambda: step.compute(), tracing_mode="real")()
    static.lengths.copy_(lengths)
    for tokens in NEXT:
        step.tokens.copy_(tokens[:, None])
        with torch.no_grad():
            state = model(tokens[:, None], cache=cache)[:, -1]
            expected = state, model.logits(state)
            torch.testing.assert_close(replay(), expected, rtol=1e-5, atol=1e-5)


class Graph:
    """What DecodeStep uses of a CUDA graph; replaying computes what was recorded."""

    def __init__(self):
        self.step = self.replayed = 0

    def replay(self):
        self.replayed += 1
        for result, computed in zip(self.step.results, self.step.compute(), strict=True):
            result.copy_(computed)


def test_the_first_call_records_and_leaves_the_cache_as_it_was(model, monkeypatch):
    """The way a GPU goes, with stand-ins for its streams and graphs."""
    cache, static = (filled(kind, model, STARTS) for kind in (KVCache, StaticKVCache))
    nothing = types.SimpleNamespace(wait_stream=lambda other: None)
    for name, stand_in in (
        ("Stream", lambda: nothing), ("current_stream", lambda: nothing), ("CUDAGraph", Graph),
        ("stream", lambda s: contextlib.nullcontext()),
        ("graph", lambda g: contextlib.nullcontext()),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    step = DecodeStep(model, static)
    assert not step.record  # without a GPU
    step.record = True
    recorded = step._record
    monkeypatch.setattr(step, "_record", lambda: (recorded(), setattr(step.graph, "step", step)))
    for tokens in NEXT:
        with torch.no_grad():
            state = model(tokens[:, None], cache=cache)[:, -1]
        expected = state, model.logits(state)
        torch.testing.assert_close(step(tokens), expected, rtol=1e-5, atol=1e-5)
    assert step.graph.replayed == len(NEXT)  # recorded once
    assert DecodeStep(model, static, record=False).record is False
