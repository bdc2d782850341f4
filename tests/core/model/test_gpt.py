"""The reference models: against finite differences, PyTorch and Hugging Face; what is promised."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from gptwin.benchmarks.baselines.nanogpt import NanoGPT, is_projection
from gptwin.core.model.gpt import (
    gpt,
    gpt_backward,
    gpt_forward,
    init_state,
    loss_and_gradients,
    train_step,
)
from gptwin.core.model.parameters import init_parameters
from gptwin.core.model.presets import GPTConfig, flops_per_sequence, parameter_shapes, preset
from gptwin.kernels.model.gpt import GPT

SMALL = GPTConfig(17, 8, 2, 2, 6)
KINDS = {
    "gpt2": {},
    "gpt1": {"norm": "post"},
    "gpt3": {"band": 2},
    "encoder": {"norm": "post", "causal": False},
    "no bias": {"bias": False},
    "untied": {"tied": False},
    "wide heads": {"d_head": 5},
}


def small(kind="gpt2"):
    return GPTConfig(17, 8, 2, 2, 6, **KINDS[kind])


def make(config, seed=0, batch=2, time=5, dtype=np.float64, std=0.3):
    """Return a model none of whose parameters is 0 or 1, tokens, and targets."""
    rng = np.random.default_rng(seed)
    parameters = {
        name: value + rng.normal(0, std, size=value.shape).astype(dtype)
        for name, value in init_parameters(config, seed, dtype).items()
    }
    tokens, targets = rng.integers(0, config.vocab_size, (2, batch, time))
    return parameters, tokens, targets


def nano(config, parameters, dtype=torch.float64):
    """Return the plain PyTorch model with the same weights."""
    sizes = (config.vocab_size, config.n_ctx, config.n_layer, config.n_head, config.d_model)
    model = NanoGPT(*sizes, bias=config.bias).to(dtype)
    model.load({name: torch.from_numpy(value) for name, value in parameters.items()})
    return model


def nano_gradients(model):
    """Return its gradients under GPT-2's names and in GPT-2's layout."""
    return {
        name: (p.grad.T if is_projection(name) else p.grad).numpy()
        for name, p in model.named_parameters()
    }


# --- gradients -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_agree_with_finite_differences(kind):
    config, step = small(kind), 1e-5
    parameters, tokens, targets = make(config)
    targets[0, 1] = -100
    _, gradients = loss_and_gradients(parameters, tokens, targets, config)
    assert list(gradients) == list(parameters)
    rng = np.random.default_rng(2)
    for name, gradient in gradients.items():
        direction = rng.normal(size=gradient.shape)
        ends = [
            loss_and_gradients(
                parameters | {name: parameters[name] + sign * step * direction},
                tokens, targets, config,
            )[0]
            for sign in (1, -1)
        ]  # fmt: skip
        slope = (gradient * direction).sum()
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope, rel=1e-7, abs=1e-9), name


@pytest.mark.parametrize("kind", ["gpt2", "no bias"])
def test_it_equals_pytorch_autograd_to_1e_10(kind):
    config = small(kind)
    parameters, tokens, targets = make(config)
    model = nano(config, parameters)
    expected = model.loss(torch.from_numpy(tokens), torch.from_numpy(targets))
    expected.backward()
    loss, gradients = loss_and_gradients(parameters, tokens, targets, config)
    np.testing.assert_allclose(loss, expected.item(), rtol=1e-10)
    np.testing.assert_allclose(
        gpt(parameters, tokens, config), model(torch.from_numpy(tokens)).detach(), rtol=1e-10
    )
    for name, expected_gradient in nano_gradients(model).items():
        np.testing.assert_allclose(
            gradients[name], expected_gradient, rtol=1e-10, atol=1e-10, err_msg=name
        )


@pytest.mark.parametrize("kind", ["gpt2", "untied"])
def test_the_two_ways_to_the_loss_agree(kind):
    """Through the logits and the gradient of log softmax, or without them."""
    config = small(kind)
    parameters, tokens, targets = make(config)
    loss, gradients = loss_and_gradients(parameters, tokens, targets, config)
    logits, saved = gpt_forward(parameters, tokens, config)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    target = np.eye(config.vocab_size)[targets]
    assert loss == pytest.approx(-(np.log(p) * target).sum(-1).mean(), rel=1e-12)
    through_logits = gpt_backward(saved, (p - target) / tokens.size)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(through_logits[name], gradient, atol=1e-12, err_msg=name)


def test_124m_in_float32_equals_pytorch():
    """Within 1e-5 of each array's own largest number, logits and every gradient."""
    config = preset("gpt2")
    parameters = init_parameters(config, dtype=np.float32)
    rng = np.random.default_rng(1)
    tokens, targets = rng.integers(0, config.vocab_size, (2, 1, 16))
    model = nano(config, parameters, torch.float32)
    model.loss(torch.from_numpy(tokens), torch.from_numpy(targets)).backward()
    expected = model(torch.from_numpy(tokens)).detach().numpy()
    found = gpt(parameters, tokens, config)
    _, gradients = loss_and_gradients(parameters, tokens, targets, config)
    assert relative_error(found, expected) < 1e-5
    worst = {
        name: relative_error(gradients[name], expected)
        for name, expected in nano_gradients(model).items()
    }
    assert max(worst.values()) < 1e-5, worst

    own = GPT(config)
    own.load_state_dict({name: torch.from_numpy(p) for name, p in parameters.items()})
    own.loss(torch.from_numpy(tokens), torch.from_numpy(targets)).backward()
    with torch.no_grad():
        logits = own.logits(own(torch.from_numpy(tokens))).numpy()
    assert relative_error(found, logits) < 1e-5
    worst = {n: relative_error(gradients[n], p.grad.numpy()) for n, p in own.named_parameters()}
    assert max(worst.values()) < 1e-5, worst


