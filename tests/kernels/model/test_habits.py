"""What PyTorch's users do with a module: the model stands it on both backends."""

import copy
import io
import pickle
import threading

import pytest
import torch
from torch.nn.utils import parametrize, prune

from gptwin.core.model.presets import GPTConfig
from gptwin.kernels.common import launch
from gptwin.kernels.cpu import loss
from gptwin.kernels.cpu.speed import speed_up
from gptwin.kernels.model.gpt import GPT, Weights
from gptwin.kernels.model.kv_cache import KVCache

SMALL = GPTConfig(vocab_size=200, n_ctx=12, n_layer=1, n_head=2, d_model=8)
backends = pytest.mark.parametrize("backend", ["triton", "eager", "eager, sped up"])
# What the backend has no part in; the interpreter is slow.
both_eager = pytest.mark.parametrize("backend", ["eager", "eager, sped up"])


@pytest.fixture(autouse=True)
def on_backend(backend):
    with launch.backend(backend.removesuffix(", sped up")):
        yield


def fresh(backend, device, seed=0):
    model = GPT(SMALL, torch.Generator().manual_seed(seed)).to(device)
    return speed_up(model) if backend.endswith("up") else model


def some_tokens(device, seed=1):
    return torch.randint(200, (2, 7), generator=torch.Generator().manual_seed(seed)).to(device)


def gradients(model, tokens):
    model.zero_grad()
    model.loss(tokens, tokens).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@backends
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_ids_of_any_integer_type_mean_the_same(dtype, backend, device, monkeypatch):
    """In uint8 a target of 156 is −100, which is to be ignored: a loss of 0, in a bug report."""
    monkeypatch.setattr(loss, "IN_CACHE", 0)  # as with more logits
    model = fresh(backend, device)
    for tokens in (torch.full((2, 7), 156, device=device), some_tokens(device)):
        narrow = tokens.to(dtype)
        found = model.loss(narrow, narrow)
        assert found > 5 and torch.equal(found, model.loss(tokens, tokens))
        start, positions = torch.tensor([0, 3], device=device), tokens % 12
        options = {"key_start": start, "positions": positions}
        expected = model(tokens, **options)
        found = model(narrow, **{name: x.to(dtype) for name, x in options.items()})
        assert torch.equal(found, expected)


@backends
def test_a_cache_takes_any_integer_type(backend, device):
    model, tokens = fresh(backend, device).eval(), some_tokens(device)
    start, second = torch.tensor([0, 3], device=device), torch.tensor([1], device=device)
    found = []
    for dtype in (torch.int64, torch.uint8):
        cache = KVCache(SMALL, 2, 12, device)
        with torch.no_grad():
            model(tokens.to(dtype), key_start=start.to(dtype), cache=cache)
            cache.keep(second.to(dtype))  # PyTorch takes uint8 for a mask
            found.append(model(tokens[1:, :1].to(dtype), cache=cache))
    assert found[0].shape == (1, 1, 8) and torch.equal(*found)


@both_eager
def test_other_kinds_are_refused_by_name(backend, device):
    model, tokens = fresh(backend, device), some_tokens(device)
    for wrong in (tokens.float(), tokens > 5):
        with pytest.raises(ValueError, match=r"^tokens: expected integers"):
            model(wrong)
        with pytest.raises(ValueError, match=r"^targets: expected integers"):
            model.loss(tokens, wrong)
        with pytest.raises(ValueError, match=r"^positions: expected integers"):
            model(tokens, positions=wrong)
        with pytest.raises(ValueError, match=r"^key_start: expected integers"):
            model(tokens, key_start=wrong[:, 0])
        with pytest.raises(ValueError, match=r"^rows: expected integers"):
            KVCache(SMALL, 2, 12, device).keep(wrong[:, 0])
    with pytest.raises(ValueError, match="n: expected 0 to the 0 positions"):
        KVCache(SMALL, 2, 12, device).rewind(1)


