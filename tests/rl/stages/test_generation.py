"""Generation: the NumPy model's tokens, whoever shares the batch and whenever they leave it."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from gptwin.core.model import generation as core
from gptwin.core.model.parameters import init_parameters
from gptwin.core.model.presets import GPTConfig
from gptwin.kernels.common import launch
from gptwin.kernels.model.decode_step import BoundStep, DecodeStep
from gptwin.kernels.model.gpt import GPT
from gptwin.rl.stages import generation
from gptwin.rl.stages.generation import generate

CONFIG = GPTConfig(vocab_size=61, n_ctx=40, n_layer=2, n_head=2, d_model=32, band=6)
PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6, 5, 3], [5], [8, 9, 7, 9]]
SAMPLERS = {
    "greedy": {"temperature": 0.0},
    "temperature": {"temperature": 0.7, "seed": 5},
    "top k and p": {"temperature": 1.3, "top_k": 20, "top_p": 0.9, "seed": 2},
}
each_sampler = pytest.mark.parametrize("options", SAMPLERS.values(), ids=SAMPLERS)


@pytest.fixture(autouse=True)
def on_eager():
    with launch.backend("eager"):
        yield


def twins(config=CONFIG, device="cpu"):
    fresh = init_parameters(config, 0, np.float32)
    parameters = {n: p * 8 if p.ndim > 1 else p for n, p in fresh.items()}  # decided opinions
    model = GPT(config)
    model.load_state_dict({n: torch.from_numpy(p) for n, p in parameters.items()})
    return parameters, model.to(device)


@each_sampler
def test_the_tokens_are_the_numpy_models(options):
    parameters, model = twins()
    options = options | {"max_new_tokens": 12, "stop_tokens": [7, 11, 30]}
    expected = core.generate(parameters, CONFIG, PROMPTS, **options)
    assert generate(model, PROMPTS, **options).token_lists() == expected


def test_on_the_kernels_as_well(device):
    parameters, model = twins(device=device)
    options = {"max_new_tokens": 4, "temperature": 0.7, "seed": 3}
    with launch.backend("triton"), launch.recording() as log:
        actual = generate(model, PROMPTS[:2], **options)
    assert actual.token_lists() == core.generate(parameters, CONFIG, PROMPTS[:2], **options)
    assert {"sampling_kernel", "decode_attention_split_kernel"} <= {e.kernel for e in log}


@each_sampler
def test_log_probs_are_those_of_a_forward_pass(options):
    _, model = twins()
    generated = generate(model, PROMPTS, max_new_tokens=9, **options)
    for row, (prompt, new) in enumerate(zip(PROMPTS, generated.token_lists(), strict=True)):
        with torch.no_grad():
            logits = model.logits(model(torch.tensor([prompt + new[:-1]])))[0, len(prompt) - 1 :]
        scaled = (logits / (options["temperature"] or 1)).log_softmax(dim=-1)
        expected = scaled.gather(1, torch.tensor(new)[:, None])[:, 0]
        torch.testing.assert_close(generated.log_probs[row], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("graphs", [False, True])
def test_readings_are_of_the_states_that_a_forward_pass_finds(graphs):
    _, model = twins()
    direction = torch.linspace(-1, 1, CONFIG.d_model)
    options = {"max_new_tokens": 9, "stop_tokens": [7, 11, 30], "seed": 5, "graphs": graphs}
    generated = generate(model, PROMPTS, read=lambda state: state @ direction, **options)
    assert generated.readings is not None
    for row, (prompt, new) in enumerate(zip(PROMPTS, generated.token_lists(), strict=True)):
        with torch.no_grad():
            expected = model(torch.tensor([prompt + new[:-1]]))[0, len(prompt) - 1 :] @ direction
        actual = generated.readings[row, : len(new)]
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
        assert (generated.readings[row, len(new) :] == 0).all()


def test_batched_is_one_by_one():
    _, model = twins()
    options = {"max_new_tokens": 10, "temperature": 0.0, "stop_tokens": [7, 11, 30]}
    together = generate(model, PROMPTS, **options)
    for row, prompt in enumerate(PROMPTS):
        alone = generate(model, [prompt], **options)
        assert alone.token_lists() == together.token_lists()[row : row + 1]
        n = int(alone.lengths[0])
        torch.testing.assert_close(
            together.log_probs[row, :n], alone.log_probs[0], atol=1e-5, rtol=1e-5
        )


def test_a_part_of_a_batch_draws_what_it_would_in_the_whole():
    _, model = twins()
    options = {"max_new_tokens": 6, "seed": 4}
    whole = generate(model, PROMPTS, **options).token_lists()
    part = generate(model, PROMPTS[1::2], rows=[1, 3], **options).token_lists()
    assert part == whole[1::2]


@each_sampler
def test_steps_of_fixed_shape_say_the_same_and_are_made_anew_at_each_halving(options, monkeypatch):
    _, model = twins()
    made = []
    monkeypatch.setattr(
        generation,
        "DecodeStep",
        lambda m, c, record: made.append(len(c.lengths)) or DecodeStep(m, c, record=record),
    )
    options = options | {"max_new_tokens": 12, "stop_tokens": list(range(0, 61, 2))}
    expected = generate(model, PROMPTS * 3, **options)
    actual = generate(model, PROMPTS * 3, graphs=True, **options)
    assert actual.token_lists() == expected.token_lists()
    torch.testing.assert_close(actual.log_probs, expected.log_probs, rtol=1e-5, atol=1e-5)
    assert made[0] == 12
    assert all(after < before / 2 for before, after in itertools.pairwise(made))


@each_sampler
def test_leaving_the_batch_changes_nothing(options, monkeypatch):
    _, model = twins()
    options = options | {"max_new_tokens": 12, "stop_tokens": list(range(0, 61, 2))}
    at_once, never = [], []
    for share, results in ((0.0, at_once), (1.0, never)):
        monkeypatch.setattr(generation, "LEAVING_SHARE", share)
        sizes = []
        step = BoundStep.__call__

        def counting(bound, tokens, step=step, sizes=sizes):
            sizes.append(len(tokens))
            return step(bound, tokens)

        with monkeypatch.context() as patch:
            patch.setattr(BoundStep, "__call__", counting)
            generated = generate(model, PROMPTS * 3, read=lambda state: state[:, 0], **options)
        results += [*generated[:4], sizes]
    assert torch.equal(at_once[0], never[0])  # the tokens
    for one, other in zip(at_once[1:4], never[1:4], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert min(at_once[4]) < 12 and set(never[4]) == {12}


def test_a_sequence_ends_with_its_stop_token():
    _, model = twins()
    free = generate(model, PROMPTS, max_new_tokens=8, temperature=0.0)
    stop = int(free.tokens[0, 2])
    stopped = generate(model, PROMPTS, max_new_tokens=8, temperature=0.0, stop_tokens=[stop])
    first = free.token_lists()[0]
    assert stopped.token_lists()[0] == first[: first.index(stop) + 1]
    n = int(stopped.lengths[0])
    assert (stopped.tokens[0, n:] == 0).all() and (stopped.log_probs[0, n:] == 0).all()


def test_generating_leaves_the_model_in_its_mode():
    _, model = twins(dataclasses.replace(CONFIG, dropout=0.5))
    model.train()
    first = generate(model, PROMPTS, max_new_tokens=3, temperature=0.0)
    assert model.training
    second = generate(model.eval(), PROMPTS, max_new_tokens=3, temperature=0.0)
    assert not model.training
    assert torch.equal(first.tokens, second.tokens)


def test_no_prompts_no_tokens():
    _, model = twins()
    nothing = generate(model, [], max_new_tokens=3)
    assert nothing.token_lists() == [] and nothing.tokens.shape == (0, 0)


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([[1], []], {}, r"prompts\[1\]: expected at least one token, got none"),
        ([[1] * 38], {}, "max_new_tokens: expected at most n_ctx = 40"),
        ([[1]], {"max_new_tokens": 0}, "max_new_tokens"),
        ([[1]], {"temperature": -1.0}, "temperature"),
        ([[61]], {}, "tokens"),
    ],
)
def test_bad_input_is_refused(prompts, options, message):
    _, model = twins()
    with pytest.raises(ValueError, match=message):
        generate(model, prompts, **{"max_new_tokens": 3} | options)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_model_that_is_not_finite_is_named(steps):
    _, model = twins()
    model.ln_f.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match=r"^model: expected finite logits, got none .* prompt 0"):
        generate(model, PROMPTS, max_new_tokens=steps)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_one_prompt_s_logits_that_are_not_finite_are_named_when_others_have_left(
    share, monkeypatch
):
    _, model = twins()
    monkeypatch.setattr(generation, "LEAVING_SHARE", share)

    def draw(logits, *, step, rows, **_):
        """End prompts 0 and 1 at once; then prompt 3 has nothing to draw from."""
        tokens = torch.where(rows < 2, 7, 8) if step == 0 else torch.where(rows == 3, -1, 8)
        return tokens, torch.zeros(len(rows))

    monkeypatch.setattr(generation, "sampling", draw)
    with pytest.raises(ValueError, match=r"none to draw from for prompt 3 at step 1"):
        generate(model, PROMPTS, max_new_tokens=3, stop_tokens=[7])


def test_each_part_of_a_model_keeps_its_mode():
    """A part that is frozen, or whose dropout is switched off, stays so, though others train."""
    model = GPT(CONFIG).train()
    model.h[0].eval()
    before = {name: module.training for name, module in model.named_modules()}
    assert set(before.values()) == {True, False}
    seen = []
    model.register_forward_pre_hook(
        lambda *_: seen.append(any(m.training for m in model.modules()))
    )
    generate(model, PROMPTS, max_new_tokens=2)
    assert seen == [False]
    assert {name: module.training for name, module in model.named_modules()} == before
    with pytest.raises(ValueError, match="prompt"):
        generate(model, [[]], max_new_tokens=2)
    assert {name: module.training for name, module in model.named_modules()} == before


# --- a hook between the model and the draw -------------------------------------------------------


@pytest.mark.parametrize("graphs", [False, True])
def test_what_a_hook_forbids_is_never_drawn_and_log_probs_are_the_hooks(graphs):
    _, model = twins()
    forbidden = torch.arange(CONFIG.vocab_size) % 2 == 0

    def odd(state, logits):
        assert state.shape == (len(logits), CONFIG.d_model)
        return logits.masked_fill(forbidden, -torch.inf)

    options = {"max_new_tokens": 9, "seed": 5, "stop_tokens": [7, 11], "graphs": graphs}
    said = generate(model, PROMPTS, logits_hook=odd, **options)
    assert said.log_probs_of == "hook"
    for row, (prompt, new) in enumerate(zip(PROMPTS, said.token_lists(), strict=True)):
        assert all(token % 2 for token in new)
        with torch.no_grad():
            states = model(torch.tensor([prompt + new[:-1]]))[0, len(prompt) - 1 :]
            log_p = odd(states, model.logits(states)).log_softmax(-1)
        expected = log_p.gather(1, torch.tensor(new)[:, None])[:, 0]
        torch.testing.assert_close(said.log_probs[row, : len(new)], expected, atol=1e-5, rtol=1e-5)


def test_a_hook_that_changes_nothing_leaves_the_tokens_and_their_log_probs():
    _, model = twins()
    options = {"max_new_tokens": 6, "seed": 5}
    plain = generate(model, PROMPTS, **options)
    hooked = generate(model, PROMPTS, logits_hook=lambda state, logits: logits, **options)
    assert plain.log_probs_of == "model"
    assert torch.equal(plain.tokens, hooked.tokens)
    assert torch.equal(plain.log_probs, hooked.log_probs)


def test_a_hook_of_another_shape_is_refused():
    _, model = twins()
    with pytest.raises(ValueError, match=r"^logits_hook: expected logits of shape \(4, 61\)"):
        generate(model, PROMPTS, max_new_tokens=2, logits_hook=lambda s, logits: logits[:, 1:])