def relative_error(actual, expected):
    return np.abs(actual - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    "sizes",
    [(31, 16, 3, 2, 12), (50257, 1024, 12, 12, 768)],
    ids=["small", "124M"],
)
def test_it_equals_hugging_face(sizes):
    transformers = pytest.importorskip("transformers")
    config = GPTConfig(*sizes)
    vocab_size, n_ctx, n_layer, n_head, d_model = sizes
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=vocab_size, n_positions=n_ctx, n_layer=n_layer, n_head=n_head,
            n_embd=d_model, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    ).eval()  # fmt: skip
    parameters = {
        name.removeprefix("transformer."): value.detach().numpy()
        for name, value in model.named_parameters()
    }
    tokens = np.random.default_rng(0).integers(0, vocab_size, (1, 12))
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens)).logits.numpy()
    np.testing.assert_allclose(gpt(parameters, tokens, config), expected, rtol=0, atol=1e-4)


# --- precision and cost ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_no_float64_leaks_into_a_float32_model(kind):
    config = small(kind)
    parameters, tokens, targets = make(config, dtype=np.float32)
    logits, saved = gpt_forward(parameters, tokens, config, key_start=np.array([0, 1]))
    _, gradients = loss_and_gradients(parameters, tokens, targets, config)
    assert logits.dtype == np.float32
    assert {g.dtype for g in gradients.values()} == {np.dtype(np.float32)}
    assert {g.dtype for g in gpt_backward(saved, logits).values()} == {np.dtype(np.float32)}


class Counting(np.ndarray):
    """One number repeated: its matrix products are counted, its elements never computed."""

    flops = 0

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        plain = [np.asarray(each) for each in inputs]
        if ufunc is np.matmul:
            a, b = plain
            leading = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
            shape = (*leading, a.shape[-2], b.shape[-1])
            Counting.flops += 2 * math.prod(shape) * a.shape[-1]
            result = np.zeros(shape, np.float32)
        elif method == "__call__":
            one = ufunc(*(each.flat[0] for each in plain))
            result = np.broadcast_to(one, np.broadcast_shapes(*(each.shape for each in plain)))
        else:
            result = getattr(ufunc, method)(*plain, **options)
        return result.view(Counting) if isinstance(result, np.ndarray) else result

    def __array_function__(self, function, types, args, kwargs):
        result = super().__array_function__(function, types, args, kwargs)
        return result.view(Counting) if isinstance(result, np.ndarray) else result


@pytest.mark.parametrize(
    ("name", "time", "flops"),
    [("gpt2", 1024, 291_648_307_200), ("gpt2-xl", 16, None), ("gpt3-125m", 32, None)],
)
def test_a_counting_matmul_counts_the_flops(name, time, flops):
    config = preset(name)
    parameters = {
        parameter: np.broadcast_to(np.float32(0), shape).view(Counting)
        for parameter, shape in parameter_shapes(config).items()
    }
    tokens = np.zeros((1, time), dtype=np.int64)
    Counting.flops = 0
    logits, saved = gpt_forward(parameters, tokens, config)
    forward, Counting.flops = Counting.flops, 0
    assert forward == flops_per_sequence(config, time)
    assert flops is None or forward == flops
    if time < 1024:
        gpt_backward(saved, logits)
        assert Counting.flops == 2 * forward


