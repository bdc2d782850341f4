"""From a GPT-2 that others saved to a model that chats, on preferences as they lie."""

import contextlib
import dataclasses
import io
import json

import hh
import pytest
import tiny
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, processors

from gptwin.core.model.presets import GPTConfig
from gptwin.kernels.model.gpt import GPT
from gptwin.rl.continuation import continue_text
from gptwin.rl.data.dialogue import END, Message, Template
from gptwin.rl.formats.hf_config import read_config
from gptwin.rl.formats.tokenizer import Tokenizer
from gptwin.rl.formats.tokenizer_files import END_OF_TEXT
from gptwin.rl.formats.weights import load_gpt2, save_gpt2, stop_tokens, with_vocabulary
from gptwin.rl.pipeline import Pipeline
from gptwin.rl.training.run import read_log

PADDED = 384
USERS = ("sft", "reward", "ppo")  # the stages that learn from the rows


# A chat template of others, which must not become that of what is trained here.
CHATML = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + m['content'] }}{% endfor %}"


def save_as_transformers(folder, tokenizer, version, alone):
    """Write a tokenizer as transformers does; `alone`: tokenizer.json and not its pair.

    Version 4 wrote merges as one text each (until 4.45), and vocab.json and merges.txt beside them;
    5 writes pairs, and nothing beside.
    """
    bpe = tokenizers.Tokenizer(models.BPE(tokenizer._vocabulary, tokenizer._merges))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder, bpe.post_processor = decoders.ByteLevel(), processors.ByteLevel(trim_offsets=False)
    bpe.add_special_tokens([END_OF_TEXT])
    whole = json.loads(bpe.to_str())
    assert whole["model"]["merges"][0] == list(tokenizer._merges[0])
    classes = {
        "add_prefix_space": False, "bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT,
        "model_max_length": 1024, "unk_token": END_OF_TEXT, "chat_template": CHATML,
    }  # fmt: skip
    if version == 4:
        whole["model"]["merges"] = [" ".join(pair) for pair in tokenizer._merges]
        classes |= {"tokenizer_class": "GPT2Tokenizer", "clean_up_tokenization_spaces": True}
        end = str(tokenizer.special_tokens[END_OF_TEXT])
        classes["added_tokens_decoder"] = {end: {"content": END_OF_TEXT, "special": True}}
        tokens = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
        (folder / "special_tokens_map.json").write_text(json.dumps(tokens))
    else:
        classes |= {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers"}
        (folder / "chat_template.jinja").write_text(CHATML)
    (folder / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False, indent=2))
    (folder / "tokenizer_config.json").write_text(json.dumps(classes, indent=2))
    if version == 4 and not alone:
        files = tokenizer.files()
        for name in ("vocab.json", "merges.txt"):
            (folder / name).write_text(files[name])


