"""The model as a PyTorch module: the NumPy model's twin, and what training needs of it."""

import dataclasses

import numpy as np
import pytest
import torch

from gptwin.core.model import gpt as core
from gptwin.core.model.parameters import init_parameters
from gptwin.core.model.presets import (
    PRESETS,
    GPTConfig,
    parameter_count,
    parameter_shapes,
    preset,
)
from gptwin.kernels.common import launch
from gptwin.kernels.cpu import loss as eager_loss
from gptwin.kernels.cpu import speed_up, tied_embedding
from gptwin.kernels.language import token_scores_cpu
from gptwin.kernels.model import gpt
from gptwin.kernels.model.decoder_block import EAGER
from gptwin.kernels.model.gpt import GPT
from gptwin.kernels.model.kv_cache import KVCache

SMALL = GPTConfig(vocab_size=61, n_ctx=40, n_layer=2, n_head=2, d_model=16)
CONFIGS = {
    "gpt2": SMALL,
    "gpt1": dataclasses.replace(SMALL, norm="post"),
    "gpt3": dataclasses.replace(SMALL, band=5),
    "wide heads, no biases": dataclasses.replace(SMALL, d_head=12, bias=False),
    "a head of its own": dataclasses.replace(SMALL, tied=False),
    "encoder": dataclasses.replace(SMALL, causal=False),
}
OPTIONS = {
    "whole rows": {},
    "padded": {"key_start": np.array([0, 4])},
    "packed": {"cu_seqlens": np.array([0, 5, 5, 17])},
}


def parameters_of(config, dtype):
    """Parameters large enough that nothing hides: not those of a fresh model."""
    rng = np.random.default_rng(1)
    fresh = init_parameters(config, 0, np.float64)
    return {n: (p + rng.normal(0, 0.2, p.shape)).astype(dtype) for n, p in fresh.items()}


def twins(config, dtype="float64", device="cpu"):
    parameters = parameters_of(config, dtype)
    model = GPT(config).to(getattr(torch, dtype))
    model.load_state_dict({n: torch.from_numpy(p) for n, p in parameters.items()})
    return parameters, model.to(device)


def text(time=19, batch=2, seed=2):
    tokens, targets = np.random.default_rng(seed).integers(0, 61, (2, batch, time))
    targets[0, :4] = -100
    return tokens, targets


def tensors(options, device="cpu"):
    return {name: torch.from_numpy(value).to(device) for name, value in options.items()}


def assert_twins_agree(config, options, dtype, device, rtol, prepared=lambda model: model):
    parameters, model = twins(config, dtype, device)
    model = prepared(model)
    tokens, targets = text()
    expected_loss, expected = core.loss_and_gradients(
        {n: p.astype(np.float64) for n, p in parameters.items()}, tokens, targets, config, **options
    )
    tokens, targets = (torch.from_numpy(t).to(device) for t in (tokens, targets))
    loss = model.loss(tokens, targets, **tensors(options, device))
    loss.backward()
    np.testing.assert_allclose(loss.item(), expected_loss, rtol=rtol)
    assert dict(model.named_parameters()).keys() == expected.keys()
    for name, parameter in model.named_parameters():
        size = np.abs(expected[name]).max()
        np.testing.assert_allclose(
            parameter.grad.cpu().numpy(), expected[name], atol=rtol * size, rtol=0, err_msg=name
        )


@pytest.fixture(params=["plain", "sped up", "sped up, too large for the cache"])
def prepared(request, monkeypatch):
    """What prepares a model: nothing, or for the CPU; the last one takes three strips of logits."""
    if request.param == "sped up, too large for the cache":
        monkeypatch.setattr(tied_embedding, "SMALL", 0)
        monkeypatch.setattr(eager_loss, "IN_CACHE", 61 * 15)
        monkeypatch.setattr(token_scores_cpu, "STRIP", 61 * 15)
    return (lambda model: model) if request.param == "plain" else speed_up


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_loss_and_gradients_are_the_numpy_models(config, options, prepared):
    with launch.backend("eager"):
        assert_twins_agree(config, options, "float64", "cpu", 1e-12, prepared)
        assert_twins_agree(config, options, "float32", "cpu", 3e-5, prepared)