# --- what a position sees --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "gpt1", "gpt3"])
def test_a_decoder_is_causal_bit_for_bit(kind):
    config = small(kind)
    parameters, tokens, _ = make(config, time=8)
    before = gpt(parameters, tokens, config)
    for j in range(1, 8):
        moved = tokens.copy()
        moved[:, j] = (moved[:, j] + 1) % config.vocab_size
        after = gpt(parameters, moved, config)
        np.testing.assert_array_equal(after[:, :j], before[:, :j])
        assert (after[:, j] != before[:, j]).any()


def test_an_encoder_sees_what_follows():
    config = small("encoder")
    parameters, tokens, _ = make(config)
    moved = tokens.copy()
    moved[:, -1] = (moved[:, -1] + 1) % config.vocab_size
    before, after = (gpt(parameters, each, config) for each in (tokens, moved))
    assert (before != after).any(axis=-1).all()


def test_a_band_as_wide_as_the_context_is_dense():
    parameters, tokens, _ = make(SMALL, time=8)
    banded, narrow = (dataclasses.replace(SMALL, band=band) for band in (8, 3))
    dense = gpt(parameters, tokens, SMALL)
    np.testing.assert_array_equal(gpt(parameters, tokens, banded), dense)
    differs = (gpt(parameters, tokens, narrow) != dense).any(axis=(0, 2))
    np.testing.assert_array_equal(differs, np.arange(8) >= 3)  # where something is out of sight


@pytest.mark.parametrize("kind", ["gpt2", "gpt1", "gpt3", "encoder"])
def test_padding_on_the_left_changes_nothing(kind):
    config = small(kind)
    parameters, tokens, _ = make(config)
    padded = np.concatenate([[[3, 4], [5, 6]], tokens], axis=1)
    np.testing.assert_allclose(
        gpt(parameters, padded, config, key_start=np.array([2, 2]))[:, 2:],
        gpt(parameters, tokens, config),
        rtol=1e-12, atol=1e-13,
    )  # fmt: skip


def test_packed_documents_are_as_if_alone():
    parameters, tokens, _ = make(SMALL, batch=1, time=7)
    packed = gpt(parameters, tokens, SMALL, cu_seqlens=np.array([0, 3, 7]))
    alone = [gpt(parameters, part, SMALL) for part in np.split(tokens, [3], axis=1)]
    np.testing.assert_allclose(packed, np.concatenate(alone, axis=1), rtol=1e-12, atol=1e-13)


# --- training --------------------------------------------------------------------------------


def test_a_uniform_models_loss_is_the_log_of_the_vocabulary():
    config = dataclasses.replace(SMALL, tied=False)
    parameters, tokens, targets = make(config)
    parameters["lm_head.weight"] = np.zeros_like(parameters["lm_head.weight"])
    loss, _ = loss_and_gradients(parameters, tokens, targets, config)
    assert loss == pytest.approx(math.log(17), rel=1e-14)


def test_a_new_model_is_close_to_uniform():
    parameters = init_parameters(SMALL)
    _, tokens, targets = make(SMALL)
    loss, _ = loss_and_gradients(parameters, tokens, targets, SMALL)
    assert loss == pytest.approx(math.log(17), abs=0.02)


def test_all_targets_ignored_gives_nothing_to_learn():
    parameters, tokens, _ = make(SMALL)
    loss, gradients = loss_and_gradients(parameters, tokens, np.full_like(tokens, -100), SMALL)
    assert loss == 0 and not any(gradient.any() for gradient in gradients.values())


def test_initial_weights_follow_the_paper():
    config = preset("gpt2", n_layer=2)
    parameters = init_parameters(config, dtype=np.float64)
    expected = {"wte": 0.02, "wpe": 0.01, "h.0.mlp.c_fc": 0.02, "h.1.mlp.c_proj": 0.01}
    for name, std in expected.items():
        assert parameters[f"{name}.weight"].std() == pytest.approx(std, rel=0.01)
    assert (parameters["ln_f.weight"] == 1).all() and not parameters["ln_f.bias"].any()
    gpt1 = init_parameters(preset("gpt1", n_layer=1))
    assert gpt1["wpe.weight"].std() == pytest.approx(0.02, rel=0.01)
    float32 = init_parameters(SMALL, 3)["wte.weight"]
    np.testing.assert_array_equal(
        float32, init_parameters(SMALL, 3, np.float64)["wte.weight"].astype(np.float32)
    )


