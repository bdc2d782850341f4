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

import json
import re
from collections.abc import Collection, Iterable, Sequence
from operator import index
from pathlib import Path

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from ...core.checks import refuse
from ...records import write_together
from .tokenizer_files import (
    ADDED_FILE,
    END_OF_TEXT,
    N_BYTES,
    SPECIAL_FILE,
    WHOLE_FILE,
    Merge,
    byte_letters,
    find_files,
    has_pair,
    read_ids,
    read_merges,
    read_special,
    read_whole,
)

CLASS_FILE = "tokenizer_config.json"  # for transformers, which asks it for the class
MERGES_HEADER = "#version: 0.2"


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
        if not has_pair(directory) and (directory / WHOLE_FILE).is_file():
            return cls(*read_whole(directory / WHOLE_FILE))
        vocabulary_file, merges_file = find_files(directory)
        vocabulary = read_ids(vocabulary_file)
        merges = read_merges(merges_file)
        added, named = {}, set()
        if (directory / ADDED_FILE).exists():
            added = read_ids(directory / ADDED_FILE)
        if (directory / SPECIAL_FILE).exists():
            named = read_special(directory / SPECIAL_FILE)
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