@pytest.mark.parametrize("name", ["gpt2", "gpt1"])
def test_on_the_kernels_as_well(name, device):
    assert_twins_agree(CONFIGS[name], OPTIONS["padded"], "float32", device, 3e-5)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_logits_are_the_numpy_models(options):
    parameters, model = twins(SMALL)
    tokens, _ = text()
    with launch.backend("eager"):
        actual = model.logits(model(torch.from_numpy(tokens), **tensors(options)))
    expected = core.gpt(parameters, tokens, SMALL, **options)
    np.testing.assert_allclose(actual.detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("name", [n for n, c in PRESETS.items() if not c.n_types])
def test_every_preset_is_counted_without_memory(name):
    with torch.device("meta"):
        model = GPT(preset(name))
    shapes = {n: tuple(t.shape) for n, t in model.state_dict().items()}
    assert shapes == parameter_shapes(preset(name))
    assert list(shapes) == list(parameter_shapes(preset(name)))
    assert sum(p.numel() for p in model.parameters()) == parameter_count(preset(name))


def test_bert_is_counted_only():
    with pytest.raises(ValueError, match="BERT's parts"):
        GPT(preset("bert-base"))


@pytest.mark.parametrize("init", ["gpt2", "fan_in"])
@pytest.mark.parametrize("name", ["gpt2", "gpt1"])
def test_fresh_parameters_have_the_references_distributions(name, init):
    config = dataclasses.replace(CONFIGS[name], d_model=96, d_head=0, n_layer=8)
    model = GPT(config, torch.Generator().manual_seed(3), init=init)
    again = GPT(config, torch.Generator().manual_seed(3), init=init)
    for (parameter_name, parameter), other in zip(
        model.named_parameters(), again.parameters(), strict=True
    ):
        reference = init_parameters(config, 0, np.float64, init)[parameter_name]
        assert torch.equal(parameter, other)
        if parameter.ndim == 1:
            np.testing.assert_array_equal(parameter.detach().numpy(), reference)
        else:
            assert parameter.std().item() == pytest.approx(reference.std(), rel=0.1)


@pytest.mark.parametrize("backend", ["eager", "triton"])
def test_checkpointing_changes_memory_alone(backend, device):
    device = device if backend == "triton" else "cpu"
    _, model = twins(dataclasses.replace(SMALL, dropout=0.1), "float32", device)
    tokens, targets = (torch.from_numpy(t).to(device) for t in text(time=9))

    def gradients():
        model.zero_grad()
        torch.manual_seed(5)  # dropout's
        with launch.backend(backend):
            model.loss(tokens, targets).backward()
        return [p.grad.clone() for p in model.parameters()]

    kept = gradients()
    model.checkpointing = True
    assert all(map(torch.equal, kept, gradients()))


def test_dropout_is_for_training():
    _, model = twins(dataclasses.replace(SMALL, dropout=0.5), "float32")
    _, plain = twins(SMALL, "float32")
    tokens = torch.from_numpy(text()[0])
    with launch.backend("eager"):
        torch.manual_seed(0)
        first, second = model(tokens), model(tokens)
        assert not torch.equal(first, second)
        assert torch.equal(model.eval()(tokens), plain(tokens))


@pytest.mark.parametrize(
    ("backend", "checkpointing"), [("eager", False), ("eager", True), ("triton", False)]
)
def test_one_graph_forward_and_backward(backend, checkpointing, device):
    device = device if backend == "triton" else "cpu"
    _, model = twins(SMALL, "float32", device)
    model.checkpointing = checkpointing
    tokens, targets = (torch.from_numpy(t).to(device) for t in text())

    def gradients(loss):
        model.zero_grad()
        loss(tokens, targets).backward()
        return [p.grad.clone() for p in model.parameters()]

    torch.compiler.reset()
    with launch.backend(backend):
        expected = gradients(model.loss)
        actual = gradients(torch.compile(model.loss, fullgraph=True, backend="aot_eager"))
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, atol=1e-6, rtol=1e-5)


def test_dropout_leaves_a_compiler_one_graph():
    model = GPT(dataclasses.replace(SMALL, dropout=0.5)).train()
    tokens, targets = (torch.from_numpy(t) for t in text())
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    with launch.backend("eager"):
        loss = torch.compile(model.loss, backend=backend)
        assert loss(tokens, targets) != loss(tokens, targets)
    assert len(graphs) == 1


def test_kernels_are_given_seeds_by_a_compiler_as_well(monkeypatch):
    monkeypatch.setattr(gpt, "KERNELS", EAGER)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    block, seeds = gpt.Block(dataclasses.replace(SMALL, dropout=0.5)).train(), set()

    def attend(x, *_, seed, **__):
        seeds.add(seed)
        return x

    for _ in range(2):
        block(torch.zeros(1, 2, SMALL.d_model), attend, EAGER)
    assert len(seeds) == 2


