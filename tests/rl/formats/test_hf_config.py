"""config.json says what GPTConfig says, and what GPT-2 is not is refused."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwin.core.model.presets import PRESETS, GPTConfig
from gptwin.rl.formats.hf_config import config_json, read_config

CONFIG = GPTConfig(vocab_size=300, n_ctx=16, n_layer=2, n_head=2, d_model=8)
# What GPTConfig can say and Hugging Face's GPT-2 cannot.
OWN = [
    {"band": 4},
    {"bias": False},
    {"norm": "post"},
    {"d_head": 3},
    {"causal": False, "n_types": 2, "pooler": True},
]


@given(
    changes=st.fixed_dictionaries(
        {
            "n_layer": st.integers(1, 99),
            "eps": st.floats(1e-12, 1e-3),
            "tied": st.booleans(),
            "dropout": st.floats(0, 0.99),
            "activation": st.sampled_from(["gelu_tanh", "gelu_erf"]),
        }
    ),
    own=st.sampled_from([{}, *OWN]),
)
def test_config_json_says_all_that_a_configuration_says(tmp_path_factory, changes, own):
    config = dataclasses.replace(CONFIG, **changes, **{"d_head": 0, **own})
    path = tmp_path_factory.mktemp("config") / "config.json"
    path.write_text(config_json(config, None))
    assert read_config(path) == config
    assert json.loads(path.read_text())["model_type"] == ("gptwin" if own else "gpt2")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_written(tmp_path, name):
    path = tmp_path / "config.json"
    path.write_text(config_json(PRESETS[name], None))
    assert read_config(path) == PRESETS[name]
    ours = not name.startswith("gpt2")
    assert json.loads(path.read_text())["model_type"] == ("gptwin" if ours else "gpt2")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(config_json(CONFIG, None))
    return path


def test_the_released_file_of_gpt2(path):
    """As Hugging Face published it in 2019: without most of today's entries, and with n_ctx."""
    path.write_text("""{
      "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"],
      "attn_pdrop": 0.1, "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256,
      "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gpt2",
      "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
      "resid_pdrop": 0.1, "summary_use_proj": true, "vocab_size": 50257}""")
    assert read_config(path) == dataclasses.replace(PRESETS["gpt2"], dropout=0.1)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"model_type": "llama"}, "model_type: expected 'gpt2', got 'llama'"),
        ({"n_embd": 9}, "d_model: expected a multiple of n_head"),
        ({"n_embd": "8"}, "config.json"),
        ({"n_inner": 16}, "n_inner: expected null or 4 · n_embd = 32, got 16"),
        ({"activation_function": "relu"}, "activation_function: expected one of gelu_new"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx: expected"),
        ({"scale_attn_weights": False}, "scale_attn_weights: expected True"),
        ({"add_cross_attention": True}, "add_cross_attention: expected False"),
        ({"resid_pdrop": 0.3}, "resid_pdrop, embd_pdrop, attn_pdrop: expected the same"),
        ({"gptwin": {"colour": 1}}, "colour"),
    ],
)
def test_what_would_be_computed_differently_is_refused(path, entries, message):
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))
    with pytest.raises(ValueError) as error:
        read_config(path)
    assert str(error.value).startswith(str(path)) and message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model_type": "gpt2"}', "config.json: expected the entry 'n_embd'"),
        ('{"model_type": ', "config.json: expected JSON.*cut short"),
        ("[]", "config.json: expected a JSON object, got list"),
        (None, "config.json: expected a file, got nothing there"),
    ],
)
def test_a_damaged_file_is_refused(path, content, message):
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_config(path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"n_layer": 2.0}, r"n_layer: expected a whole number, got 2\.0"),
        ({"n_layer": 10**9}, r"n_layer: expected from 1 to 10,000, got 1,000,000,000"),
        ({"n_head": True}, r"n_head: expected a whole number, got True"),
        ({"vocab_size": "300"}, r"vocab_size: expected a whole number, got '300'"),
        ({"n_positions": -1}, r"n_positions: expected from 1"),
        ({"layer_norm_epsilon": "1e-5"}, r"layer_norm_epsilon: expected a number"),
    ],
)
def test_sizes_that_are_none_are_refused_at_once(path, entries, message):
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))
    with pytest.raises(ValueError, match=message):
        read_config(path)


def test_an_entry_that_is_there_twice_is_refused(path):
    path.write_text('{"n_layer": 1,' + path.read_text().lstrip()[1:])
    with pytest.raises(ValueError, match=r"n_layer: expected one entry, got two"):
        read_config(path)
