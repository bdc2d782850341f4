"""`gptwin evaluate`, as a user types it."""

import json

import pytest
import tiny
from typer.testing import CliRunner

from gptwin.cli import app
from gptwin.records import read_json_lines
from gptwin.rl.formats.weights import save_gpt2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of which the stage sft has ended, and files of questions beside it."""
    root = tmp_path_factory.mktemp("evaluate")
    model = tiny.gpt()
    save_gpt2(
        root / "run/sft/model", model.config, model.state_dict(), tiny.template().tokenizer,
        tiny.template().exported,
    )  # fmt: skip
    questions = [
        {"question": f"Say: {a} {b}", "choices": [a, f"{a} {b}"], "answer": f"{a} {b}"}
        for a in ("key", "moon", "bird")
        for b in ("tree", "fish")
    ]
    prompts = [{"prompt": q["question"], "completion": q["answer"]} for q in questions]
    for name, records in (("choices", questions), ("prompts", prompts)):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (root / f"{name}.jsonl").write_text(lines)
    return root


def run(folder, monkeypatch, *arguments):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")
    return CliRunner().invoke(app, ["evaluate", *arguments])


def test_choices_are_scored_printed_and_stored(folder, monkeypatch):
    done = run(folder, monkeypatch, "run", "choices.jsonl", "--shots", "2", "--train",
               "choices.jsonl", "--template", r"Q: {question}\nA:")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "6 questions, of which a guess answers 50.0%" in done.output
    head, *answers = read_json_lines(folder / "evaluation.jsonl")
    assert head["model"].endswith("sft/model") and len(answers) == 6
    assert [answer["line"] for answer in answers] == [1, 2, 3, 4, 5, 6]
    for method, result in head["results"].items():
        rights = [answer["right"][method] for answer in answers]
        assert result["right"] == sum(rights) and result["n"] == 6
        assert f"{result['accuracy']:.1%}" in done.output
        for answer in answers:
            scores = answer["scores"][method]
            assert scores[answer["picked"][method]] == pytest.approx(max(scores))
            assert answer["right"][method] == (answer["picked"][method] == answer["answer"])
    assert {answer["shots"] for answer in answers} == {2}


def test_choices_that_begin_alike_are_told_of_unless_an_end_is_scored(folder, monkeypatch):
    asked = ("run", "choices.jsonl", "--score", "sum")
    assert "In 6 questions a choice is what another one" in run(folder, monkeypatch, *asked).output
    for more in (("--end", r"\n"), ("--chat",)):
        done = run(folder, monkeypatch, *asked, *more)
        assert done.exit_code == 0 and "another one" not in done.output


def test_a_full_context_drops_whole_examples_and_says_so(folder, monkeypatch):
    done = run(folder, monkeypatch, "run", "choices.jsonl", "--shots", "5", "--train",
               "choices.jsonl", "--score", "sum", "--chat")  # fmt: skip
    assert done.exit_code == 0, done.output
    answers = read_json_lines(folder / "evaluation.jsonl")[1:]
    assert all(answer["shots"] < 5 for answer in answers)
    assert "had room for fewer than 5 examples" in done.output


def test_prompts_are_answered(folder, monkeypatch):
    done = run(folder, monkeypatch, "run", "prompts.jsonl", "--chat", "--max-new-tokens", "4",
               "--out", "said.jsonl")  # fmt: skip
    assert done.exit_code == 0, done.output
    head, *answers = read_json_lines(folder / "said.jsonl")
    assert head["results"]["exact match"]["n"] == len(answers) == 6
    assert "of the surest 10%" in done.output


def test_samples_give_pass_at_k(folder, monkeypatch):
    done = run(folder, monkeypatch, "run", "prompts.jsonl", "--chat", "--max-new-tokens", "3",
               "--samples", "6", "--temperature", "1")  # fmt: skip
    assert done.exit_code == 0, done.output
    head, *answers = read_json_lines(folder / "evaluation.jsonl")
    assert {"pass@1", "pass@5", "pass@6"} < head["results"].keys()
    assert all(len(answer["answers"]) == 6 for answer in answers)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "choices.jsonl", "--shots", "2"), "--shots: expected 0 without --train"),
        (("run", "choices.jsonl", "--train", "prompts.jsonl"), "--train: expected a file of the"),
        (("run", "choices.jsonl", "--score", "mean"), "methods: expected some of sum"),
        (("run", "choices.jsonl", "--template", "Q:"), "template: expected a text with"),
        (("run", "choices.jsonl", "--chat", "--end", "x"), "--end: expected none with --chat"),
        (("run", "choices.jsonl", "--out", "no/where.jsonl"), "--out: expected a file in a folder"),
        (("run", "none.jsonl"), "none.jsonl: expected a file that can be read"),
        (("nowhere", "choices.jsonl"), "model: expected a folder with config.json, or a run"),
        (("run", "prompts.jsonl", "--samples", "2"), "temperature: expected above 0"),
        (("run", "choices.jsonl", "--shots", "-1", "--train", "choices.jsonl"), "at least 0"),
        (("run", "choices.jsonl", "--shots", "6", "--train", "choices.jsonl"), "at most 5"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(folder, monkeypatch, arguments, said):
    done = run(folder, monkeypatch, *arguments)
    assert isinstance(done.exception, ValueError)
    assert said in str(done.exception)
