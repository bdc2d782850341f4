"""GPT-2's weights from and to files: every layout alike, nothing run, nothing guessed."""

import dataclasses
import json
import os
import pickle
import re
import resource

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gptwin.core.model.presets import GPTConfig, parameter_shapes
from gptwin.rl.formats.tensors import DTYPES
from gptwin.rl.formats.tokenizer import Tokenizer
from gptwin.rl.formats.tokenizer_files import END_OF_TEXT
from gptwin.rl.formats.weights import load_gpt2, save_gpt2

CONFIG = GPTConfig(vocab_size=300, n_ctx=16, n_layer=2, n_head=2, d_model=8)
# What GPTConfig can say and Hugging Face's GPT-2 cannot.
OWN = [
    {"band": 4},
    {"bias": False},
    {"norm": "post"},
    {"d_head": 3},
    {"causal": False, "n_types": 2, "pooler": True},
]


def random_parameters(config, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in parameter_shapes(config).items()
    }


def equal(first, second):
    return list(first) == list(second) and all(np.array_equal(first[n], second[n]) for n in first)


@pytest.fixture
def saved(tmp_path):
    save_gpt2(tmp_path, CONFIG, random_parameters(CONFIG))
    return tmp_path


def rewrite(directory, change, **config):
    """Change the tensors of a saved model (a function of the dict), and entries of config.json."""
    tensors = load_file(directory / "model.safetensors")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    tensors = change(tensors) or tensors
    save_file(
        {name: t.contiguous() for name, t in tensors.items()}, directory / "model.safetensors"
    )
    edit_config(directory, **config)


def edit_config(directory, **entries):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def refused(directory, *parts, **options):
    """Whether loading is refused with these words, in this order."""
    with pytest.raises(ValueError) as error:
        load_gpt2(directory, **options)
    message = str(error.value)
    assert re.search(".*".join(map(re.escape, parts)), message, re.S), message


# --- there and back --------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"dropout": 0.25, "eps": 1e-6}, *OWN])
def test_what_is_saved_is_loaded(tmp_path, changes):
    config = dataclasses.replace(CONFIG, **{"d_head": 0, **changes})
    parameters = random_parameters(config)
    save_gpt2(tmp_path / "new", config, parameters)
    loaded_config, loaded = load_gpt2(tmp_path / "new")
    assert loaded_config == config
    assert equal(loaded, parameters)
    assert all(array.dtype == np.float32 and array.flags.writeable for array in loaded.values())


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_parameters_in_every_dtype(tmp_path, dtype):
    parameters = {n: torch.from_numpy(a) for n, a in random_parameters(CONFIG).items()}
    parameters = {n: t.to(getattr(torch, dtype)) for n, t in parameters.items()}
    save_gpt2(tmp_path, CONFIG, parameters)
    _, loaded = load_gpt2(tmp_path, framework="torch", dtype=dtype)
    assert all(torch.equal(loaded[n], parameters[n]) for n in parameters)
    assert {t.dtype for t in loaded.values()} == {getattr(torch, dtype)}
    # bfloat16 too becomes float32 exactly, in NumPy, which has no bfloat16.
    _, arrays = load_gpt2(tmp_path)
    assert all(np.array_equal(arrays[n], parameters[n].float().numpy()) for n in parameters)


def test_parameters_of_a_module_are_saved(tmp_path):
    """They want gradients, may be views of one buffer, and may have other strides."""
    shapes = parameter_shapes(CONFIG)
    flat = torch.randn(sum(int(np.prod(shape)) for shape in shapes.values()), requires_grad=True)
    views = dict(zip(shapes, flat.split([int(np.prod(s)) for s in shapes.values()]), strict=True))
    views = {name: view.view(shapes[name]) for name, view in views.items()}
    views["wte.weight"] = torch.randn(8, 300).T
    save_gpt2(tmp_path, CONFIG, views)
    _, loaded = load_gpt2(tmp_path, framework="torch")
    assert all(torch.equal(loaded[name], view) for name, view in views.items())


def test_a_head_that_begins_as_the_token_table_is_saved(tmp_path):
    """Untied, though for now they are one memory, and again where the loaded ones are not."""
    untied = dataclasses.replace(CONFIG, tied=False)
    parameters = {n: torch.from_numpy(a) for n, a in random_parameters(untied).items()}
    parameters["lm_head.weight"] = parameters["wte.weight"]
    save_gpt2(tmp_path, untied, parameters)
    _, loaded = load_gpt2(tmp_path, framework="torch")
    assert torch.equal(loaded["lm_head.weight"], parameters["wte.weight"])
    assert loaded["lm_head.weight"].data_ptr() != loaded["wte.weight"].data_ptr()


