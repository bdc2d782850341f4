"""Text to token ids and back: GPT-2's byte-level byte-pair encoding.

The alphabet is the 256 bytes of UTF-8, so that any text can be written and none is unknown. Text is
cut into words first (a pattern: letters with the space before them, digits, signs); within each
word the two neighbours whose pair comes first in the list of merges become one token, again and
again, until no pair is in the list:

    "Hello world"  ->  "Hello", " world"  ->  H e l l o -> … -> Hello,   Ġ w o r l d -> … -> Ġworld

Files hold bytes as printable letters (`byte_letters`): a space is Ġ, a line end Ċ. The merging
itself is done by Hugging Face's `tokenizers`; what is here is what it leaves to its user.

**Special tokens are not text.** `<|endoftext|>` ends a document, and a chat's markers say who is
speaking. Whoever may write them in a text can end the document or speak for the assistant. So
`encode` takes them for the letters they are made of, and a special token comes from text only if
the caller allows it by name:

    encode(prompt)                                          what a user typed
    encode(template, allow_special=["<|endoftext|>"])       what the program itself wrote

Source: Radford et al. 2019, section 2.2, and OpenAI's encoder.py; Sennrich et al. 2016
(arXiv 1508.07909).
"""

import functools
import json
import re
from collections.abc import Collection, Iterable, Sequence
from operator import index
from pathlib import Path

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from ...core.checks import refuse
from ...records import write_together

END_OF_TEXT = "<|endoftext|>"
VOCABULARY_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
# Beside the two: which tokens are special, and those that were added later, by their ids.
SPECIAL_FILE, ADDED_FILE = "special_tokens_map.json", "added_tokens.json"
CLASS_FILE = "tokenizer_config.json"  # for transformers, which asks it for the class
WHOLE_FILE = "tokenizer.json"  # what transformers 5 writes instead of all of these
MERGES_HEADER = "#version: 0.2"
N_BYTES = 256

Merge = tuple[str, str]


