"""What a tokenizer's files hold: reading each, and the letters in which they write bytes.

vocab.json and merges.txt, OpenAI's encoder.json and vocab.bpe, or tokenizer.json; beside them may
lie special_tokens_map.json and added_tokens.json. Here each file's form is checked; whether they
fit each other, where a `Tokenizer` is made of them (tokenizer.py).
"""

import functools
import json
from pathlib import Path

from ...core.checks import refuse

END_OF_TEXT = "<|endoftext|>"
VOCABULARY_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
# Beside the two: which tokens are special, and those that were added later, by their ids.
SPECIAL_FILE, ADDED_FILE = "special_tokens_map.json", "added_tokens.json"
WHOLE_FILE = "tokenizer.json"  # what transformers 5 writes instead of all of these
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


def has_pair(directory: Path) -> bool:
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


def read_whole(path: Path) -> tuple[dict[str, int], list[Merge], dict[str, int]]:
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


def find_files(directory: Path) -> tuple[Path, Path]:
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


def read_ids(path: Path) -> dict[str, int]:
    """Read a JSON object of tokens and their ids."""
    return _integers(path, _read_json_object(path))


def read_special(path: Path) -> set[str]:
    """Collect the tokens of special_tokens_map.json: strings, {"content": …}, or lists of both."""
    tokens: set[str] = set()
    for value in _read_json_object(path).values():
        for entry in value if isinstance(value, list) else [value]:
            content = entry.get("content") if isinstance(entry, dict) else entry
            if isinstance(content, str):
                tokens.add(content)
    return tokens


def read_merges(path: Path) -> list[Merge]:
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