def test_large_numbers_are_not_taken_for_infinite(tmp_path):
    """Their sum is infinite; they are not."""
    parameters = random_parameters(CONFIG)
    parameters["wte.weight"][:] = 3e38
    save_gpt2(tmp_path, CONFIG, parameters)
    assert equal(load_gpt2(tmp_path)[1], parameters)


def test_the_loaded_arrays_outlive_the_file(saved):
    _, loaded = load_gpt2(saved)
    with (saved / "model.safetensors").open("r+b") as file:
        file.write(b"\0" * os.path.getsize(saved / "model.safetensors"))
    assert equal(loaded, random_parameters(CONFIG))


def test_the_names_in_the_file_are_hugging_faces(tmp_path):
    untied = dataclasses.replace(CONFIG, tied=False)
    save_gpt2(tmp_path, untied, random_parameters(untied))
    names = {f"transformer.{name}" for name in parameter_shapes(CONFIG)} | {"lm_head.weight"}
    assert set(load_file(tmp_path / "model.safetensors")) == names


def test_a_tokenizer_is_saved_beside_the_weights(tmp_path):
    tokenizer = Tokenizer.train(["the cat"] * 2, 300)
    save_gpt2(tmp_path, CONFIG, random_parameters(CONFIG), tokenizer)
    assert Tokenizer.load(tmp_path).encode("the cat") == tokenizer.encode("the cat")
    end = tokenizer.special_tokens[END_OF_TEXT]
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == end
    small = dataclasses.replace(CONFIG, vocab_size=200)
    with pytest.raises(ValueError, match="tokenizer: expected at most the model's 200 ids"):
        save_gpt2(tmp_path, small, random_parameters(small), tokenizer)


# --- the layouts -----------------------------------------------------------------------------


def test_without_the_prefix_and_with_old_buffers(saved):
    def old(tensors):
        old = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
        for layer in range(2):
            old[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 16, 16, dtype=torch.bool)
            old[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
        return old

    rewrite(saved, old)
    assert equal(load_gpt2(saved)[1], random_parameters(CONFIG))


def test_a_tied_head_may_be_there_if_it_is_equal(saved):
    def add_head(tensors):
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()

    rewrite(saved, add_head)
    config, loaded = load_gpt2(saved)
    assert config.tied and equal(loaded, random_parameters(CONFIG))
    # Called untied it is a parameter of its own, though it begins equal.
    edit_config(saved, tie_word_embeddings=False)
    config, loaded = load_gpt2(saved)
    assert not config.tied
    assert np.array_equal(loaded["lm_head.weight"], loaded["wte.weight"])


def test_a_tied_head_that_differs_is_refused(saved):
    def add_head(tensors):
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"] + 1

    rewrite(saved, add_head)
    refused(saved, "lm_head.weight: expected the same numbers", "tie_word_embeddings false")
    edit_config(saved, tie_word_embeddings=False)
    loaded = load_gpt2(saved)[1]
    assert np.array_equal(loaded["lm_head.weight"], loaded["wte.weight"] + 1)


def shard(directory):
    """Cut a saved model into two files and an index."""
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    weight_map = {name: files[i % 2] for i, name in enumerate(tensors)}
    for file in files:
        save_file({n: t for n, t in tensors.items() if weight_map[n] == file}, directory / file)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index, files


def test_sharded_files(saved):
    index, files = shard(saved)
    assert equal(load_gpt2(saved)[1], random_parameters(CONFIG))
    whole = index.read_text()

    (saved / files[1]).rename(saved / "elsewhere")
    refused(saved, f"{files[1]}: expected a file, got nothing there", "not finished")
    (saved / "elsewhere").rename(saved / files[1])

    index.write_text(whole.replace(files[0], "../" + files[0]))
    refused(saved, "index.json: expected names of files beside it")
    index.write_text(whole.replace(files[0], files[1]))
    refused(saved, files[1], "expected there, says the index", "two different saves")
    index.write_text("{}")
    refused(saved, "index.json: expected an entry weight_map")


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "consolidated.00.pth", "x.pt", "x.ckpt", "model.ckpt.index"]
)
def test_a_pickle_is_never_loaded(saved, name):
    class Harm:
        def __reduce__(self):
            return (os._exit, (77,))

    (saved / "model.safetensors").unlink()
    (saved / name).write_bytes(pickle.dumps(Harm()))
    refused(saved, f"expected model.safetensors, got only {name}", "a pickle is a program")
    if not name.endswith(".index"):
        refused(saved / name, "got a pickle", "a pickle is a program")
    # Nor under the name of the other format.
    (saved / name).rename(saved / "model.safetensors")
    refused(saved, "model.safetensors: expected a whole safetensors file", "a pickle is a program")


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "cut short"),
        (b"<!DOCTYPE html><html>Not found</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(60), "a pickle under another name"),
    ],
)
def test_a_file_that_is_no_safetensors_is_refused_with_its_cause(saved, content, cause):
    (saved / "model.safetensors").write_bytes(content)
    refused(saved, "model.safetensors: expected a whole", f"{len(content)} bytes", cause)


