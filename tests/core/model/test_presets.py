"""The published models: every count is an integer that can be looked up."""

import dataclasses

import numpy as np
import pytest
import torch

from gptwin.core.model.footprint import kv_cache_bytes, training_memory
from gptwin.core.model.presets import (
    PRESETS,
    GPTConfig,
    attention_pairs,
    count_shapes,
    flops_per_sequence,
    parameter_count,
    parameter_shapes,
    preset,
    training_flops_per_sequence,
)

PARAMETERS = {
    "gpt1": 116_534_784,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "gpt3-125m": 125_226_240,
    "gpt3-350m": 355_871_744,
    "gpt3-760m": 760_300_032,
    "gpt3-1.3b": 1_315_723_264,
    "gpt3-2.7b": 2_651_553_280,
    "gpt3-6.7b": 6_658_404_352,
    "gpt3-13b": 12_853_386_240,
    "gpt3-175b": 174_604_259_328,
    "bert-base": 109_482_240,
}

FORWARD_FLOPS = {
    "gpt2": 291_648_307_200,
    "gpt2-medium": 826_951_073_792,
    "gpt2-large": 1_774_570_700_800,
    "gpt2-xl": 3_506_703_564_800,
}

# nanoGPT's model for Shakespeare on a CPU.
SHAKESPEARE = GPTConfig(65, 64, 4, 4, 128, bias=False)


def test_every_preset_is_counted():
    assert PARAMETERS.keys() == PRESETS.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_counted_three_ways(name):
    """By the closed form, by the shapes, and by torch's meta device, which allocates nothing."""
    shapes = parameter_shapes(PRESETS[name])
    allocated = sum(torch.empty(shape, device="meta").numel() for shape in shapes.values())
    assert parameter_count(PRESETS[name]) == PARAMETERS[name]
    assert count_shapes(shapes) == allocated == PARAMETERS[name]


@pytest.mark.parametrize(
    "changes",
    [{}, {"bias": False}, {"tied": False}, {"norm": "post"}, {"d_head": 5},
     {"n_types": 3, "pooler": True}, {"n_types": 3, "pooler": True, "bias": False}],
)  # fmt: skip
def test_the_closed_form_holds_for_any_configuration(changes):
    config = GPTConfig(17, 9, 3, 4, 24, **changes)
    arrays = {name: np.empty(shape) for name, shape in parameter_shapes(config).items()}
    assert parameter_count(config) == sum(array.size for array in arrays.values())


def test_the_model_for_shakespeare_has_the_size_that_nanogpt_prints():
    assert parameter_count(SHAKESPEARE) == 804_096


@pytest.mark.parametrize("name", PRESETS)
def test_heads_fill_the_width(name):
    """The paper prints 24 heads of 128 in 2048 for 1.3B, and 5140 for 13B: neither fits."""
    config = PRESETS[name]
    assert config.n_head * config.d_head == config.d_attention == config.d_model


@pytest.mark.parametrize("name", FORWARD_FLOPS)
def test_forward_flops(name):
    assert flops_per_sequence(PRESETS[name]) == FORWARD_FLOPS[name]
    assert training_flops_per_sequence(PRESETS[name]) == 3 * FORWARD_FLOPS[name]


def test_forward_flops_of_what_a_causal_kernel_needs():
    assert flops_per_sequence(PRESETS["gpt2"], exact=True) == 272_339_828_736


def test_flops_of_the_training_step_that_is_timed_on_the_cpu():
    """Batch 4, T = 64: 191.56 GFLOP."""
    assert 4 * training_flops_per_sequence(PRESETS["gpt2"], 64) == pytest.approx(191.56e9, rel=1e-4)


def test_recomputed_attention_costs_two_and_a_half_forwards():
    config = PRESETS["gpt2"]
    extra = training_flops_per_sequence(
        config, recomputed_attention=True
    ) - training_flops_per_sequence(config)
    assert extra == 12 * 4 * 768 * 1024**2 // 2


