"""`gptwin bench`: its sub-commands, and what it says to who asks as before."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from gptwin.cli import app


def invoke(*arguments):
    return CliRunner().invoke(app, ["bench", *arguments])


def test_alone_it_lists_what_it_can_do():
    listed = invoke().output
    for command in ("gpu", "cpu", "trl", "compare", "table", "plot"):
        assert f" {command} " in listed and invoke(command, "--help").exit_code == 0
    assert " job " not in listed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--compare A.json B.json", "compare A.json B.json"),
        ("--table README.md", "table README.md"),
        ("--out x.json --table README.md", "table --results x.json README.md"),
        ("--plot --out x.json", "plot --results x.json"),
        ("--dry-run", "gpu --dry-run"),
        ("softmax --dtype float16", "gpu softmax --dtype float16"),
        ("--budget=60 operations", "gpu --budget=60 operations"),
        ("verify --out x.json", "gpu verify --out x.json"),
        ("training generation ppo", "gpu training generation ppo"),
        ("--quick cpu --out x.json", "cpu --quick --out x.json"),
        ("--threads 1 trl", "trl --threads 1"),
    ],
)
def test_an_old_spelling_is_answered_with_the_new_one(old, new):
    refused = invoke(*old.split()).exception
    assert isinstance(refused, ValueError)
    assert str(refused) == f"bench {old}: say gptwin bench {new}"


def test_the_answer_is_one_line_and_exit_code_2():
    command = (sys.executable, "-m", "gptwin", "bench", "--compare", "A", "B")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "gptwin: bench --compare A B: say gptwin bench compare A B\n"


@pytest.mark.parametrize("words", [["nonsense"], ["--nonsense"], ["cpu", "--nonsense"]])
def test_what_never_meant_anything_is_a_plain_mistake(words):
    result = invoke(*words)
    assert result.exit_code == 2 and "nonsense" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plot", "--results", "no.jsonl"], "results: expected a result file to draw"),
        (["table", "no.md"], "table: expected a file"),
        (["compare", "a.jsonl", "b.jsonl"], "compare: expected a result file"),
        (["trl", "--out", "no/such/file.jsonl"], "out: expected a .jsonl file"),
        (["trl", "--out", "x.json"], "out: expected a .jsonl file"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = invoke(*arguments).exception
    assert isinstance(refused, ValueError) and message in str(refused)