@functools.cache
def byte_letters() -> dict[str, int]:
    """Return the printable letter of each byte, in the order of GPT-2's ids 0 to 255.

    Bytes that print in Latin-1 stand for themselves; the others (controls, spaces, the soft
    hyphen) get the letters from U+0100 on, in order: byte 32, the space, is U+0120, Ġ.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(N_BYTES) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(0x100 + i): byte for i, byte in enumerate(others)}


class Tokenizer:
    """A byte-level BPE vocabulary: GPT-2's own, or one trained on your text.

    Parameters
    ----------
    vocabulary : dict of str to int
        Id of each token but the special ones, bytes written as `byte_letters`.
    merges : sequence of pairs of str
        Which neighbours become one token, the most urgent first.
    special_tokens : dict of str to int
        Id of each special token.

    Attributes
    ----------
    vocab_size : int
        Number of ids, the special tokens' included.
    special_tokens : dict of str to int

    Raises
    ------
    ValueError
        If the ids are not 0, 1, 2 and so on, a byte has no token, or a merge makes no token.
    """

    def __init__(
        self,
        vocabulary: dict[str, int],
        merges: Sequence[Merge],
        special_tokens: dict[str, int],
    ) -> None:
        _check_vocabulary(vocabulary, special_tokens)
        _check_merges(vocabulary, merges)
        self.special_tokens = dict(special_tokens)
        self.vocab_size = len(vocabulary) + len(special_tokens)
        self._vocabulary, self._merges = dict(vocabulary), list(merges)
        self._bpe = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=self._merges))
        self._bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        letters = byte_letters()
        self._bytes = [b""] * self.vocab_size  # what each id stands for
        for token, i in vocabulary.items():
            self._bytes[i] = bytes(letters[letter] for letter in token)
        for token, i in special_tokens.items():
            self._bytes[i] = token.encode("utf-8")

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        special_tokens: Sequence[str] = (END_OF_TEXT,),
    ) -> "Tokenizer":
        """Learn the merges from text: the most frequent pair becomes a token, again and again.

        Parameters
        ----------
        texts : iterable of str
            Read once; documents, without special tokens between them.
        vocab_size : int
            Number of ids wanted: 256 bytes, the merges and the special tokens. It becomes fewer
            if the text has no pair left that occurs twice.
        special_tokens : sequence of str
            They get the last ids, as in GPT-2.

        Returns
        -------
        Tokenizer

        Raises
        ------
        ValueError
            If the vocabulary is too small, or a special token is empty, given twice, or the same
            as a learnt token.
        """
        smallest = N_BYTES + len(special_tokens)
        if vocab_size < smallest:
            cause = "the 256 bytes and the special tokens must have a place"
            refuse("vocab_size", f"at least {smallest}", str(vocab_size), cause)
        bpe = tokenizers.Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - len(special_tokens),
            min_frequency=2,
            initial_alphabet=sorted(byte_letters()),
            show_progress=False,
        )
        bpe.train_from_iterator(texts, trainer)
        learnt = json.loads(bpe.to_str())["model"]
        n_learnt = len(learnt["vocab"])
        special = {token: n_learnt + i for i, token in enumerate(special_tokens)}
        if len(special) < len(special_tokens):
            refuse("special_tokens", "each once", repr(list(special_tokens)))
        return cls(learnt["vocab"], [(left, right) for left, right in learnt["merges"]], special)

    @classmethod
    def load(cls, directory: str | Path) -> "Tokenizer":
        """Read vocab.json and merges.txt, OpenAI's encoder.json and vocab.bpe, or tokenizer.json.

        Text can become a token only if the token is a byte or what a merge makes. So the others
        are special: those that special_tokens_map.json or added_tokens.json names, if they are
        there, and those that look it, such as <|endoftext|> and [PAD]. Any further one means that
        the files are not whole, or not of one model.

        Parameters
        ----------
        directory : str or pathlib.Path

        Returns
        -------
        Tokenizer

        Raises
        ------
        ValueError
            If a file is missing, damaged, or does not fit the other.
        """
        directory = Path(directory)
        if not _has_pair(directory) and (directory / WHOLE_FILE).is_file():
            return cls(*_read_whole(directory / WHOLE_FILE))
        vocabulary_file, merges_file = _find_files(directory)
        vocabulary = _read_ids(vocabulary_file)
        merges = _read_merges(merges_file)
        added, named = {}, set()
        if (directory / ADDED_FILE).exists():
            added = _read_ids(directory / ADDED_FILE)
        if (directory / SPECIAL_FILE).exists():
            named = _read_special(directory / SPECIAL_FILE)
        from_text = set(byte_letters()) | {left + right for left, right in merges}
        special = {t: i for t, i in vocabulary.items() if t not in from_text} | added
        unexplained = [
            token
            for token in special
            if token not in named | set(added) and not re.fullmatch(r"<.*>|\[.*\]", token, re.S)
        ]
        if unexplained:
            refuse(
                str(merges_file),
                f"a merge for every token of {vocabulary_file.name} that is not special",
                f"none for {unexplained[0]!r} and {len(unexplained) - 1} others",
                f"{merges_file.name} is cut short, or the two files are of different models",
            )
        try:
            return cls({t: i for t, i in vocabulary.items() if t in from_text}, merges, special)
        except ValueError as error:
            raise ValueError(f"{vocabulary_file} with {merges_file.name}: {error}") from None

    def with_special_tokens(self, tokens: Sequence[str]) -> "Tokenizer":
        """Return a tokenizer that knows more special tokens, under the ids after its last.

        Parameters
        ----------
        tokens : sequence of str
            Those that it knows already stay as they are.

        Returns
        -------
        Tokenizer
        """
        fresh = [token for token in tokens if token not in self.special_tokens]
        added = {token: self.vocab_size + i for i, token in enumerate(fresh)}
        return Tokenizer(self._vocabulary, self._merges, self.special_tokens | added)

    def save(self, directory: str | Path) -> None:
        """Write vocab.json, merges.txt and what Hugging Face has beside them, all or none.

        Parameters
        ----------
        directory : str or pathlib.Path
            Made if it is not there.
        """
        write_together(Path(directory), self.files())

    def files(self) -> dict[str, str]:
        """Return what `save` writes: by file name, its text."""
        everything = {**self._vocabulary, **self.special_tokens}
        ordered = dict(sorted(everything.items(), key=lambda item: item[1]))
        lines = [MERGES_HEADER, *(f"{left} {right}" for left, right in self._merges)]
        special: dict[str, object] = {"additional_special_tokens": list(self.special_tokens)}
        if END_OF_TEXT in self.special_tokens:
            special |= dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
        return {
            "vocab.json": json.dumps(ordered, ensure_ascii=False),
            "merges.txt": "\n".join(lines) + "\n",
            SPECIAL_FILE: json.dumps(special, ensure_ascii=False, indent=1),
            CLASS_FILE: json.dumps({"tokenizer_class": "GPT2Tokenizer"}),
        }

    def encode(self, text: str, *, allow_special: bool | Collection[str] = False) -> list[int]:
        """Turn text into ids.

        Parameters
        ----------
        text : str
        allow_special : bool or collection of str
            Which special tokens the text may hold: none, all, or these. The others are text like
            any other. Leave it alone for whatever a user typed.

        Returns
        -------
        list of int

        Raises
        ------
        ValueError
            If the text cannot be written in UTF-8, or there is no such special token.
        """
        _check_text(text)
        ids: list[int] = []
        for is_special, part in self._parts(text, self._allowed(allow_special)):
            ids += [self.special_tokens[part]] if is_special else self._bpe.encode(part).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn many texts into ids, on all cores and without special tokens.

        Parameters
        ----------
        texts : sequence of str

        Returns
        -------
        list of list of int

        Raises
        ------
        ValueError
            As `encode`.
        """
        for text in texts:
            _check_text(text)
        return [encoding.ids for encoding in self._bpe.encode_batch(list(texts))]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Turn ids into the bytes they stand for; some ids end in the middle of a character.

        Parameters
        ----------
        ids : iterable of int

        Returns
        -------
        bytes

        Raises
        ------
        ValueError
            If an id is not in the vocabulary.
        """
        pieces = []
        for i in map(index, ids):
            if not 0 <= i < self.vocab_size:
                cause = "the model's vocabulary is padded, or the tokenizer is another model's"
                refuse("ids", f"from 0 to {self.vocab_size - 1}", str(i), cause)
            pieces.append(self._bytes[i])
        return b"".join(pieces)

    def decode(self, ids: Iterable[int]) -> str:
        """Turn ids into text; bytes that are not UTF-8 become U+FFFD.

        Parameters
        ----------
        ids : iterable of int

        Returns
        -------
        str

        Raises
        ------
        ValueError
            If an id is not in the vocabulary.
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def _allowed(self, allow_special: bool | Collection[str]) -> list[str]:
        if isinstance(allow_special, bool):
            return list(self.special_tokens) if allow_special else []
        if isinstance(allow_special, str):
            refuse("allow_special", "True, False or a list of tokens", repr(allow_special))
        for token in allow_special:
            if token not in self.special_tokens:
                known = ", ".join(self.special_tokens) or "none"
                refuse("allow_special", f"special tokens of this tokenizer ({known})", repr(token))
        return list(allow_special)

    def _parts(self, text: str, allowed: list[str]) -> list[tuple[bool, str]]:
        """Cut text at the special tokens that are allowed, of two that both fit the longer."""
        if not allowed:
            return [(False, text)]
        pattern = "|".join(map(re.escape, sorted(allowed, key=len, reverse=True)))
        # A group in the pattern keeps what it splits at: text, token, text, token, text.
        pieces = re.split(f"({pattern})", text)
        return [(i % 2 == 1, piece) for i, piece in enumerate(pieces) if piece]


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        cause = 'a file was read with errors="surrogateescape", or JSON holds half an emoji'
        got = f"{text[error.start]!r} at position {error.start}"
        refuse("text", "characters that UTF-8 has", got, cause)