@pytest.mark.parametrize("share", [0.0001, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_refused(saved, share):
    whole = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(whole[: int(len(whole) * share)])
    refused(saved, "model.safetensors: expected a whole safetensors file", "cut short")


QKV = "transformer.h.1.attn.c_attn.weight"


def transpose(tensors):
    tensors[QKV] = tensors[QKV].T


def rename(old, new):
    return lambda tensors: {
        re.sub(f"^{old}", new, name): tensor for name, tensor in tensors.items()
    }


def drop(tensors):
    del tensors[QKV]


def add(name):
    def change(tensors):
        tensors[name] = torch.zeros(3)

    return change


def fill(value):
    def change(tensors):
        tensors[QKV][1, 2] = value

    return change


def integers(tensors):
    tensors[QKV] = tensors[QKV].to(torch.int8)


def cut(name, rows):
    def change(tensors):
        tensors[name] = tensors[name][:rows]

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (transpose, ["h.1.attn.c_attn.weight: expected shape (8, 24), got shape (24, 8)",
                     "torch.nn.Linear"]),
        (cut(QKV, 4), ["h.1.attn.c_attn.weight: expected shape (8, 24), got shape (4, 24)",
                       "different models"]),
        (cut("transformer.wte.weight", 90), ["wte.weight", "(90, 8)", "vocab_size"]),
        (cut("transformer.wpe.weight", 9), ["wpe.weight", "(9, 8)", "n_positions"]),
        (drop, ["h.1.attn.c_attn.weight: expected shape (8, 24), got no such tensor",
                "cut out of a larger one"]),
        (rename("transformer.h.1.attn.c_attn", "transformer.h.1.attn.qkv"),
         ["h.1.attn.c_attn.weight", "no such tensor, but 'h.1.attn.qkv.bias', which", "renamed"]),
        (rename("", "_orig_mod."), ["wte.weight", "_orig_mod.", "compiled model"]),
        (rename("", "module."), ["wte.weight", "module.", "data-parallel"]),
        (rename("transformer", "model"), ["wte.weight", "model.", "another architecture"]),
        (add("score.weight"), ["expected the 28 tensors", "1 more, such as 'score.weight'",
                               "further head"]),
        (add("transformer.h.2.ln_1.bias"), ["1 more, such as 'h.2.ln_1.bias'", "fewer layers"]),
        (add("wte.weight"), ["wte.weight: expected one tensor, got it with and without prefix"]),
        (fill(float("nan")), ["h.1.attn.c_attn.weight: expected finite numbers, got 1 inf",
                              "diverged"]),
        (integers, ["h.1.attn.c_attn.weight: expected floating-point numbers, got torch.int8"]),
    ],
)  # fmt: skip
def test_a_wrong_tensor_is_named_with_the_likely_cause(saved, change, words):
    rewrite(saved, change)
    refused(saved, *words)


def test_numbers_too_large_for_the_dtype_are_refused(saved):
    rewrite(saved, fill(1e5))
    load_gpt2(saved, framework="torch", dtype="bfloat16")
    refused(saved, "h.1.attn.c_attn.weight: expected finite numbers", "too large for float16",
            dtype="float16")  # fmt: skip


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"n_layer": 1}, ["h.1.", "fewer layers"]),
        ({"n_layer": 3}, ["h.2.ln_1.weight", "no such tensor", "larger model"]),
        ({"tie_word_embeddings": False}, ["lm_head.weight", "tie_word_embeddings false"]),
        ({"model_type": "llama"}, ["config.json: model_type: expected 'gpt2', got 'llama'"]),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(saved, entries, words):
    edit_config(saved, **entries)
    refused(saved, *words)