@both_eager
def test_pruned_weights_train(backend, device):
    """Pruning computes a weight before its module is called: a bug report's second backward."""
    model, tokens = fresh(backend, device), some_tokens(device)
    plain = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(2)
    masks = {}
    for name, module in model.named_modules():
        if isinstance(module, Weights):
            kept = torch.rand(module.weight.shape, generator=generator).to(device) > 0.3
            prune.custom_from_mask(module, "weight", kept)
            masks[f"{name}.weight"] = kept
    for _ in range(2):
        with torch.no_grad():  # what the pruned model computes, written out
            for name, weight in plain.named_parameters():
                pruned = model.get_parameter(f"{name}_orig" if name in masks else name)
                weight.copy_(pruned * masks.get(name, 1))
        expected, found = gradients(plain, tokens), gradients(model, tokens)
        for name, gradient in expected.items():
            if name in masks:
                gradient, name = gradient * masks[name], f"{name}_orig"
            torch.testing.assert_close(found[name], gradient, msg=name)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad


class Doubled(torch.nn.Module):
    def forward(self, x):
        return 2 * x


@both_eager
def test_parametrised_weights_train(backend, device):
    model, tokens = fresh(backend, device), some_tokens(device)
    projection = model.h[0].mlp["c_fc"]
    parametrize.register_parametrization(projection, "weight", Doubled())
    plain = fresh(backend, device)
    with torch.no_grad():
        plain.h[0].mlp["c_fc"].weight.mul_(2)
    for _ in range(2):
        found = gradients(model, tokens)["h.0.mlp.c_fc.parametrizations.weight.original"]
        expected = gradients(plain, tokens)["h.0.mlp.c_fc.weight"]
        torch.testing.assert_close(found, 2 * expected)


@both_eager
def test_a_functional_call_uses_what_it_is_given(backend, device):
    model, other = fresh(backend, device), fresh(backend, device, seed=5)
    tokens = some_tokens(device)
    given = {n: p.detach().clone().requires_grad_() for n, p in other.named_parameters()}
    hidden = torch.func.functional_call(model, given, (tokens,))
    expected = other(tokens)
    assert torch.equal(hidden, expected)
    hidden.square().sum().backward()
    expected.square().sum().backward()
    for name, parameter in other.named_parameters():
        torch.testing.assert_close(given[name].grad, parameter.grad)
    assert all(parameter.grad is None for parameter in model.parameters())


@both_eager
def test_copies_are_whole_and_independent(backend, device):
    model, tokens = fresh(backend, device), some_tokens(device)
    expected = gradients(model, tokens)
    saved = io.BytesIO()
    torch.save(model, saved)
    saved.seek(0)
    copies = (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(saved, weights_only=False),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    for again in copies:
        for name, gradient in gradients(again, tokens).items():
            assert torch.equal(gradient, expected[name]), name


@backends
def test_threads_do_not_disturb_one_another(backend, device):
    models = [fresh(backend, device, seed) for seed in range(2)]
    tokens = [some_tokens(device, seed) for seed in range(2)]
    alone = [gradients(*each) for each in zip(models, tokens, strict=True)]
    found = [None, None]

    def work(i):
        with launch.backend(backend.removesuffix(", sped up")):
            found[i] = gradients(models[i], tokens[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for expected, actual in zip(alone, found, strict=True):
        for name, gradient in expected.items():
            assert torch.equal(actual[name], gradient), name


@backends
def test_under_autocast_it_trains(backend, device):
    model, tokens = fresh(backend, device), some_tokens(device)
    expected = gradients(model, tokens)
    with torch.autocast(device, torch.bfloat16):
        found = gradients(model, tokens)
    for name, gradient in expected.items():
        assert found[name].dtype == torch.float32
        worst = (found[name] - gradient).abs().max()
        assert worst <= 0.03 * gradient.abs().max(), name