def _check_vocabulary(vocabulary: dict[str, int], special_tokens: dict[str, int]) -> None:
    for token in special_tokens:
        if not token:
            refuse("special_tokens", "tokens with letters", "''")
        if token in vocabulary:
            refuse("special_tokens", "none that text becomes too", repr(token), "a common word")
    ids = sorted([*vocabulary.values(), *special_tokens.values()])
    wrong = next((i for i, found in enumerate(ids) if found != i), None)
    if wrong is not None:
        expected = f"the ids 0 to {len(ids) - 1}, each once"
        refuse("vocabulary", expected, f"{ids[wrong]} where {wrong} should be", "an edited file")
    letters = byte_letters()
    absent = [letter for letter in letters if letter not in vocabulary]
    if absent:
        cause = "a vocabulary that is not byte-level; some text could not be written"
        expected = "a token for each of the 256 bytes"
        refuse(
            "vocabulary", expected, f"none for {absent[0]!r} and {len(absent) - 1} others", cause
        )


def _check_merges(vocabulary: dict[str, int], merges: Sequence[Merge]) -> None:
    for rank, (left, right) in enumerate(merges):
        for token in (left, right, left + right):
            if token not in vocabulary:
                refuse(
                    "merges",
                    "pairs of tokens that make a token of the vocabulary",
                    f"{left!r} with {right!r} as number {rank + 1}, but no token {token!r}",
                    "vocabulary and merges of different models, or a file cut short",
                )


def _has_pair(directory: Path) -> bool:
    """Say whether a vocabulary or its merges are there, in files of their own."""
    return any((directory / name).is_file() for names in VOCABULARY_FILES for name in names)


# What tokenizer.json must say for its text to become the same tokens here.
WHOLE_MODEL = {
    "type": ("BPE",),
    "unk_token": (None, END_OF_TEXT),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (None, False),
    "ignore_merges": (None, False),
    "dropout": (None, 0.0),
}


