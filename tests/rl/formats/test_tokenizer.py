"""The tokenizer: GPT-2's exact ids, any text there and back, and no special token by accident."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwin.rl.formats.tokenizer import Tokenizer
from gptwin.rl.formats.tokenizer_files import END_OF_TEXT, byte_letters

REAL = Path(__file__).resolve().parents[4] / "shared/data"  # beside the checkout
NAMES = {"gpt2-encoder.json": "encoder.json", "gpt2-vocab.bpe": "vocab.bpe"}
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TEXTS = ["the cat sat on the mat; the hat is on the cat\n", "## #### the theatre"] * 3
CHAT = ("<|user|>", "<|assistant|>", END_OF_TEXT)


@pytest.fixture(scope="session")
def gpt2_files(tmp_path_factory):
    """OpenAI's two files under OpenAI's names."""
    if not all((REAL / name).is_file() for name in NAMES):
        pytest.skip("GPT-2's vocabulary files are not beside the checkout")
    directory = tmp_path_factory.mktemp("gpt2")
    for name, original in NAMES.items():
        shutil.copyfile(REAL / name, directory / original)
    return directory


@pytest.fixture(scope="session")
def gpt2(gpt2_files):
    return Tokenizer.load(gpt2_files)


@pytest.fixture(scope="session")
def small():
    return Tokenizer.train(TEXTS, 280, CHAT)


def edit(path, change):
    path.write_text(change(path.read_text()))


# --- GPT-2's ids -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", []),
        ("Hello world", [15496, 995]),
        ("Hello, world!", [15496, 11, 995, 0]),
        (" \t", [220, 197]),
        ("hello\n\n\nworld", [31373, 628, 198, 6894]),
        ("  hi", [220, 23105]),
        ("I'm", [40, 1101]),
        ("\U0001f600", [47249, 222]),
        ("##", [2235]),  # merged by a line that looks like a comment
        (END_OF_TEXT, [27, 91, 437, 1659, 5239, 91, 29]),
    ],
)
def test_gpt2_ids(gpt2, text, ids):
    assert gpt2.encode(text) == ids
    assert gpt2.decode(ids) == text


def test_gpt2_vocabulary(gpt2):
    assert gpt2.vocab_size == 50257
    assert gpt2.special_tokens == {END_OF_TEXT: 50256}
    assert gpt2.encode(f"Hello world{END_OF_TEXT}", allow_special=True) == [15496, 995, 50256]


class OpenAIsEncoder:
    """The encoder as OpenAI released it, without its cache: slow, and the definition."""

    def __init__(self, directory):
        self.regex = pytest.importorskip("regex")
        self.ids = json.loads((directory / "encoder.json").read_text())
        lines = (directory / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:-1]
        self.ranks = {tuple(line.split()): rank for rank, line in enumerate(lines)}
        self.letters = {byte: letter for letter, byte in byte_letters().items()}

    def encode(self, text):
        words = self.regex.findall(GPT2_PATTERN, text)
        return [self.ids[token] for word in words for token in self.bpe(word)]

    def bpe(self, text):
        word = [self.letters[byte] for byte in text.encode("utf-8")]
        while len(word) > 1:
            first, second = min(
                itertools.pairwise(word), key=lambda pair: self.ranks.get(pair, float("inf"))
            )
            if (first, second) not in self.ranks:
                break
            merged, i = [], 0
            while i < len(word):
                if word[i : i + 2] == [first, second]:
                    merged.append(first + second)
                    i += 2
                else:
                    merged.append(word[i])
                    i += 1
            word = merged
        return word


@pytest.fixture(scope="session")
def openai(gpt2_files):
    return OpenAIsEncoder(gpt2_files)


# Assigned long ago: the newest letters are letters to one library and not yet to another.
OLD = st.characters(codec="utf-8", max_codepoint=0x24FF, exclude_categories=["Cn"])
WORDS = st.sampled_from(["the", " cat", "'s", "'ll", "’", "  ", "\n", "\t", " 1", "½", "é", "日本"])


@given(text=st.text(OLD) | st.lists(WORDS).map("".join))
def test_ids_are_those_of_openais_encoder(gpt2, openai, text):
    assert gpt2.encode(text) == openai.encode(text)


def test_real_text_has_openais_ids(gpt2, openai):
    text = (REAL / "tinyshakespeare.txt").read_text()[:20_000]
    assert gpt2.encode(text) == openai.encode(text)


# --- there and back --------------------------------------------------------------------------


@given(text=st.text())
def test_any_text_comes_back(small, text):
    ids = small.encode(text)
    assert small.decode(ids) == text
    assert small.decode_bytes(ids) == text.encode("utf-8")
    assert small.encode_batch([text, "the cat"]) == [ids, small.encode("the cat")]


@given(parts=st.lists(st.sampled_from(CHAT) | st.text(), max_size=6))
def test_special_tokens_come_back_and_are_one_id_each(small, parts):
    text = "".join(parts)
    ids = small.encode(text, allow_special=True)
    assert small.decode(ids) == text
    assert sum(i in small.special_tokens.values() for i in ids) == sum(map(text.count, CHAT))


@given(ids=st.lists(st.integers(0, 255)))
def test_any_ids_can_be_decoded(small, ids):
    """A model may say bytes that are no UTF-8."""
    raw = small.decode_bytes(ids)
    assert small.decode(np.array(ids, dtype=np.int64)) == raw.decode("utf-8", errors="replace")


def test_the_letters_are_those_of_hugging_face():
    from tokenizers.pre_tokenizers import ByteLevel

    assert sorted(byte_letters()) == sorted(ByteLevel.alphabet())
    assert sorted(byte_letters().values()) == list(range(256))


# --- special tokens --------------------------------------------------------------------------


@given(text=st.lists(st.sampled_from([*CHAT, "a", "<|", "|>", " "])).map("".join))
def test_what_a_user_typed_never_becomes_a_special_token(small, text):
    """The prompt-injection trap."""
    assert not set(small.encode(text)) & set(small.special_tokens.values())
    assert not set(small.encode_batch([text])[0]) & set(small.special_tokens.values())


def test_only_the_special_tokens_allowed_by_name_are_special(small):
    text = "<|user|>the<|assistant|>"
    user, assistant = (small.special_tokens[token] for token in CHAT[:2])
    ids = small.encode(text, allow_special=["<|user|>"])
    assert ids[0] == user and assistant not in ids
    assert small.decode(ids) == text


def test_of_two_special_tokens_that_fit_the_longer_is_taken():
    tokenizer = Tokenizer.train(TEXTS, 300, ["<|a|>", "<|a|><|b|>"])
    ids = tokenizer.encode("<|a|><|b|><|a|>", allow_special=True)
    assert ids == [tokenizer.special_tokens["<|a|><|b|>"], tokenizer.special_tokens["<|a|>"]]


@pytest.mark.parametrize("allow", ["<|user|>", ["<|nobody|>"]])
def test_allow_special_must_be_a_list_of_special_tokens(small, allow):
    with pytest.raises(ValueError, match="allow_special: expected"):
        small.encode("x", allow_special=allow)


# --- training --------------------------------------------------------------------------------


def test_training_learns_frequent_words_and_is_reproducible():
    first, second = (Tokenizer.train(iter(TEXTS), 280, CHAT) for _ in range(2))
    assert len(first.encode(" the")) == 1
    assert first._merges == second._merges and first.vocab_size == second.vocab_size == 280
    assert list(first.special_tokens.values()) == [277, 278, 279]


def test_too_little_text_makes_a_smaller_vocabulary():
    tokenizer = Tokenizer.train(["ab ab"], 1000)
    assert tokenizer.vocab_size == 256 + 1 + 1
    assert Tokenizer.train([], 257).encode("ab") == [ord("a") - 33, ord("b") - 33]


@pytest.mark.parametrize(
    ("size", "special", "message"),
    [
        (256, CHAT, "vocab_size: expected at least 259, got 256"),
        (300, ["the"], "special_tokens: expected none that text becomes too, got 'the'"),
        (300, [""], "special_tokens: expected tokens with letters"),
        (300, ["<|a|>", "<|a|>"], "special_tokens: expected each once"),
    ],
)
def test_bad_training_input_is_refused(size, special, message):
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        Tokenizer.train(TEXTS, size, special)


# --- files -----------------------------------------------------------------------------------


def same(first, second):
    texts = ["the cat", "é 日本 \U0001f600", *TEXTS]
    marked = "".join(CHAT)
    return (
        first.vocab_size == second.vocab_size
        and first.special_tokens == second.special_tokens
        and first.encode_batch(texts) == second.encode_batch(texts)
        and first.encode(marked, allow_special=True) == second.encode(marked, allow_special=True)
    )


def test_what_is_saved_is_loaded(small, tmp_path):
    small.save(tmp_path / "new/folder")
    assert same(small, Tokenizer.load(tmp_path / "new/folder"))


def test_gpt2_is_saved_with_the_same_ids_and_merges(gpt2, gpt2_files, tmp_path):
    gpt2.save(tmp_path)
    assert (tmp_path / "merges.txt").read_bytes() == (gpt2_files / "vocab.bpe").read_bytes()
    ids = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    assert list(ids.items()) == list(json.loads((gpt2_files / "encoder.json").read_text()).items())


def test_special_tokens_of_any_form_are_remembered(tmp_path):
    tokenizer = Tokenizer.train(TEXTS, 300, ["Human:", "<|end of text|>", "日本"])
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.special_tokens == tokenizer.special_tokens
    assert loaded.decode(tokenizer.special_tokens.values()) == "Human:<|end of text|>日本"


def test_added_tokens_and_windows_line_ends(small, tmp_path):
    small.save(tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<|pad|>": 280}))
    merges = (tmp_path / "merges.txt").read_bytes()
    (tmp_path / "merges.txt").write_bytes(merges.replace(b"\n", b"\r\n"))
    loaded = Tokenizer.load(tmp_path)
    assert loaded.special_tokens == {**small.special_tokens, "<|pad|>": 280}
    assert loaded.encode(TEXTS[0]) == small.encode(TEXTS[0])


def test_transformers_reads_it_and_agrees(small, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers")
    small.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = f"{TEXTS[0]}<|user|>é 日本{END_OF_TEXT}"
    assert theirs(text).input_ids == small.encode(text, allow_special=True)
    assert theirs.eos_token_id == small.special_tokens[END_OF_TEXT]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("vocab.json", lambda text: text[:500], r"vocab\.json: expected JSON.*cut short"),
        ("vocab.json", lambda text: "[1, 2]", r"vocab\.json: expected a JSON object, got list"),
        ("vocab.json", lambda text: text.replace(": 7,", ': "7",'), "an integer id for each"),
        ("vocab.json", lambda text: text.replace(": 7,", ": 8,"), r"vocab\.json.*each once"),
        ("vocab.json", lambda text: text.replace('"$": 3, ', ""), r"vocab\.json.*each once"),
        ("vocab.json", lambda text: text.replace('"Ġ"', '"<unk>"'), "none for 'Ġ'"),
        ("vocab.json", lambda text: text.replace('"é"', '"<unk>"'), "each of the 256 bytes"),
        ("merges.txt", lambda text: text[:-20], r"merges\.txt.*cut short"),
        ("merges.txt", lambda text: text[: text.rindex(" ")], r"merges\.txt:\d+: expected two"),
        ("merges.txt", lambda text: text + "q z\n", "merges: expected.*no token 'qz'"),
        ("merges.txt", lambda text: "<html>\n<p>", r"merges\.txt:1: expected two tokens"),
    ],
)
def test_a_damaged_file_is_named_with_the_likely_cause(small, tmp_path, file, change, message):
    small.save(tmp_path)
    edit(tmp_path / file, change)
    with pytest.raises(ValueError, match=message):
        Tokenizer.load(tmp_path)


def test_every_way_to_cut_the_merges_short_is_noticed(small, tmp_path):
    small.save(tmp_path)
    whole = (tmp_path / "merges.txt").read_bytes()
    for length in range(len(whole) - 1):  # without its last line end a file is whole
        (tmp_path / "merges.txt").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"merges\.txt"):
            Tokenizer.load(tmp_path)


def test_files_of_two_models_are_refused(small, tmp_path):
    small.save(tmp_path)
    Tokenizer.train(["bad dogs bark at bad dogs"] * 9, 275).save(tmp_path / "other")
    shutil.copyfile(tmp_path / "other/merges.txt", tmp_path / "merges.txt")
    with pytest.raises(ValueError, match="different models"):
        Tokenizer.load(tmp_path)


def test_bytes_that_are_no_text_are_refused(small, tmp_path):
    small.save(tmp_path)
    (tmp_path / "vocab.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"vocab\.json: expected text in UTF-8"):
        Tokenizer.load(tmp_path)


def test_a_missing_file_is_named(small, tmp_path):
    with pytest.raises(ValueError, match=r"vocab\.json and merges\.txt, or encoder\.json and"):
        Tokenizer.load(tmp_path)
    with pytest.raises(ValueError, match="no such directory"):
        Tokenizer.load(tmp_path / "nowhere")
    small.save(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(ValueError, match=r"merges\.txt: expected a file, got nothing there"):
        Tokenizer.load(tmp_path)


def test_a_save_that_fails_leaves_the_old_files(small, gpt2, tmp_path, monkeypatch):
    small.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        gpt2.save(tmp_path)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# --- bad ids and texts -----------------------------------------------------------------------


@pytest.mark.parametrize("i", [-1, 280])
def test_an_id_out_of_range_is_refused(small, i):
    with pytest.raises(ValueError, match=f"ids: expected from 0 to 279, got {i}"):
        small.decode([1, i])


def test_half_a_character_is_refused(small):
    with pytest.raises(ValueError, match=r"text: expected characters that UTF-8 has.*position 2"):
        small.encode("ab\ud83d")
