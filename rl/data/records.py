r"""Reading training data: JSON lines in every format in use, one record at a time.

    {"text": …}                                  Text
    {"messages": [{"role": …, "content": …}]}    Dialogue
    {"prompt": …}                                Dialogue, in which the assistant is next
    {"prompt": …, "completion": …}               Dialogue
    {"prompt": …, "chosen": …, "rejected": …}    Preference
    {"chosen": …, "rejected": …}                 Preference; the prompt is what both begin with
    {"prompt": …, "completions": […], "rank": […]}   Preference; the lowest rank is the best
    {"messages": …, "completion": …, "label": 0 or 1, "rule"?: …, "user"?: …}    Label
    {"messages": …, "completion": …, "feedback": …, "user"?: …}                  Feedback

Whoever wants dialogues takes a preference for the prompt with its best answer: so the files of
Anthropic's HH, which have the entries chosen and rejected alone, teach every stage. Of a label or
of feedback they take the prompt alone: what was said may be what nobody should imitate.

A prompt is a string (what the user says) or a list of messages. A completion is a string (what the
assistant says) or a list of messages; the list may repeat the prompt. A string that begins as
Anthropic's transcripts do, with ``\n\nHuman: ``, is taken apart at those marks.

A file may be compressed with gzip, and is never held in memory. A line that is none of these is an
error that names the file, the line and the reason: training on what is left of a damaged file is
worse than not training. Whoever knows better says `skip_bad_lines`, and is told how many there
were.
"""

import dataclasses
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast, get_args

from ...core.checks import refuse
from .dialogue import Message

GZIP_MAGIC = b"\x1f\x8b"
# How files begin that are no JSON lines, and what they are.
OTHER_FORMATS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: git lfs pull",
    b"PAR1": "a Parquet file: datasets.Dataset.from_parquet(file).to_json(...) makes JSON lines",
    b"ARROW1": "an Arrow file: datasets.Dataset.from_file(file).to_json(...) makes JSON lines",
    b"PK": "a zip archive: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unzstd, or gzip it",
    b"BZh": "compressed with bzip2: bunzip2, or gzip it",
    b"\xfd7zXZ": "compressed with xz: unxz, or gzip it",
    b"\xff\xfe": "text in UTF-16: convert it to UTF-8",
    b"\xfe\xff": "text in UTF-16: convert it to UTF-8",
    b"<": "a web page saved instead of the file",
}
# What a line of each kind has, for the error when it has not.
ENTRIES = {
    "Text": "text",
    "Dialogue": "messages; or prompt, with completion or alone; or chosen and rejected",
    "Preference": "chosen and rejected, with prompt or alone; or prompt, completions and rank",
    "Label": "messages, completion and label; rule and user, if they are known",
    "Feedback": "messages, completion and feedback; user, if it is known",
}
TURN = re.compile(r"\n\n(Human|Assistant): ?")
SPEAKERS = {"Human": "user", "Assistant": "assistant"}

Messages: TypeAlias = tuple[Message, ...]


@dataclasses.dataclass(frozen=True)
class Text:
    """A document to pretrain on; `line` says where in its file it is, from 1."""

    text: str
    line: int = dataclasses.field(default=0, compare=False)


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """A conversation: to imitate, or to continue if the assistant is next; `line` as in `Text`."""

    messages: Messages
    line: int = dataclasses.field(default=0, compare=False)

    @property
    def is_prompt(self) -> bool:
        """Whether the last turn is not the assistant's."""
        return self.messages[-1].role != "assistant"


@dataclasses.dataclass(frozen=True)
class Preference:
    """A prompt and answers to it that people ranked.

    Attributes
    ----------
    prompt : tuple of Message
    completions : tuple of str
        At least two, the best first.
    ranks : tuple of int
        Never falling, the lowest first; equal ranks are ties.
    line : int
        As in `Text`.
    """

    prompt: Messages
    completions: tuple[str, ...]
    ranks: tuple[int, ...]
    line: int = dataclasses.field(default=0, compare=False)