def test_fan_in_keeps_what_a_projection_returns_as_large_as_what_it_is_given():
    config = preset("gpt2", n_layer=2)
    parameters = init_parameters(config, dtype=np.float64, init="fan_in")
    d = config.d_model
    expected = {
        "wte": 0.02, "wpe": 0.02, "h.0.attn.c_attn": d**-0.5, "h.0.mlp.c_fc": d**-0.5,
        "h.0.attn.c_proj": d**-0.5 / 2, "h.1.mlp.c_proj": (4 * d) ** -0.5 / 2,
    }  # fmt: skip
    for name, std in expected.items():
        assert parameters[f"{name}.weight"].std() == pytest.approx(std, rel=0.01)
    with pytest.raises(ValueError, match=r"^init: expected gpt2 or fan_in, got 'xavier'"):
        init_parameters(SMALL, init="xavier")


def test_training_steps_equal_pytorchs():
    parameters, tokens, targets = make(SMALL, dtype=np.float64)
    model, state = nano(SMALL, parameters), init_state(parameters)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95))
    for _ in range(3):
        optimizer.zero_grad()
        expected = model.loss(torch.from_numpy(tokens), torch.from_numpy(targets))
        expected.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        loss, gradient_norm, parameters, state = train_step(
            parameters, state, tokens, targets, SMALL,
            lr=0.01, betas=(0.9, 0.95), weight_decay=0.1, max_norm=0.5,
        )  # fmt: skip
        np.testing.assert_allclose((loss, gradient_norm), (expected.item(), norm), rtol=1e-9)
    assert state.step == 3
    for name, p in model.named_parameters():
        value = p.detach().T if is_projection(name) else p.detach()
        np.testing.assert_allclose(parameters[name], value, rtol=1e-8, atol=1e-10, err_msg=name)


def test_a_model_learns_a_text_by_heart():
    config = dataclasses.replace(SMALL, d_model=16, d_head=8)
    parameters = init_parameters(config, dtype=np.float64)
    text = np.array([[3, 1, 4, 1, 5, 9, 2, 6, 5]])
    state = init_state(parameters)
    for _ in range(60):
        loss, _, parameters, state = train_step(
            parameters, state, text[:, :-1], text[:, 1:], config, lr=0.02, max_norm=1.0
        )
    assert loss < 0.01


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.zeros((2, 9), dtype=int), "tokens: expected at most n_ctx = 8 .*, got 9"),
        (np.zeros(4, dtype=int), r"tokens: expected 2 dimensions \[batch, time\]"),
        (np.full((1, 2), 17), "tokens: expected 0 to 16, got 17"),
        (np.full((1, 2), -1), "tokens: expected 0 to 16, got -1"),
        (np.zeros((1, 2)), "tokens: expected integers, got dtype float64"),
    ],
)
def test_bad_tokens_are_named(tokens, message):
    with pytest.raises(ValueError, match=message):
        gpt(init_parameters(SMALL), tokens, SMALL)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("h.1.mlp.c_fc.weight", np.transpose, r"h\.1\.mlp\.c_fc\.weight: .*\(6, 24\).*transpose"),
        ("wpe.weight", lambda table: table[:4], r"wpe\.weight: expected shape \(8, 6\)"),
        ("ln_f.bias", None, r"ln_f\.bias: expected shape \(6,\), got None"),
    ],
)
def test_bad_parameters_are_named(name, change, message):
    parameters = init_parameters(SMALL)
    value = parameters.pop(name)
    if change:
        parameters[name] = change(value)
    with pytest.raises(ValueError, match=message):
        gpt(parameters, np.zeros((1, 2), dtype=int), SMALL)


def test_parameters_left_over_are_named():
    parameters = init_parameters(SMALL) | {"h.0.attn.bias": np.ones((8, 8))}
    with pytest.raises(ValueError, match=r"parameters: .*'h\.0\.attn\.bias'.*a buffer"):
        gpt(parameters, np.zeros((1, 2), dtype=int), SMALL)


def test_bert_is_counted_only():
    with pytest.raises(ValueError, match="config: expected a model of GPT's parts"):
        gpt({}, np.zeros((1, 2), dtype=int), preset("bert-base"))


def test_targets_must_fit_the_tokens():
    parameters, tokens, targets = make(SMALL)
    with pytest.raises(ValueError, match=r"targets: expected shape \(2, 5\)"):
        loss_and_gradients(parameters, tokens, targets[:, 1:], SMALL)
    with pytest.raises(ValueError, match="targets: "):
        loss_and_gradients(parameters, tokens, targets + 17, SMALL)
