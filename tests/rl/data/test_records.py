"""Training data: every format in use, and no line that is silently dropped or misread."""

import gzip
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwin.rl.data.dialogue import Message
from gptwin.rl.data.records import DataFile, Dialogue, Feedback, Label, Preference, Text, parse

HI = (Message("user", "Hi"),)
HELLO, GO_AWAY = Message("assistant", "Hello"), Message("assistant", "Go away")
LONGER = (Message("user", "Hi"), HELLO, Message("user", "How are you?"))
TRANSCRIPT = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: How are you?\n\nAssistant:"


def messages(*turns):
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def line(**entries):
    return json.dumps(entries).encode()


FORMATS = [
    ({"text": "Once"}, Text("Once")),
    ({"text": ""}, Text("")),
    ({"messages": messages(*HI, HELLO)}, Dialogue((*HI, HELLO))),
    ({"messages": messages(Message("system", "Be kind"), *LONGER)},
     Dialogue((Message("system", "Be kind"), *LONGER))),
    ({"prompt": "Hi"}, Dialogue(HI)),
    ({"prompt": messages(*LONGER)}, Dialogue(LONGER)),
    ({"prompt": "\n\nHuman: Hi\n\nAssistant:"}, Dialogue(HI)),
    ({"prompt": "Hi", "completion": "Hello"}, Dialogue((*HI, HELLO))),
    ({"prompt": messages(*HI), "completion": messages(HELLO)}, Dialogue((*HI, HELLO))),
    ({"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"},
     Preference(HI, ("Hello", "Go away"), (0, 1))),
    ({"prompt": messages(*HI), "chosen": messages(HELLO), "rejected": messages(GO_AWAY)},
     Preference(HI, ("Hello", "Go away"), (0, 1))),
    # The lists may repeat the prompt.
    ({"prompt": "Hi", "chosen": messages(*HI, HELLO), "rejected": messages(*HI, GO_AWAY)},
     Preference(HI, ("Hello", "Go away"), (0, 1))),
    ({"chosen": messages(*LONGER, HELLO), "rejected": messages(*LONGER, GO_AWAY)},
     Preference(LONGER, ("Hello", "Go away"), (0, 1))),
    # Anthropic's own.
    ({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello",
      "rejected": "\n\nHuman: Hi\n\nAssistant: Go away"},
     Preference(HI, ("Hello", "Go away"), (0, 1))),
    ({"chosen": TRANSCRIPT + " Well:\n\n1. yes", "rejected": TRANSCRIPT},
     Preference(LONGER, ("Well:\n\n1. yes", ""), (0, 1))),
    ({"prompt": "Hi", "completions": ["c", "a", "b"], "rank": [3, 1, 2]},
     Preference(HI, ("a", "b", "c"), (1, 2, 3))),
    ({"prompt": "Hi", "completions": ["b", "a", "b too"], "rank": [1, 0, 1]},
     Preference(HI, ("a", "b", "b too"), (0, 1, 1))),
    ({"text": "Once", "id": 7, "source": None}, Text("Once")),
    ({"messages": messages(*HI), "completion": "Hello", "label": 1}, Label(HI, "Hello", 1)),
    ({"messages": messages(*HI), "completion": "Go away", "label": 0, "rule": "Greet.",
      "user": "u7"}, Label(HI, "Go away", 0, "Greet.", "u7")),
    ({"messages": messages(*HI), "completion": "", "label": False}, Label(HI, "", 0)),
    ({"messages": messages(*HI), "completion": "Go away", "feedback": "Say Hello.", "user": "u7"},
     Feedback(HI, "Go away", "Say Hello.", "u7")),
]  # fmt: skip


@pytest.mark.parametrize(("entries", "record"), FORMATS, ids=lambda value: type(value).__name__)
def test_every_format(entries, record):
    assert parse(line(**entries)) == record
    assert parse(line(**entries), type(record)) == record


@given(text=st.text(), pretty=st.booleans())
def test_any_text_is_read_as_it_was_written(text, pretty):
    written = json.dumps({"text": text}, ensure_ascii=pretty).encode()
    assert parse(written) == Text(text)
    prompt = json.dumps({"prompt": [{"role": "user", "content": text}], "completion": "x" + text})
    assert parse(prompt.encode()) == Dialogue(
        (Message("user", text), Message("assistant", "x" + text))
    )