@dataclasses.dataclass(frozen=True)
class Label:
    """One answer, and whether somebody found it good.

    Attributes
    ----------
    messages : tuple of Message
        The turns before the answer.
    completion : str
        The answer; empty, where nothing was said.
    label : int
        1: good, or the rule was kept. 0: bad, or the rule was broken.
    rule : str
        The text of the one rule that the label speaks of; of every other rule it says nothing.
        Empty: a thumb up or down for the whole answer.
    user : str
        Who said so; empty, where it is not known.
    line : int
        As in `Text`.
    """

    messages: Messages
    completion: str
    label: int
    rule: str = ""
    user: str = ""
    line: int = dataclasses.field(default=0, compare=False)


@dataclasses.dataclass(frozen=True)
class Feedback:
    """One answer, and what somebody said of it in words; the attributes are as in `Label`."""

    messages: Messages
    completion: str
    feedback: str
    user: str = ""
    line: int = dataclasses.field(default=0, compare=False)


Record: TypeAlias = Text | Dialogue | Preference | Label | Feedback


class DataFile:
    """A file of records. Iterating reads it from its beginning, as often as wanted.

    Parameters
    ----------
    path : str or pathlib.Path
        JSON lines, plain or gzip.
    kind : type, optional
        `Text`, `Dialogue`, `Preference`, `Label` or `Feedback`: read every line as this, and
        refuse those that are not. (A line may have the entries of several.) By default each is what
        it looks like, looking for preferences first, then for labels, and for text last.
    skip_bad_lines : bool
        Count them instead of refusing the file.
    answered : bool
        A dialogue in which the assistant has not the last word is a bad line, too.

    Attributes
    ----------
    n_records, n_bad_lines : int
        In the iteration that was begun last, so far.
    first_bad_line : str
        What is wrong with it, and where it is; empty if there is none.

    Raises
    ------
    ValueError
        While iterating: at the first bad line, if it is not to be skipped; if the file is not
        there or its compression is damaged; or if no record is in it.
    """

    def __init__(
        self,
        path: str | Path,
        kind: type | None = None,
        *,
        skip_bad_lines: bool = False,
        answered: bool = False,
    ) -> None:
        if kind not in (None, *get_args(Record)):
            refuse("kind", f"{', '.join(ENTRIES)} or None", repr(kind))
        self.path, self.kind, self.skip_bad_lines = Path(path), kind, skip_bad_lines
        self.answered = answered
        self.n_records = self.n_bad_lines = 0
        self.first_bad_line = ""

    def __iter__(self) -> Iterator[Record]:
        self.n_records = self.n_bad_lines = 0
        self.first_bad_line = ""
        for number, line in numbered_lines(self.path):
            try:
                record = dataclasses.replace(parse(line, self.kind), line=number)
                if self.answered and isinstance(record, Dialogue) and record.is_prompt:
                    said = f"{record.messages[-1].role}'s"
                    refuse("line", "a last turn of the assistant", said, "a prompt alone")
            except ValueError as error:
                problem = f"{self.path}:{number}: {error}"
                if not self.skip_bad_lines:
                    raise ValueError(problem) from None
                self.n_bad_lines += 1
                self.first_bad_line = self.first_bad_line or problem
                continue
            self.n_records += 1
            yield record
        if not self.n_records:
            cause = "an empty file"
            if self.n_bad_lines:
                cause = f"another format; the first line refused: {self.first_bad_line}"
            refuse(str(self.path), "a record at least", f"{self.n_bad_lines} bad lines", cause)

    def report(self) -> str:
        """Say how many records were read and how many lines were skipped, in one line."""
        read = f"{self.path}: {self.n_records:,} records"
        if not self.n_bad_lines:
            return read
        return f"{read}, {self.n_bad_lines:,} bad lines skipped, the first: {self.first_bad_line}"