def test_a_wrong_path_is_refused(saved, tmp_path):
    refused(tmp_path / "nowhere", "expected a directory with config.json", "nothing there")
    refused(saved / "model.safetensors", "got a file", "directory that holds it")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "expected model.safetensors", "got nothing")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"framework": "jax"}, "framework: expected one of numpy, torch, got 'jax'"),
        ({"dtype": "fp16"}, "dtype: expected one of float32"),
        ({"dtype": "bfloat16"}, "dtype: expected one that NumPy has"),
    ],
)
def test_a_wrong_option_is_refused(saved, options, message):
    refused(saved, message, **options)


# --- saving ----------------------------------------------------------------------------------


def test_parameters_of_another_model_are_not_saved(tmp_path):
    parameters = random_parameters(CONFIG)
    parameters["h.0.mlp.c_fc.weight"] = parameters["h.0.mlp.c_fc.weight"].T
    with pytest.raises(ValueError, match=r"parameters: h\.0\.mlp\.c_fc\.weight.*transpose"):
        save_gpt2(tmp_path / "x", CONFIG, parameters)
    assert not (tmp_path / "x").exists()


def test_a_save_that_is_cut_off_leaves_the_old_model(saved, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gptwin.rl.formats.weights.save_tensors", full)
    larger = dataclasses.replace(CONFIG, n_layer=3)
    with pytest.raises(OSError, match="No space left"):
        save_gpt2(saved, larger, random_parameters(larger))
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_file_that_becomes_too_large_is_an_error_of_the_system(saved):
    """As on a full disk, of which the library that writes tensors makes an error of its own."""
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match=r"cannot be written: File too large: '.*model\.safetens"):
            save_gpt2(saved, CONFIG, random_parameters(CONFIG))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_save_replaces_the_files_in_one_step(saved, monkeypatch):
    """Whoever opened the old file goes on reading it whole."""
    with (saved / "model.safetensors").open("rb") as old:
        whole = (saved / "model.safetensors").read_bytes()
        save_gpt2(saved, CONFIG, random_parameters(CONFIG, seed=1))
        assert old.read() == whole
    assert equal(load_gpt2(saved)[1], random_parameters(CONFIG, seed=1))
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]


# --- transformers ----------------------------------------------------------------------------


@pytest.fixture
def transformers(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("transformers")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard_size", ["1GB", "3KB"])
def test_a_model_of_transformers_is_loaded(transformers, tmp_path, tied, shard_size):
    their_config = transformers.GPT2Config(
        vocab_size=30, n_positions=16, n_embd=8, n_layer=2, n_head=2, bos_token_id=0,
        eos_token_id=0, tie_word_embeddings=tied,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(their_config)
    model.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors").exists() == (shard_size == "1GB")
    config, loaded = load_gpt2(tmp_path, framework="torch")
    assert config == GPTConfig(30, 16, 2, 2, 8, dropout=0.1, tied=tied)
    state = {n.removeprefix("transformer."): t for n, t in model.state_dict().items()}
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.items())
    assert set(state) - set(loaded) == ({"lm_head.weight"} if tied else set())


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_loads_what_is_saved(transformers, tmp_path, tied):
    config = dataclasses.replace(CONFIG, tied=tied)
    parameters = random_parameters(config)
    save_gpt2(tmp_path, config, parameters, Tokenizer.train(["a b"], 257))
    model, report = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    state = {n.removeprefix("transformer."): t for n, t in model.state_dict().items()}
    assert all(np.array_equal(state[name], array) for name, array in parameters.items())
    head = parameters["wte.weight" if tied else "lm_head.weight"]
    assert np.array_equal(state["lm_head.weight"], head)
    assert model.config.eos_token_id == 256


def test_transformers_does_not_take_a_model_it_would_compute_wrongly(transformers, tmp_path):
    config = dataclasses.replace(CONFIG, band=4)
    save_gpt2(tmp_path, config, random_parameters(config))
    with pytest.raises(ValueError, match="gptwin"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
