"""What the instruments store is there whole, says what made it, and fails in one line."""

import json

import pytest

from gptwin.lab import store


def test_a_document_is_stored_with_what_made_it_and_readable_by_others(tmp_path):
    path = tmp_path / "found.json"
    store.write_rows(path, store.made_with() | {"seed": 3}, [{"a": 1}])
    found = json.loads(path.read_text())
    assert found == store.read_rows(path) and found["seed"] == 3
    assert found["rows"] == [{"a": 1}] and found["torch"] and found["date"] and found["commit"]
    assert found["sources"] == store.fingerprints()
    assert {"core/layers/gelu.py", "kernels/layers/gelu.py"} <= set(found["sources"])
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_name_in_jsonl_gets_a_row_a_line(tmp_path):
    path, rows = tmp_path / "found.jsonl", [{"a": 1}, {"a": [2]}]
    store.write_rows(path, {"seed": 3}, rows)
    assert path.read_text() == '{"seed": 3}\n{"a": 1}\n{"a": [2]}\n'
    assert store.read_rows(path) == {"seed": 3, "rows": rows}


def test_where_nothing_can_be_written_is_refused_before_the_work(tmp_path):
    assert store.expect_writable("out", str(tmp_path / "x.html")) == tmp_path / "x.html"
    with pytest.raises(ValueError, match="out: expected a file in a directory that exists"):
        store.expect_writable("out", str(tmp_path / "no" / "x.html"))
    with pytest.raises(ValueError, match="out: expected a file, got the directory"):
        store.expect_writable("out", str(tmp_path))