def parse(line: bytes, kind: type | None = None) -> Record:
    """Read one line.

    Parameters
    ----------
    line : bytes
        JSON in UTF-8.
    kind : type, optional
        As in `DataFile`.

    Returns
    -------
    Text, Dialogue, Preference, Label or Feedback

    Raises
    ------
    ValueError
        If it is none of the formats, or not of the kind.
    """
    found = parse_object(line)
    if kind in (None, Preference):
        preference = _preference(found)
        if preference:
            return preference
    said_of = {"messages", "completion"} <= found.keys()
    if kind in (None, Label) and said_of and "label" in found:
        return _label(found)
    if kind in (None, Feedback) and said_of and "feedback" in found:
        return Feedback(*_answered(found), _string(found["feedback"], "feedback"), _user(found))
    if kind in (None, Dialogue):
        if "messages" in found:
            return Dialogue(_messages(found, "messages"))
        preferred = _preference(found)
        if preferred:
            best = Message("assistant", preferred.completions[0])
            return Dialogue((*preferred.prompt, best))
        if {"prompt", "completion"} <= found.keys():
            prompt = _prompt(found)
            answer = Message("assistant", _completion(found["completion"], "completion", prompt))
            return Dialogue((*prompt, answer))
        if "prompt" in found:
            return Dialogue(_prompt(found))
    if kind in (None, Text) and "text" in found:
        return Text(_string(found["text"], "text"))
    formats = "one of the formats of this file"
    wanted = formats if kind is None else f"the entries {ENTRIES[kind.__name__]}"
    got = f"the entries {', '.join(found) or 'of nothing'}"
    refuse("line", wanted, got, "other names for them")


def parse_object(line: bytes) -> dict[str, Any]:
    """Read one line of JSON, whatever it says.

    Parameters
    ----------
    line : bytes
        In UTF-8.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If it is no JSON object, or says one thing twice.
    """
    try:
        found = json.loads(line.decode("utf-8"), object_pairs_hook=_once_each)
    except UnicodeDecodeError as error:
        refuse("line", "text in UTF-8", str(error), "another encoding: convert the file")
    except (json.JSONDecodeError, RecursionError) as error:
        cause = "one JSON array instead of an object per line" if line[:1] in b"[]" else ""
        refuse("line", "a JSON object", str(error), cause or "a line that was cut, or no JSON")
    except ValueError as error:
        raise ValueError(f"line: {error}") from None
    if not isinstance(found, dict):
        cause = "one JSON array instead of an object per line" if isinstance(found, list) else ""
        refuse("line", "a JSON object", type(found).__name__, cause)
    return found


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, unless it says one thing twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        refuse(repr(twice), "once in an object", f"{names.count(twice)} times", "a faulty export")
    return found


# --- the lines of a file ---------------------------------------------------------------------


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file, plain or gzip, that hold something, numbered from 1.

    Raises
    ------
    ValueError
        If it cannot be read, is no JSON lines, or its compression is damaged.
    """
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")  # as some editors begin a file
                if line.strip():
                    yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        cause = "a download or copy that was cut short"
        refuse(f"{path}:{number + 1}", "a whole gzip file", str(error), cause)
    except OSError as error:
        refuse(str(path), "a file that can be read", error.strerror or str(error), "a wrong path")


def _open(path: Path) -> BinaryIO:
    """Open a file, unpacking it if its first bytes, whatever its name, say gzip."""
    with path.open("rb") as file:
        start = file.read(64)
    for beginning, what in OTHER_FORMATS.items():
        if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(beginning):
            refuse(str(path), "JSON lines", repr(start[:20]), what)
    packed = start.startswith(GZIP_MAGIC)
    return cast(BinaryIO, gzip.open(path, "rb")) if packed else path.open("rb")


# --- the entries of a line -------------------------------------------------------------------


def _string(value: Any, name: str) -> str:
    if not isinstance(value, str):
        refuse(name, "a string", type(value).__name__)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        got = f"{value[error.start]!r} at position {error.start}"
        refuse(name, "characters that UTF-8 has", got, "half an emoji, cut by another program")
    return value


def _messages(found: dict[str, Any], name: str) -> Messages:
    """Read a list of messages, or take a transcript apart."""
    value = found[name]
    if isinstance(value, str):
        return _transcript(value, name)
    if not isinstance(value, list) or not value:
        refuse(name, "a list of messages", repr(value)[:60])
    messages = []
    for i, message in enumerate(value):
        where = f"{name}[{i}]"
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            refuse(where, "an object with role and content", repr(message)[:60])
        try:
            content = _string(message["content"], "content")
            messages.append(Message(_string(message["role"], "role"), content))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return tuple(messages)


def _transcript(text: str, name: str) -> Messages:
    r"""Take apart "\n\nHuman: …\n\nAssistant: …"; an empty last turn is the assistant's to come."""
    before, *turns = TURN.split(_string(text, name))
    if before or not turns:
        refuse(name, "messages, or a text that begins with '\\n\\nHuman: '", repr(text[:60]))
    speakers = [SPEAKERS[speaker] for speaker in turns[::2]]
    return tuple(map(Message, speakers, turns[1::2]))


