"""What the instruments store is there whole, says what made it, and fails in one line."""

import json
import os

import pytest

from gptwin.lab import store


def test_a_document_is_stored_with_what_made_it_and_readable_by_others(tmp_path):
    path = tmp_path / "found.json"
    store.write_json(path, {"rows": [1]})
    found = json.loads(path.read_text())
    assert found["rows"] == [1] and found["torch"] and found["date"]
    assert found["sources"] == store.fingerprints()
    assert {"core/layers/gelu.py", "kernels/layers/gelu.py"} <= set(found["sources"])
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    store.write_text(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RuntimeError, match=r"page.html: cannot be written: No space left"):
        store.write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == [path.name]


def test_where_nothing_can_be_written_is_refused_before_the_work(tmp_path):
    assert store.expect_writable("out", str(tmp_path / "x.html")) == tmp_path / "x.html"
    with pytest.raises(ValueError, match="out: expected a file in a directory that exists"):
        store.expect_writable("out", str(tmp_path / "no" / "x.html"))
    with pytest.raises(ValueError, match="out: expected a file, got the directory"):
        store.expect_writable("out", str(tmp_path))
