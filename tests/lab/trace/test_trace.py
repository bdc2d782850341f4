"""`gptwin trace` as a user meets it: pictures, a table, an exit code."""

import dataclasses
import json

import pytest

from gptwin.kernels.common.launch import INTERPRETED
from gptwin.lab.trace.tiles import panels_of
from gptwin.lab.trace.trace import trace_operation
from gptwin.lab.trace.traffic import trace
from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.twins.twin import Cost

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="a GPU shows nothing of this")


def run(operation, folder, case=None, dtype="float32"):
    return trace_operation(operation, case=case and json.dumps(case), dtype=dtype, out=str(folder))


def test_pictures_of_both_passes_and_a_table(tmp_path, capsys):
    assert run("layer_norm", tmp_path) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "layer_norm-backward.png",
        "layer_norm-backward.svg",
        "layer_norm-forward.png",
        "layer_norm-forward.svg",
        "layer_norm.html",
    ]
    printed = capsys.readouterr().out
    assert "read residual" in printed and "as declared" in printed


def test_fewer_bytes_are_a_fault_only_where_no_data_can_hide_any(tmp_path, capsys, monkeypatch):
    assert run("kl", tmp_path, {"shape": [2, 30], "share": 0.5}) == 0
    assert "fewer" in capsys.readouterr().out
    too_much = Cost(1, {"log_prob": 10**6}, {})
    twin = dataclasses.replace(TWINS["kl"], cost=lambda case, itemsize: (too_much, too_much))
    monkeypatch.setitem(TWINS, "kl", twin)
    assert run("kl", tmp_path) == 1
    assert "more" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("operation", "case", "dtype", "message"),
    [
        ("sofmax", None, "float32", "operation: expected one of softmax"),
        ("kl", None, "float16", "dtype: expected one that kl takes: float32"),
        ("gelu", {}, "float32", "case: expected one of gelu"),
        ("gelu", {"shape": [2**12, 2**11 + 1]}, "float32", "case: expected a small one"),
    ],
)
def test_bad_input_is_refused(operation, case, dtype, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        trace_operation(
            operation, case=None if case is None else json.dumps(case), dtype=dtype,
            out=str(tmp_path),
        )  # fmt: skip


def test_causal_programs_read_the_keys_up_to_their_queries_in_order():
    traced = trace(TWINS["attention"], TWINS["attention"].studies[0])
    panels = panels_of(traced, traced.passes[0], 0)
    value = next(panel for panel in panels if panel.field.name == "value")
    assert value.is_shared and len(value.tiles) == 12
    # the program with the last queries starts first, and sees every tile of 32 keys
    seen = [sum(t.program == program for t in value.touches) for program in value.programs]
    assert seen == [12, 8, 4]
    turns = [touch.turn for touches in value.tiles.values() for touch in touches]
    assert turns == [i for i in range(12) for program in seen if i < program]