def test_a_prompt_is_a_dialogue_in_which_the_assistant_is_next():
    assert Dialogue(HI).is_prompt and not Dialogue((*HI, HELLO)).is_prompt


def test_a_line_with_the_entries_of_several_kinds_is_read_as_the_one_wanted():
    both = line(text="Once", messages=messages(*HI, HELLO), chosen="x", rejected="y", prompt="Hi")
    assert parse(both) == Preference(HI, ("x", "y"), (0, 1))
    assert parse(both, Dialogue) == Dialogue((*HI, HELLO))
    assert parse(both, Text) == Text("Once")


def test_what_was_judged_is_nothing_to_imitate():
    judged = line(messages=messages(*HI), completion="Go away", label=0, feedback="Say Hello.")
    assert parse(judged) == Label(HI, "Go away", 0)
    assert parse(judged, Feedback) == Feedback(HI, "Go away", "Say Hello.")
    assert parse(judged, Dialogue) == Dialogue(HI)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b'{"text": "On', "line: expected a JSON object.*cut"),
        (b"[", "one JSON array instead of an object per line"),
        (b'[{"text": "a"}]', "got list .*one JSON array instead"),
        (b"3", "line: expected a JSON object, got int"),
        (b"[" * 100_000, "expected a JSON object"),
        (b'{"text": "\xe9"}', "line: expected text in UTF-8"),
        (b"{}", "the entries of nothing"),
        (line(txt="a", id=1), "got the entries txt, id"),
        (line(text=3), "text: expected a string, got int"),
        (line(text="\ud83d"), "text: expected characters that UTF-8 has.*position 0"),
        (line(messages=[]), "messages: expected a list of messages"),
        (line(messages=[{"role": "user"}]), r"messages\[0\]: expected an object with role and"),
        (line(messages=[{"role": "tool", "content": ""}]), r"messages\[0\]: role: expected one of"),
        (line(messages=[{"role": "user", "content": None}]), r"messages\[0\]: content: expected"),
        (line(prompt=None), "prompt: expected a list of messages"),
        (line(prompt=messages(*HI, HELLO)), "prompt: expected turns of which the last is not"),
        (line(prompt="Hi", completion=None), "completion: expected a list of messages"),
        (line(prompt="Hi", completion=messages(*HI)), "completion: expected one turn"),
        (line(chosen="a", rejected="b"), "chosen: expected messages, or a text that begins with"),
        (line(chosen="A: " + TRANSCRIPT, rejected=TRANSCRIPT), "chosen: expected messages, or"),
        (line(chosen="\n\nAssistant: a", rejected="\n\nAssistant: b"), "since there is no prompt"),
        (line(chosen=messages(*HI, HELLO), rejected=messages(*LONGER, HELLO)), "rejected: exp"),
        (line(chosen=messages(*LONGER), rejected=messages(*LONGER)), "chosen: expected one turn"),
        (line(prompt="Hi", completions=["a"], rank=[1]), "completions: expected a list of two"),
        (line(prompt="Hi", completions=["a", "b"], rank=[1]), "rank: expected a rank for each of"),
        (line(prompt="Hi", completions=["a", "b"], rank=[0.3, 0.9]), "rank: expected integers.*sc"),
        (line(prompt="Hi", completions=["a", "b"], rank=[-1, 0]), "rank: expected integers from 0"),
        (line(prompt="Hi", completions=["a", 2], rank=[1, 0]), r"completions\[1\]: expected a"),
        (line(messages=messages(*HI), completion="a", label=0.7), "label: expected 0 or 1.*score"),
        (line(messages=messages(*HI), completion="a", label="good"), "label: expected 0 or 1"),
        (line(messages=messages(*HI), completion="a", label=1, rule=7), "rule: expected a string"),
        (line(messages=messages(*HI, HELLO), completion="a", label=1), "messages: .*twice"),
        (line(messages=messages(*HI), completion=3, feedback="b"), "completion: expected a"),
    ],
    ids=range(33),
)  # fmt: skip
def test_a_bad_line_is_refused_with_the_reason(bad, message):
    with pytest.raises(ValueError, match=message):
        parse(bad)


def test_a_line_of_another_kind_is_refused():
    with pytest.raises(
        ValueError, match=r"expected the entries chosen and rejected, .*, got the entries text"
    ):
        parse(line(text="Once"), Preference)
    with pytest.raises(
        ValueError, match="kind: expected Text, Dialogue, Preference, Label, Feedback or None"
    ):
        DataFile("x", str)


