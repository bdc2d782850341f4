"""From a GPT-2 that others saved to a model that chats, on preferences as they lie."""

import json

import hh
import pytest
import tiny
import torch

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


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A folder with a padded table and tokenizer.json alone, as transformers 5 saves it."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = Tokenizer.train([" ".join(hh.WORDS)] * 9, 300, [END_OF_TEXT])
    tokenizer.save(folder / "files")
    config = GPTConfig(PADDED, 96, 2, 2, 32)
    save_gpt2(folder / "weights", config, GPT(config).state_dict())
    theirs = transformers.AutoTokenizer.from_pretrained(folder / "files")
    theirs.save_pretrained(folder / "weights")
    assert not (folder / "weights/merges.txt").exists()
    return folder / "weights"


@pytest.fixture(scope="module")
def chain(gpt2, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hh")
    (folder / "hh.jsonl").write_text(hh.rows())
    data = {"data": str(folder / "hh.jsonl"), "on_long": "drop"}
    configuration = tiny.configuration(
        folder / "run",
        model={"weights": str(gpt2)},
        sft=data | {"pretraining_share": 0.0, "batch": 16, "accumulate": 1},
        reward=data,
        ppo=data | {"episodes": 16, "ptx": 0.0},
    )
    Pipeline(configuration, quiet=True, skip_bad_lines=True).all()
    return folder / "run"


def test_tokenizer_json_alone_is_read(gpt2):
    read = Tokenizer.load(gpt2)
    written = Tokenizer.load(gpt2.parent / "files")
    assert read.special_tokens == written.special_tokens
    assert read.vocab_size == written.vocab_size
    for text in ("how do I make a cake?", " naïve <|endoftext|>\n"):
        assert read.encode(text) == written.encode(text)


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
