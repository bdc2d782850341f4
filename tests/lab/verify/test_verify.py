"""`gptwin verify` as a user meets it: the command, its exit code, its words."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from gptwin.kernels.common import launch
from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.verify import sample, verify
from gptwin.lab.verify.blame import find_tile

from ...tools import command


def gptwin(*arguments, **environment):
    """Run it in a process of its own: it chooses what kernels are imported for."""
    done = subprocess.run(
        [sys.executable, "-m", "gptwin", *arguments],
        env={**os.environ, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_verify_prints_a_row_per_twin_and_dtype_and_stores_json(tmp_path):
    stored = tmp_path / "found.json"
    arguments = ("gelu", "--dtype", "float32", "--dtype", "bfloat16", "--examples", "3")
    status, printed, _ = gptwin("verify", *arguments, "--json", str(stored))
    assert status == 0, printed
    assert printed.count(" ok") == 2 and "all agree" in printed
    found = json.loads(stored.read_text())
    assert [(row["operation"], row["dtype"]) for row in found["rows"]] == [
        ("gelu", "float32"),
        ("gelu", "bfloat16"),
    ]
    assert found["passed"] and found["seed"] == 0 and found["torch"]
    for row in found["rows"]:
        assert row["variants_reached"] == row["variants"] == 4
        assert row["worst"]["comparisons"]


def test_a_case_can_be_run_alone():
    case = json.dumps({"shape": [2, 3], "configuration": 1})
    status, printed, _ = gptwin("verify", "softmax", "--dtype", "float16", "--case", case)
    assert status == 0 and "1 cases" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sofmax"], "operation: expected one of softmax"),
        (["--dtype", "fp32"], "dtype: expected one of float32, float16, bfloat16, got 'fp32'"),
        (["--examples", "0"], "examples: expected at least 1, got 0"),
        (["--text", "/no/such/file"], "text: expected a file that can be read"),
        (["--case", "{}"], "case: expected exactly one operation and one --dtype"),
        (["gelu", "--dtype", "float32", "--case", "{x: 1}"], "case: expected a JSON object"),
        (["gelu", "--dtype", "float32", "--case", "{}"], "case: expected one of gelu, such as"),
        (["--json", "/no/such/dir/x.json"], "json: expected a file in a directory that exists"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message):
    status, printed, errors = command.gptwin("verify", *arguments)
    assert status == 2
    assert message in errors and errors.count("\n") == 1
    assert "Traceback" not in printed + errors


def test_text_from_a_file(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be, " * 10)
    arguments = ("softmax", "--dtype", "float32", "--examples", "1", "--text", str(text))
    assert gptwin("verify", *arguments)[0] == 0
    text.write_text("too short")
    status, _, errors = command.gptwin("verify", *arguments)
    assert status == 2 and "text: expected a file of at least 48 bytes" in errors


def test_a_kernel_that_no_case_reaches_is_a_failure():
    twin = TWINS["softmax"]
    reached = {(k, i) for k, i in verify.variants(twin) if k != "softmax_forward_wide_kernel"}
    jobs = [verify.Job(twin.name, dtype, 1, 0, None) for dtype in twin.dtypes]
    rows = [verify.Row(job, 1, frozenset(reached), None, None, None) for job in jobs]
    wide = ["softmax_forward_wide_kernel #0", "softmax_forward_wide_kernel #1"]
    assert verify.unreached(rows) == {"softmax": wide}
    # One dtype alone says nothing: another may reach the rest.
    assert verify.unreached(rows[:1]) == {}


def test_the_tile_that_wrote_an_element_is_found(device):
    case = {"shape": [300, 40], "configuration": 0}
    tile = find_tile("softmax", case, "float32", "probabilities", (299, 39), None)
    assert tile is not None
    assert tile.kernel == "softmax_forward_kernel"
    assert tile.program == (299 // 32, 0, 0)  # 2048 elements: 32 rows of 64
    assert tile.block == ((288, 299), (0, 39))
    assert "kernels/layers/softmax.py:" in tile.where


def test_the_tile_is_found_in_a_tensor_given_with_its_strides(device):
    case = {"batch": 1, "head": 2, "queries": 130, "d_head": 16, "causal": True, "configuration": 0}
    tile = find_tile("attention", case, "float32", "output", (0, 1, 129, 3), None)
    assert tile is not None
    assert tile.kernel == "attention_forward_kernel"
    assert tile.program == (2, 0, 0)  # of the second head's two tiles the last comes first
    assert tile.block == ((0, 0), (1, 1), (128, 129), (0, 15))


def test_the_tile_is_found_from_a_process_that_does_not_interpret(monkeypatch):
    """As on a GPU: the case runs again in an interpreting process."""
    case = {"rows": 70, "d_in": 5, "d_out": 40, "configuration": 2}
    monkeypatch.setattr(launch, "INTERPRETED", False)
    tile = find_tile("linear", case, "float32", "d_weight", (4, 39), None)
    assert tile is not None
    assert (tile.kernel, tile.program) == ("matmul_kernel", (1, 0, 0))
    assert tile.block == ((0, 4), (32, 39))


@pytest.mark.parametrize(
    ("exact", "interpreted", "said"),
    [
        (True, {"passed": True, "bits": {"y": "ab"}}, ""),
        (True, {"passed": True, "bits": {"y": "ac"}}, "compiled and interpreted, y differs in its"),
        (False, {"passed": True, "bits": {"y": "ac"}}, ""),  # a sum may be taken in another order
        (False, {"passed": False, "bits": {}}, "the interpreter, unlike the compiled kernel, dis"),
    ],
)
def test_what_the_interpreter_finds_beside_compiled_kernels_is_told(exact, interpreted, said):
    job = verify.Job("gelu", "float32", 1, 0, None)
    checked = verify.Checked({"shape": [2]}, (), frozenset(), bits={"y": "ab"}, exact=exact)
    told = sample._difference(
        verify.Row(job, 1, frozenset(), None, None, None, checked), interpreted
    )
    assert said in told and bool(told) == bool(said)


def test_the_reproduce_command_can_be_typed():
    case = {"shape": [2], "note": "it's"}
    job = verify.Job("gelu", "float16", 1, 0, "my text.txt", case)
    checked = verify.Checked(case, (), frozenset(), "boom")
    row = verify.Row(job, 1, frozenset(), None, checked, None)
    words = shlex.split(verify.reproduce_command(row))
    assert words[:5] == ["gptwin", "verify", "gelu", "--dtype", "float16"]
    assert words[5:7] == ["--text", "my text.txt"]
    assert json.loads(words[8]) == case
