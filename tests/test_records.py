"""A file is there whole or not at all, and says what made it."""

import errno
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gptwin import records
from gptwin.records import WRITING, provenance, write_together, write_whole


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fails_with(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


# --- written whole --------------------------------------------------------------------------------


def test_text_bytes_and_writers_are_written_as_they_are(tmp_path):
    write_whole(tmp_path / "a.txt", "é\r\n")
    write_together(tmp_path / "new" / "folder", {"b": b"\0", "c": lambda path: path.touch()})
    assert contents(tmp_path / "new" / "folder") == {"b": b"\0", "c": b""}
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa9\r\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "new"]


def test_a_new_file_has_the_usual_permissions_and_an_old_one_keeps_its_own(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "new", "x")
    finally:
        os.umask(before)
    (tmp_path / "old").touch(0o600)
    write_whole(tmp_path / "old", "x")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o600


# --- a disk that is full --------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["write", "flush", "rename"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    write_whole(tmp_path / "kept.json", "old")
    place, name = {
        "write": (Path, "write_bytes"), "flush": (os, "fsync"), "rename": (os, "replace")
    }[call]  # fmt: skip
    monkeypatch.setattr(place, name, fails_with(errno.ENOSPC))
    with pytest.raises(OSError, match=r"cannot be written: No space left.*kept\.json'$") as full:
        write_whole(tmp_path / "kept.json", "new")
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, str(tmp_path / "kept.json"))
    assert WRITING not in str(full.value)
    assert contents(tmp_path) == {"kept.json": b"old"}


def test_a_disk_that_fills_up_within_a_file_leaves_all_of_the_old_ones(tmp_path):
    write_together(tmp_path, {"a": "old", "b": "old"})
    # A limit on a file's size stands in for the disk: the system cuts the write off halfway.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match=r"File too large.*b'$"):
            write_together(tmp_path, {"a": "new", "b": b"n" * 5000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert contents(tmp_path) == {"a": b"old", "b": b"old"}


def test_a_disk_that_cannot_flush_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", fails_with(errno.EINVAL))
    write_whole(tmp_path / "x", "new")
    assert contents(tmp_path) == {"x": b"new"}


def test_a_writer_that_fails_for_a_reason_of_its_own_is_not_disguised(tmp_path):
    def wrong(path):
        path.write_text("half of it")
        raise ValueError("no such dtype")

    with pytest.raises(ValueError, match=r"^no such dtype$"):
        write_together(tmp_path, {"a": "new", "b": wrong})
    assert contents(tmp_path) == {}


# --- a place that takes no file -------------------------------------------------------------------


def test_no_folder_or_a_folder_of_that_name_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*no.*x\.json"):
        write_whole(tmp_path / "no" / "x.json", "new")
    (tmp_path / "b").mkdir()
    with pytest.raises(IsADirectoryError, match="a folder has this name"):
        write_together(tmp_path, {"a": "new", "b": "new"})
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_folder_that_may_not_be_written_to_is_said(tmp_path, monkeypatch):
    if os.geteuid() == 0:  # whom no permission stops
        monkeypatch.setattr("tempfile._os.mkdir", fails_with(errno.EACCES))
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match=r"Permission denied.*x\.json'$"):
            write_whole(tmp_path / "x.json", "new")
    finally:
        tmp_path.chmod(0o700)


# --- a kill ---------------------------------------------------------------------------------------

HALF = """
import sys, time
from pathlib import Path
from gptwin.records import write_together

def half(path):
    path.write_bytes(b"new" * 10)
    print("half", flush=True)
    time.sleep(60)

write_together(Path(sys.argv[1]), {"a": "new", "b": half})
"""
AGAIN = """
import itertools, sys
from gptwin.records import write_whole

for number in itertools.count():
    write_whole(sys.argv[1], str(number % 10) * 200_000)
    if number == 0:
        print("begun", flush=True)
"""


def test_a_kill_within_a_write_leaves_the_old_files(tmp_path):
    write_together(tmp_path, {"a": "old", "b": "old"})
    with subprocess.Popen(
        (sys.executable, "-c", HALF, tmp_path), stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "half\n"
        child.kill()
    found = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    assert found == {"a": "old", "b": "old"}
    write_together(tmp_path, {"a": "newer", "b": "newer"})  # what was left is in nobody's way
    assert (tmp_path / "b").read_text() == "newer"


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "x"
    for seed in range(5):
        with subprocess.Popen(
            (sys.executable, "-c", AGAIN, path), stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout.readline() == "begun\n"
            time.sleep(random.Random(seed).uniform(0, 0.05))
            child.kill()
        text = path.read_text()
        assert len(text) == 200_000 and len(set(text)) == 1


# --- one finding a line, and what made it ---------------------------------------------------------


def test_lines_come_back_and_a_broken_one_is_named(tmp_path):
    path = tmp_path / "x.jsonl"
    written = [{"a": 1}, {"b": [1.5, None], "c": "two\nlines, é"}]
    write_whole(path, records.json_lines(written))
    assert records.read_json_lines(path) == written and path.read_text().count("\n") == 2
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.json_lines([{"a": float("nan")}])
    path.write_text('{"a": 1}\n{"a":\n')
    with pytest.raises(ValueError, match=r"x\.jsonl:2: expected JSON, got Expecting value"):
        records.read_json_lines(path)
    path.write_text("[]\n")
    with pytest.raises(ValueError, match=r"x\.jsonl:1: expected a JSON object, got \[\]"):
        records.read_json_lines(path)


def test_what_made_a_figure_is_said(monkeypatch):
    found = provenance("numpy", "no-such-package")
    assert {"gptwin", "commit", "date", "system", "cpu", "cores", "python"} <= found.keys()
    assert found["numpy"] and found["no-such-package"] is None
    assert "torch" not in found
    # Of another project's repository, in which gptwin is installed, the commit says nothing.
    monkeypatch.setattr(records, "PACKAGE", records.PACKAGE / "core")
    monkeypatch.delenv("GPTWIN_COMMIT", raising=False)
    assert records.commit().startswith("files ")
    monkeypatch.setenv("GPTWIN_COMMIT", "abc")
    assert records.commit() == "abc"