# What else transformers writes into config.json; 4 names the dtype otherwise than 5.
CONFIGS = {
    4: {"torch_dtype": "float32", "transformers_version": "4.57.1", "use_cache": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "summary_type": "cls_index", "initializer_range": 0.02, "n_inner": None,
        "reorder_and_upcast_attn": False, "scale_attn_weights": True},
    5: {"dtype": "float32", "transformers_version": "5.0.0", "use_cache": True, "n_inner": None,
        "pad_token_id": None, "tie_word_embeddings": True, "add_cross_attention": False},
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([" ".join(hh.WORDS)] * 9, 300, [END_OF_TEXT])


def saved(folder, tokenizer, version, alone):
    """A GPT-2 with a padded table, as a version of transformers saves it."""
    config = GPTConfig(PADDED, 96, 2, 2, 32)
    save_gpt2(folder, config, GPT(config, torch.Generator().manual_seed(0)).state_dict())
    theirs = json.loads((folder / "config.json").read_text()) | CONFIGS[version]
    (folder / "config.json").write_text(json.dumps(theirs, indent=2))
    generation = {"_from_model_config": True, "bos_token_id": 299, "eos_token_id": 299}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    save_as_transformers(folder, tokenizer, version, alone)
    return folder


@pytest.fixture(scope="module")
def gpt2(tokenizer, tmp_path_factory):
    """A folder with tokenizer.json alone, as transformers 5 saves it."""
    return saved(tmp_path_factory.mktemp("gpt2"), tokenizer, 5, alone=True)


@pytest.mark.parametrize(("version", "alone"), [(4, False), (4, True)])
def test_folders_of_transformers_4_and_5_are_one_model(gpt2, tokenizer, tmp_path, version, alone):
    folder = saved(tmp_path / "weights", tokenizer, version, alone)
    runs = [
        Pipeline(tiny.configuration(tmp_path / "run", model={"weights": str(at)}), quiet=True)
        for at in (gpt2, folder)
    ]
    five, four = (run._model("pretrain", run.configuration.model.weights) for run in runs)
    assert (five.config, four.config.vocab_size) == (four.config, tokenizer.vocab_size + 5)
    for a, b in zip(five.parameters(), four.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    said = [Message("user", " How's  a naïve 🙂\nred\tcar?"), Message("assistant", "so 42")]
    ids = [run.template.conversation(said).tokens for run in runs]
    assert ids[0] == ids[1]


def test_transformers_reads_these_folders_alike(gpt2, tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    for folder in (gpt2, saved(tmp_path, tokenizer, 4, alone=False)):
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        for text in ("how do I make a cake?", " naïve <|endoftext|>\n", " it's  7 🙂"):
            ours = Tokenizer.load(folder).encode(text, allow_special=True)
            assert theirs(text)["input_ids"] == ours


@pytest.fixture(scope="module")
def chain(gpt2, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hh")
    (folder / "hh.jsonl").write_text(hh.rows(200))
    data = {"data": str(folder / "hh.jsonl"), "on_long": "drop"}
    configuration = tiny.configuration(
        folder / "run",
        model={"weights": str(gpt2)},
        sft=data | {"pretraining_share": 0.0, "batch": 16, "accumulate": 1},
        reward=data,
        ppo=data | {"episodes": 16, "ptx": 0.0},
    )
    for skip, on_long, message in (
        (False, "drop", r"hh\.jsonl:7: line: expected a JSON object"),
        (True, "error", r"hh\.jsonl: .* 10 of 199 that are longer \(lines 20, 40, 60, 80, 100, …;"),
    ):
        tables = {n: dataclasses.replace(getattr(configuration, n), on_long=on_long) for n in USERS}
        refusing = Pipeline(dataclasses.replace(configuration, **tables), skip_bad_lines=skip)
        with pytest.raises(ValueError, match=message):
            refusing.all()
    assert not any((folder / "run" / stage).exists() for stage in USERS)
    with contextlib.redirect_stderr(io.StringIO()) as said:
        Pipeline(configuration, quiet=True, skip_bad_lines=True).all()
    (folder / "said").write_text(said.getvalue())
    return folder / "run"


def test_what_is_left_out_of_200_rows_is_counted_and_named(chain):
    said = (chain.parent / "said").read_text().splitlines()
    bad = [line for line in said if "199 records, 1 bad lines skipped, the first: " in line]
    assert len(bad) == len(USERS) and all("hh.jsonl:7: " in line for line in bad)
    long = [line for line in said if "10 of 199 that are longer (lines 20, 40, 60, " in line]
    assert len(long) == len(USERS) and all("0 truncated, 10 dropped" in line for line in long)


def test_tokenizer_json_alone_is_read(gpt2, tokenizer):
    read = Tokenizer.load(gpt2)
    assert read.special_tokens == tokenizer.special_tokens
    assert read.vocab_size == tokenizer.vocab_size
    for text in ("how do I make a cake?", " naïve <|endoftext|>\n"):
        assert read.encode(text) == tokenizer.encode(text)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("model", {"type": "WordPiece"}, r"model\.type: expected 'BPE', got 'WordPiece'"),
        ("pre_tokenizer", {"type": "Metaspace"}, r"pre_tokenizer: expected ByteLevel"),
        ("added_tokens", [{"id": 3}], r"added_tokens: expected objects with content and id"),
    ],
)
def test_another_kind_of_tokenizer_json_is_refused(gpt2, tmp_path, entry, value, message):
    found = json.loads((gpt2 / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(found | {entry: value}))
    with pytest.raises(ValueError, match=message):
        Tokenizer.load(tmp_path)


def test_a_padded_table_loses_its_padding_and_gains_a_chats_tokens():
    config = GPTConfig(PADDED, 16, 1, 1, 8, tied=False)
    before = GPT(config).state_dict()
    resized, after = with_vocabulary(config, before, 300, 305)
    assert resized.vocab_size == 305
    for name in ("wte.weight", "lm_head.weight"):
        torch.testing.assert_close(after[name][:300], before[name][:300], rtol=0, atol=0)
        fresh = after[name][300:] - before[name][:300].mean(0)
        assert fresh.abs().max() < 0.1
        assert len(fresh.unique(dim=0)) == 5
    with pytest.raises(ValueError, match=r"^tokenizer: expected at most the model's 384 ids"):
        with_vocabulary(config, before, 400, 405)


def test_the_chain_begins_from_weights_and_learns_from_preferences(chain, gpt2):
    assert not (chain / "pretrain").exists()
    assert [len(read_log(chain / stage)) > 0 for stage in ("sft", "reward", "ppo")] == [True] * 3
    tokenizer = Tokenizer.load(chain / "ppo/model")
    assert read_config(chain / "ppo/model/config.json").vocab_size == tokenizer.vocab_size
    assert tokenizer.vocab_size == Tokenizer.load(gpt2).vocab_size + 5
    with pytest.raises(ValueError, match=r"^model\.weights: expected none, to pretrain"):
        Pipeline(tiny.configuration(chain, model={"weights": str(gpt2)}), quiet=True).pretrain()


def test_what_is_exported_stops_and_writes_conversations_in_transformers(chain):
    transformers = pytest.importorskip("transformers")
    folder = chain / "ppo/model"
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = Template(Tokenizer.load(folder))
    assert (folder / "chat_template.jinja").read_text() == ours.exported["template"]
    turns = [
        ("system", "Be  kind."),
        ("user", " What is\nthis? "),
        ("assistant", "A naïve {{x}} 🙂"),
    ]
    messages = [Message(role, content) for role, content in turns]
    as_theirs = [{"role": role, "content": content} for role, content in turns]

    def ids(n, begin):
        found = theirs.apply_chat_template(as_theirs[:n], add_generation_prompt=begin)
        return list(found["input_ids"] if hasattr(found, "keys") else found)

    assert ids(3, False) == ours.conversation(messages).tokens
    assert ids(2, True) == ours.prompt(messages[:2])
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert ours.end in model.generation_config.eos_token_id
    assert (model.config.eos_token_id, theirs.eos_token_id) == (ours.end, ours.end)
    with torch.no_grad():  # a model that would say its end for ever
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(model.transformer.wte.weight[ours.end] * 100)
    found = model.generate(torch.tensor([ids(2, True)]), max_new_tokens=8, do_sample=False)
    assert found[0, len(ids(2, True)) :].tolist() == [ours.end]


def test_generate_stops_at_a_turns_end_and_draws_no_padding(chain, gpt2, tmp_path):
    folder = chain / "sft/model"
    tokenizer = Tokenizer.load(folder)
    ends = stop_tokens(folder, tokenizer)
    assert tokenizer.special_tokens[END] in ends
    config, parameters = load_gpt2(folder, framework="torch")
    parameters["ln_f.weight"].zero_()
    parameters["ln_f.bias"].copy_(parameters["wte.weight"][tokenizer.special_tokens[END]] * 100)
    save_gpt2(tmp_path, config, parameters, tokenizer, Template(tokenizer).exported)
    for reference in (False, True):
        found = continue_text(tmp_path, "how", temperature=0.0, reference=reference)
        assert found == ("", [tokenizer.special_tokens[END]])
        n = Tokenizer.load(gpt2).vocab_size
        padded = [continue_text(gpt2, "how", seed=s, temperature=5.0, reference=reference).tokens
                  for s in range(4)]  # fmt: skip
        assert max(map(max, padded)) < n
