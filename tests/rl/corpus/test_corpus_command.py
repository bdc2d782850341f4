"""`gptwin corpus`, as a user types it."""

import json
from random import Random

import pytest
from typer.testing import CliRunner

from gptwin.cli import app
from gptwin.records import read_json_lines


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Forty texts, of which one holds a test and one is a copy; good ones; a test, and answers."""
    rng = Random(0)
    words = ["".join(rng.choices("abcdefgh", k=4)) for _ in range(400)]
    texts = [" ".join(rng.choices(words, k=250)) for _ in range(40)]
    asked = [" ".join(rng.choices(words, k=20)) for _ in range(4)]
    texts[3] += f" {asked[1]} yes. " + " ".join(rng.choices(words, k=250))
    texts[9] = texts[8] + " end"
    for name, lines in (
        ("texts", [{"text": text} for text in texts]),
        ("good", [{"text": " ".join(rng.choices(words[:40], k=250))} for _ in range(20)]),
        ("test", [{"question": q, "choices": ["no", "yes"], "answer": 1} for q in asked]),
        ("answers", [{}, *({"right": {"sum": i == 1}} for i in range(4))]),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    (tmp_path / "mixture.toml").write_text(
        '[web]\npath = "texts.jsonl"\nweight = 3\n[good]\npath = "good.jsonl"\nweight = 1\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["corpus", *arguments])


def test_a_plan(folder):
    done = run("plan", "mixture.toml", "--tokens", "20000")
    assert done.exit_code == 0, done.output
    assert "75.0%" in done.output and "15,000" in done.output and "summed to 4" in done.output


def test_texts_are_filtered_deduplicated_and_cleaned(folder):
    done = run(
        "filter", "texts.jsonl", "--good", "good.jsonl", "--out", "kept.jsonl", "--seed", "3"
    )
    assert done.exit_code == 0 and "of 40 texts kept" in done.output, done.output
    assert len(read_json_lines(folder / "kept.jsonl")) < 20
    done = run("dedupe", "texts.jsonl", "--out", "once.jsonl")
    assert done.exit_code == 0 and "1 of 40 texts are copies (2.5%)" in done.output
    assert len(read_json_lines(folder / "once.jsonl")) == 39
    done = run("clean", "texts.jsonl", "--tests", "test.jsonl", "--out", "clean.jsonl")
    assert done.exit_code == 0 and "a test stood in 1 of 40 texts; 0 of these" in done.output
    assert len(read_json_lines(folder / "clean.jsonl")) == 41


def test_a_test_in_the_texts_is_found_and_its_worth_told(folder):
    asked = ("contamination", "texts.jsonl", "--tests", "test.jsonl")
    done = run(*asked, "--answers", "answers.jsonl")
    assert done.exit_code == 0, done.output
    assert "1 of 4 examples share a run of 13 words" in done.output and "Lines: 2" in done.output
    assert "25.0% of 4" in done.output and "0.0% of 3" in done.output and "+25.0%" in done.output
    cleaned = run("clean", "texts.jsonl", "--tests", "test.jsonl", "--out", "clean.jsonl")
    assert cleaned.exit_code == 0
    done = run("contamination", "clean.jsonl", "--tests", "test.jsonl")
    assert "0 of 4 examples" in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("plan", "none.toml", "--tokens", "9"), "none.toml: expected a file that can be read"),
        (("plan", "mixture.toml", "--tokens", "0"), "tokens: expected a finite number above 0"),
        (("dedupe", "texts.jsonl", "--out", "texts.jsonl"), "--out: expected another file"),
        (("dedupe", "texts.jsonl", "--out", "no/x.jsonl"), "--out: expected a file in a folder"),
        (("dedupe", "none.jsonl", "--out", "x.jsonl"), "none.jsonl: expected a file that can be"),
        (("dedupe", "test.jsonl", "--out", "x.jsonl"), "the entries text, got the entries"),
        (
            ("contamination", "texts.jsonl", "--tests", "test.jsonl", "--answers", "good.jsonl"),
            "--answers: expected what gptwin evaluate stored of the 4 questions",
        ),
    ],
)  # fmt: skip
def test_wrong_input_is_named(folder, arguments, said):
    done = run(*arguments)
    assert isinstance(done.exception, ValueError)
    assert said in str(done.exception)