@pytest.mark.parametrize("time", [1, 5, 8])
@pytest.mark.parametrize("window", [None, 1, 3, 5, 100])
def test_pairs_are_those_of_the_mask(time, window):
    i, j = np.arange(time)[:, None], np.arange(time)
    seen = (j <= i) & (j > i - (window or time))
    assert attention_pairs(time, window=window) == seen.sum()
    assert attention_pairs(time, causal=False) == time**2


def test_gpt3_alternates_dense_and_banded_layers():
    config = preset("gpt3-125m", band=100)
    assert [config.window(layer) for layer in range(4)] == [None, 100, None, 100]
    assert parameter_count(config) == PARAMETERS["gpt3-125m"]
    assert preset("gpt3-125m", band=None).window(1) is None
    exact, dense = flops_per_sequence(config, exact=True), flops_per_sequence(config)
    spared = 12 * 2048**2 - 6 * (attention_pairs(2048) + attention_pairs(2048, window=100))
    assert dense - exact == 4 * 768 * spared


def test_kv_cache():
    """GPT-2 in bfloat16: 36,864 bytes a token."""
    assert kv_cache_bytes(PRESETS["gpt2"], time=1) == 36_864
    assert kv_cache_bytes(PRESETS["gpt2"], 3, itemsize=4) == 2 * 12 * 3 * 1024 * 768 * 4


def test_training_memory():
    memory = training_memory(PRESETS["gpt2"], 4, 64)
    assert memory.parameters == memory.gradients == memory.moments / 2 == 4 * 124_439_808
    assert memory.activations == 4 * 256 * (12 * (16 * 768 + 12) + 2 * 768)
    assert memory.logits == 0 and memory.total == sum(memory)
    held = training_memory(PRESETS["gpt2"], 4, 64, fused_loss=False)
    assert held.logits == 4 * 256 * 50257


@pytest.mark.parametrize("name", ["ChatGPT", "gpt-3.5-turbo", "gpt-4", "gpt_4o"])
def test_unpublished_architectures_are_refused(name):
    with pytest.raises(ValueError, match=r"name: expected one of gpt1, .*unpublished"):
        preset(name)


def test_names_are_forgiving_and_hints_are_given():
    assert preset("GPT2_Medium") is not None
    assert preset("gpt1", dropout=0.0) == dataclasses.replace(PRESETS["gpt1"], dropout=0.0)
    assert preset("gpt2", n_head=6).d_head == 128 and preset("gpt2", d_head=32).d_head == 32
    with pytest.raises(ValueError, match="InstructGPT is GPT-3"):
        preset("instructgpt")
    with pytest.raises(ValueError, match=r"name: expected one of .*, got 'gpt9'"):
        preset("gpt9")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layer": 0}, "n_layer: expected a finite number above 0"),
        ({"d_model": 25}, "d_model: expected a multiple of n_head = 4, got 25"),
        ({"norm": "none"}, "norm: expected 'pre' or 'post'"),
        ({"activation": "relu"}, "activation: expected 'gelu_tanh' or 'gelu_erf'"),
        ({"band": 4, "causal": False}, "band: expected None unless causal"),
        ({"band": 0}, "band: expected a finite number above 0"),
        ({"dropout": 1.0}, "dropout: expected a share"),
        ({"d_head": -1}, "d_head: expected a finite number above 0"),
    ],
)
def test_impossible_configurations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(GPTConfig(17, 9, 3, 4, 24, d_head=0), **({"d_head": 0} | changes))


def test_a_sequence_longer_than_the_context_is_refused():
    with pytest.raises(ValueError, match="time: expected 1 to n_ctx = 1024, got 1025"):
        flops_per_sequence(PRESETS["gpt2"], 1025)


@pytest.mark.parametrize("name", ["vocab_size", "n_ctx", "n_layer", "n_head", "d_model", "d_head"])
def test_a_count_that_is_no_integer_is_refused_at_once(name):
    sizes = {"vocab_size": 9, "n_ctx": 8, "n_layer": 2, "n_head": 2, "d_model": 8}
    with pytest.raises(ValueError, match=f"{name}: expected an integer, got 8.0"):
        GPTConfig(**(sizes | {name: 8.0}))
    GPTConfig(**(sizes | {name: np.int64(8)}))
