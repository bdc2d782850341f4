"""OpenAI's names, from an .npz: the same parameters, and nothing pickled."""

import json
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch

from gptwin.core.model.presets import GPTConfig, parameter_shapes
from gptwin.rl.formats.openai_weights import load_openai
from gptwin.rl.formats.weights import load_gpt2

CONFIG = GPTConfig(vocab_size=300, n_ctx=16, n_layer=2, n_head=2, d_model=8)
PARAMETERS = {
    name: np.random.default_rng(i).normal(size=shape).astype(np.float32)
    for i, (name, shape) in enumerate(parameter_shapes(CONFIG).items())
}


def refused(path, *parts):
    """Whether loading is refused with these words, in this order."""
    with pytest.raises(ValueError, match="(?s)" + ".*".join(map(re.escape, parts))):
        load_openai(path)


def write_openai(path, config, parameters):
    def theirs(name):
        name = re.sub(r"^h\.(\d+)\.", r"h\1/", name).replace(".", "/")
        name = re.sub("^w([tp])e/weight$", r"w\1e", name)
        name = re.sub("(ln_.)/weight$", r"\1/g", name)
        return "model/" + re.sub("/weight$", "/w", name).replace("/bias", "/b")

    def stored(name, array):
        return array[None] if "c_" in name and array.ndim == 2 else array

    np.savez(path, **{theirs(name): stored(name, a) for name, a in parameters.items()})
    hparams = {
        "n_vocab": config.vocab_size,
        "n_ctx": config.n_ctx,
        "n_embd": config.d_model,
        "n_head": config.n_head,
        "n_layer": config.n_layer,
    }
    path.with_name("hparams.json").write_text(json.dumps(hparams))


@pytest.fixture
def openai(tmp_path):
    write_openai(tmp_path / "model.npz", CONFIG, PARAMETERS)
    return tmp_path / "model.npz"


def test_openais_names(openai):
    with np.load(openai) as arrays:
        assert arrays["model/h0/attn/c_attn/w"].shape == (1, 8, 24)
        assert {"model/wte", "model/ln_f/g", "model/h1/mlp/c_proj/b"} <= set(arrays)
    config, loaded = load_gpt2(openai)
    assert config == CONFIG and list(loaded) == list(PARAMETERS)
    assert all(np.array_equal(loaded[name], PARAMETERS[name]) for name in PARAMETERS)
    _, tensors = load_gpt2(openai, framework="torch", dtype="float64")
    assert tensors["h.1.mlp.c_fc.weight"].dtype == torch.float64


def test_a_bad_npz_is_refused(openai):
    whole = openai.read_bytes()
    openai.write_bytes(whole[:-100])
    refused(openai, "expected a whole .npz", "cut short")
    openai.write_bytes(pickle.dumps({"wte": 1}))
    refused(openai, "expected a whole .npz", "a pickle is a program")
    np.savez(openai, **{"model/wte": np.array([{}, None], dtype=object)})
    refused(openai, "model/wte: expected an array of numbers, got pickled objects", "program")
    np.savez(openai, **{"transformer/wte": np.ones((300, 8))})
    refused(openai, "expected names that begin with model/, got 'transformer/wte'")
    np.savez(openai, **{"model/wte": np.ones((8, 300))})
    refused(openai, "wte.weight: expected shape (300, 8), got shape (8, 300)", "transpose")
    with zipfile.ZipFile(openai, "w") as archive:
        archive.writestr("model/wte.npy", b"nonsense")
    refused(openai, "model/wte: expected an array as NumPy writes it")


def test_an_npz_with_damaged_numbers_names_the_tensor(openai):
    whole = bytearray(openai.read_bytes())
    with zipfile.ZipFile(openai) as archive:
        at = archive.getinfo("model/wpe.npy").header_offset + 300
    whole[at] ^= 0xFF
    openai.write_bytes(whole)
    refused(openai, "model/wpe: expected an array as NumPy writes it", "CRC", "damaged")


def test_an_npz_needs_hparams(openai):
    hparams = openai.with_name("hparams.json")
    hparams.write_text('{"n_vocab": 300}')
    refused(openai, "hparams.json: expected the entry 'n_ctx'")
    hparams.unlink()
    refused(openai, "hparams.json: expected a file, got nothing there")
    refused(openai.with_name("other.npz"), "other.npz: expected a file, got nothing there")


def test_large_arrays_are_checked_as_they_are_read(tmp_path):
    """Of a large array the header is read first; the check sum stands at its end."""
    config = GPTConfig(vocab_size=9000, n_ctx=16, n_layer=1, n_head=2, d_model=8)
    shapes = parameter_shapes(config)
    write_openai(tmp_path / "model.npz", config, {n: np.ones(s) for n, s in shapes.items()})
    whole = bytearray((tmp_path / "model.npz").read_bytes())
    whole[50_000] ^= 0x01
    (tmp_path / "model.npz").write_bytes(whole)
    refused(tmp_path / "model.npz", "model/wte: expected numbers that can be read", "CRC")


def test_a_configuration_can_be_given(openai):
    openai.with_name("hparams.json").unlink()
    assert load_openai(openai, config=CONFIG)[0] == CONFIG