@pytest.mark.parametrize("backend", ["eager", "triton"])
@pytest.mark.parametrize("name", ["gpt2", "gpt3"])
def test_cached_is_uncached(name, backend, device):
    device = device if backend == "triton" else "cpu"
    _, model = twins(CONFIGS[name], "float32", device)
    model.eval()
    tokens = torch.from_numpy(text(time=12)[0]).to(device)
    key_start = torch.tensor([0, 3], device=device)
    with launch.backend(backend), torch.no_grad():
        whole = model(tokens, key_start=key_start)
        cache = KVCache(model.config, 2, 14, device, torch.float32)
        parts = [model(tokens[:, :7], key_start=key_start, cache=cache)]
        parts += [model(tokens[:, t : t + 1], cache=cache) for t in (7, 8)]
        model(tokens[:, :2], cache=cache)  # another way on, which is forgotten
        cache.rewind(2)
        cache.keep(torch.tensor([1], device=device))
        last = model(tokens[1:, 9:12], cache=cache)
    torch.testing.assert_close(torch.cat(parts, 1)[1], whole[1, :9], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.cat(parts, 1)[0], whole[0, :9], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(last[0], whole[1, 9:], atol=1e-4, rtol=1e-4)


def test_packed_is_one_by_one():
    _, model = twins(SMALL)
    tokens = torch.from_numpy(text(batch=1)[0])
    with launch.backend("eager"):
        packed = model(tokens, cu_seqlens=torch.tensor([0, 5, 12, 19]))
        for start, end in ((0, 5), (5, 12), (12, 19)):
            alone = model(tokens[:, start:end])
            torch.testing.assert_close(packed[:, start:end], alone, atol=1e-12, rtol=0)


def test_a_batch_without_targets_costs_nothing(prepared):
    _, model = twins(SMALL)
    model = prepared(model)
    tokens = torch.from_numpy(text()[0])
    with launch.backend("eager"):
        loss = model.loss(tokens, torch.full_like(tokens, -100))
    loss.backward()
    assert loss.item() == 0
    assert all((p.grad == 0).all() for p in model.parameters())


def test_bad_input_is_refused(prepared):
    _, model = twins(SMALL)
    model = prepared(model)
    tokens, targets = map(torch.from_numpy, text())
    with launch.backend("eager"):
        with pytest.raises(ValueError, match="tokens: expected at most n_ctx = 40"):
            model(tokens.repeat(1, 3))
        with pytest.raises(ValueError, match="tokens"):
            model(tokens + 61)
        with pytest.raises(ValueError, match="targets: expected shape"):
            model.loss(tokens, targets[:, 1:])
        with pytest.raises(ValueError, match="targets"):
            model.loss(tokens, targets.clamp(min=0) + 61)
        with pytest.raises(ValueError, match="cache"):
            model.train()(tokens, cache=KVCache(SMALL, 2, 40, dtype=torch.float64))
        cache = KVCache(SMALL, 2, 20, dtype=torch.float64)
        model.eval()(tokens, cache=cache)
        with pytest.raises(ValueError, match="at most 1 more: the cache holds 20 positions"):
            model(tokens[:, :2], cache=cache)
    with pytest.raises(ValueError, match="capacity: expected at most n_ctx = 40"):
        KVCache(SMALL, 2, 41)


@pytest.mark.parametrize("uses", ["both", "states", "head", "head in two ways"])
def test_a_tied_tables_gradient_is_one_whoever_uses_it(uses, prepared):
    """On the CPU the embedding's rows are added to the head's gradient, where there is one."""
    model = prepared(twins(SMALL)[1])
    tokens = torch.from_numpy(text()[0])
    factor = torch.full((SMALL.d_model, 61), 0.3, dtype=torch.float64, requires_grad=True)
    seen = []

    def gradients(hidden, head):
        model.zero_grad()
        factor.grad = None
        if uses == "head in two ways":  # such as LoRA: others share the head's gradient
            head.register_hook(seen.append)
            head = head + factor
        states = hidden if uses != "head" else hidden.detach()
        (states.square().sum() if uses == "states" else (states @ head).square().sum()).backward()
        kept = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        return kept if factor.grad is None else kept | {"factor": factor.grad}

    with launch.backend("eager"):
        expected = gradients(model(tokens), model.output_matrix())
        actual = gradients(*model(tokens, with_head=True))
    assert actual.keys() == expected.keys()
    for name, gradient in actual.items():
        assert not gradient.is_sparse
        torch.testing.assert_close(gradient, expected[name], msg=name)
    if seen:
        torch.testing.assert_close(seen[1], seen[0])
        torch.testing.assert_close(seen[1], actual["factor"])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_last_states_alone_are_those_of_the_whole(config, options):
    """And so are the gradients: what the last block leaves out reaches nobody."""
    tokens, _ = (torch.from_numpy(t) for t in text())
    found = []
    for first in (0, 7):
        _, model = twins(config)
        with launch.backend("eager"):
            states = model(tokens, states_from=first, **tensors(options))[:, 7 - first :]
            states.square().sum().backward()
        found.append((states.detach(), [p.grad for p in model.parameters() if p is not None]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


def test_on_the_kernels_and_from_a_cache_too(device):
    tokens, _ = (torch.from_numpy(t).to(device) for t in text())
    _, model = twins(SMALL, "float32", device)
    model.eval()
    for name in ("triton", "eager"):
        with launch.backend(name), torch.no_grad():
            whole = model(tokens)[:, 7:]
            cache = KVCache(SMALL, *tokens.shape, device=device)
            torch.testing.assert_close(model(tokens, states_from=7), whole)
            torch.testing.assert_close(model(tokens, cache=cache, states_from=7), whole)
    with pytest.raises(ValueError, match=r"^states_from: expected 0 to the 19 tokens of a row"):
        model(tokens, states_from=20)