def _prompt(found: dict[str, Any]) -> Messages:
    """Read the prompt: what the user says, or several turns of which the last is not ours."""
    value = found["prompt"]
    if isinstance(value, str) and not TURN.match(value):
        return (Message("user", _string(value, "prompt")),)
    messages = _messages(found, "prompt")
    if isinstance(value, str) and messages[-1] == Message("assistant", ""):
        messages = messages[:-1]
    if not messages or messages[-1].role == "assistant":
        refuse("prompt", "turns of which the last is not the assistant's", repr(value)[:60])
    return messages


def _completion(value: Any, name: str, prompt: Messages) -> str:
    """Read a completion: what the assistant says, or messages that may repeat the prompt."""
    if isinstance(value, str) and not TURN.match(value):
        return _string(value, name)
    messages = _messages({name: value}, name)
    if messages[: len(prompt)] == prompt:
        messages = messages[len(prompt) :]
    if len(messages) != 1 or messages[0].role != "assistant":
        said = ", ".join(message.role for message in messages) or "none"
        refuse(name, "one turn, the assistant's, after the prompt", f"turns of: {said}",
               "chosen and rejected begin with different prompts")  # fmt: skip
    return messages[0].content


def _preference(found: dict[str, Any]) -> Preference | None:
    """Read a preference, if the entries are those of one."""
    if {"prompt", "completions", "rank"} <= found.keys():
        return _ranked(found)
    if {"chosen", "rejected"} <= found.keys():
        return _pair(found)
    return None


def _pair(found: dict[str, Any]) -> Preference:
    """Read chosen and rejected; without a prompt, it is all of chosen but the last turn."""
    if "prompt" in found:
        prompt = _prompt(found)
    else:
        prompt = _messages(found, "chosen")[:-1]
        if not prompt:
            refuse("chosen", "a prompt and an answer, since there is no prompt", "one turn")
    pair = (_completion(found[name], name, prompt) for name in ("chosen", "rejected"))
    return Preference(prompt, tuple(pair), (0, 1))


def _ranked(found: dict[str, Any]) -> Preference:
    """Read completions and their ranks, and put the best first."""
    completions, ranks = found["completions"], found["rank"]
    if not isinstance(completions, list) or len(completions) < 2:
        refuse("completions", "a list of two at least", repr(completions)[:60])
    if not isinstance(ranks, list) or len(ranks) != len(completions):
        refuse("rank", f"a rank for each of {len(completions)} completions", repr(ranks)[:60])
    for rank in ranks:
        if not isinstance(rank, int) or isinstance(rank, bool) or rank < 0:
            refuse("rank", "integers from 0 on, the lowest the best", repr(rank), "scores")
    prompt = _prompt(found)
    texts = [_completion(c, f"completions[{i}]", prompt) for i, c in enumerate(completions)]
    order = sorted(range(len(ranks)), key=ranks.__getitem__)  # stable: ties stay in order
    return Preference(prompt, tuple(texts[i] for i in order), tuple(ranks[i] for i in order))


def _label(found: dict[str, Any]) -> Label:
    label = found["label"]
    if label not in (0, 1) or isinstance(label, float):
        refuse("label", "0 or 1", repr(label), "a score: decide from where on it is good")
    rule = _string(found["rule"], "rule") if "rule" in found else ""
    return Label(*_answered(found), int(label), rule, _user(found))


def _answered(found: dict[str, Any]) -> tuple[Messages, str]:
    """Read the turns so far and the answer that somebody judged."""
    messages = _messages(found, "messages")
    if messages[-1].role == "assistant":
        got = "one of the assistant"
        refuse("messages", "a last turn that is not the assistant's", got, "the answer, twice")
    return messages, _completion(found["completion"], "completion", messages)


def _user(found: dict[str, Any]) -> str:
    return _string(found["user"], "user") if "user" in found else ""