# --- files -----------------------------------------------------------------------------------

LINES = [line(text="one"), b"", line(text="two"), b"  ", line(text="three")]
TEXTS = [Text("one"), Text("two"), Text("three")]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\n".join(LINES) + b"\n")
    return path


def test_a_file_is_read_as_often_as_wanted(path):
    file = DataFile(path)
    assert list(file) == list(file) == TEXTS
    assert file.report() == f"{path}: 3 records"


@pytest.mark.parametrize("name", ["data.jsonl.gz", "gzip under any name"])
def test_gzip(path, tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(path.read_bytes()))
    assert list(DataFile(tmp_path / name)) == TEXTS


def test_windows_files(path):
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(LINES))
    assert list(DataFile(path)) == TEXTS


def test_a_bad_line_stops_the_reading_and_says_where(path):
    path.write_bytes(path.read_bytes() + b"\n" + line(txt="four") + b"\n")
    records = iter(DataFile(path))
    assert [next(records) for _ in range(3)] == TEXTS
    with pytest.raises(ValueError, match=r"data\.jsonl:7: line: expected one of the formats"):
        next(records)


def test_bad_lines_can_be_skipped_and_are_counted(path):
    path.write_bytes(b"{\n" + path.read_bytes() + line(text=1) + b"\n")
    file = DataFile(path, skip_bad_lines=True)
    for _ in range(2):  # the counts are of one reading
        assert list(file) == TEXTS
        assert (file.n_records, file.n_bad_lines) == (3, 2)
    assert f"{path}: 3 records, 2 bad lines skipped, the first: {path}:1: line" in file.report()


def test_a_file_without_a_good_line_is_refused_even_so(path):
    path.write_bytes(line(txt="a") + b"\n" + line(txt="b"))
    with pytest.raises(ValueError, match=r"a record at least, got 2 bad lines.*data\.jsonl:1: "):
        list(DataFile(path, skip_bad_lines=True))
    path.write_bytes(b"\n")
    with pytest.raises(ValueError, match=r"a record at least, got 0 bad lines.*an empty file"):
        list(DataFile(path))


def test_a_damaged_gzip_file_is_refused_even_if_bad_lines_are_skipped(path):
    packed = gzip.compress(b"\n".join([line(text="a" * 50 + str(i)) for i in range(9999)]))
    path.write_bytes(packed[:-2000])
    with pytest.raises(ValueError, match=r"data\.jsonl:\d+: expected a whole gzip file.*cut short"):
        list(DataFile(path, skip_bad_lines=True))
    path.write_bytes(packed[:500] + b"\0\0\0\0" + packed[504:])
    with pytest.raises(ValueError, match=r"data\.jsonl:\d+: expected a whole gzip file"):
        list(DataFile(path, skip_bad_lines=True))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere: expected a file that can be read, got No such"):
        list(DataFile(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="expected a file that can be read, got Is a directory"):
        list(DataFile(tmp_path))


def test_a_file_is_not_held_in_memory(tmp_path):
    path = tmp_path / "large.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(2000):
            file.write(line(text="x" * 10_000) + b"\n")
    tracemalloc.start()
    assert sum(1 for _ in DataFile(path)) == 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000  # of 20 MB


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"PAR1\x15\x04\x15", "a Parquet file"),
        (b"\n<!DOCTYPE html><html>", "a web page saved instead"),
        (b"PK\x03\x04", "a zip archive"),
        ('{"text": "x"}'.encode("utf-16"), "text in UTF-16"),
    ],
)
def test_another_format_is_named(tmp_path, start, message):
    (tmp_path / "data.jsonl").write_bytes(start)
    for skip in (False, True):
        with pytest.raises(ValueError, match=rf"data\.jsonl: expected JSON lines, got .*{message}"):
            list(DataFile(tmp_path / "data.jsonl", skip_bad_lines=skip))


def test_an_entry_that_is_there_twice_is_refused():
    with pytest.raises(ValueError, match=r"'text': expected once in an object, got 2 times"):
        parse(b'{"text": "one", "text": "two"}')
    with pytest.raises(ValueError, match=r"'role': expected once in an object"):
        parse(b'{"messages": [{"role": "user", "role": "system", "content": "x"}]}')