def _read_whole(path: Path) -> tuple[dict[str, int], list[Merge], dict[str, int]]:
    """Read tokenizer.json: vocabulary, merges and special tokens."""
    found = _read_json_object(path)
    model, before = found.get("model"), found.get("pre_tokenizer")
    if not isinstance(model, dict) or not isinstance(before, dict):
        refuse(str(path), "entries model and pre_tokenizer", "others", "another file of this name")
    for name, allowed in WHOLE_MODEL.items():
        if model.get(name) not in allowed:
            cause = "a tokenizer that is not GPT-2's byte-level BPE"
            refuse(f"{path}: model.{name}", repr(allowed[0]), repr(model.get(name)), cause)
    plain = before.get("type") == "ByteLevel" and before.get("use_regex", True)
    if not plain or before.get("add_prefix_space") or found.get("normalizer"):
        expected = "ByteLevel without a prefix space, and no normalizer"
        cause = "a tokenizer that cuts text otherwise than GPT-2's"
        refuse(f"{path}: pre_tokenizer", expected, repr(before)[:80], cause)
    merges = [_as_merge(path, merge) for merge in model.get("merges", [])]
    ids = _integers(path, model.get("vocab"))
    from_text = set(byte_letters()) | {left + right for left, right in merges}
    special = {token: i for token, i in ids.items() if token not in from_text}
    added = found.get("added_tokens") or []
    for token in added if isinstance(added, list) else [added]:
        if not isinstance(token, dict) or not {"content", "id"} <= token.keys():
            refuse(f"{path}: added_tokens", "objects with content and id", repr(token)[:60])
        special |= _integers(path, {token["content"]: token["id"]})
    return {t: i for t, i in ids.items() if t not in special}, merges, special


def _as_merge(path: Path, merge: object) -> Merge:
    """Return a merge, which older files write as one text with a space."""
    pair = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(pair, list) or len(pair) != 2:
        refuse(f"{path}: model.merges", "two tokens each", repr(merge)[:60])
    return pair[0], pair[1]


def _integers(path: Path, found: object) -> dict[str, int]:
    """Return an object of tokens and their ids."""
    if not isinstance(found, dict):
        refuse(f"{path}: vocab", "a JSON object", type(found).__name__)
    for token, i in found.items():
        if not isinstance(i, int) or isinstance(i, bool):
            refuse(str(path), "an integer id for each token", f"{i!r} for {token!r}")
    return dict(found)


def _find_files(directory: Path) -> tuple[Path, Path]:
    """Return the paths of the vocabulary and of the merges."""
    for names in VOCABULARY_FILES:
        there = [name for name in names if (directory / name).is_file()]
        if len(there) == 2:
            return directory / names[0], directory / names[1]
        if there:
            (absent,) = set(names) - set(there)
            cause = f"only {there[0]} was copied; a tokenizer is both"
            refuse(str(directory / absent), "a file", "nothing there", cause)
    pairs = ", or ".join(" and ".join(names) for names in VOCABULARY_FILES)
    pairs += f", or {WHOLE_FILE}"
    got = "none of them" if directory.is_dir() else "no such directory"
    refuse(str(directory), f"a directory with {pairs}", got, "the path of the weights alone")


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        refuse(str(path), "text in UTF-8", str(error), "a damaged download, or another file")


def _read_json_object(path: Path) -> dict[str, object]:
    try:
        found = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        refuse(str(path), "JSON", str(error), "a download cut short, or a web page saved instead")
    if not isinstance(found, dict):
        refuse(str(path), "a JSON object", type(found).__name__, "another file of this name")
    return found


def _read_ids(path: Path) -> dict[str, int]:
    """Read a JSON object of tokens and their ids."""
    return _integers(path, _read_json_object(path))


def _read_special(path: Path) -> set[str]:
    """Collect the tokens of special_tokens_map.json: strings, {"content": …}, or lists of both."""
    tokens: set[str] = set()
    for value in _read_json_object(path).values():
        for entry in value if isinstance(value, list) else [value]:
            content = entry.get("content") if isinstance(entry, dict) else entry
            if isinstance(content, str):
                tokens.add(content)
    return tokens


def _read_merges(path: Path) -> list[Merge]:
    """Read the pairs, one a line. Not every line that starts with # is a comment: `# #` merges."""
    lines = _read_text(path).splitlines()
    first = 1 if lines and lines[0].startswith("#version") else 0
    merges = []
    for number, line in enumerate(lines[first:], start=first + 1):
        pair = line.split(" ")
        if len(pair) != 2 or not all(pair):
            cause = "a file cut short, or not a list of merges"
            refuse(f"{path}:{number}", "two tokens and a space between", repr(line), cause)
        merges.append((pair[0], pair[1]))
    return merges
