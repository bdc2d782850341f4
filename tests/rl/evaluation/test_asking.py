"""Questions as tokens, K-shot prompts, and the files that they are read from."""

import json

import pytest
import tiny

from gptwin.rl.evaluation.asking import Chatting, Plain, Shot, pair
from gptwin.rl.evaluation.items import ChoiceItem, FreeItem, read_items
from gptwin.rl.evaluation.log_probs import Request
from gptwin.rl.evaluation.shots import drawn, fitted
from gptwin.rl.formats.tokenizer import Tokenizer

TOKENIZER = tiny.template().tokenizer
SHOTS = [Shot(f"Question {i}?", f"answer {i}") for i in range(20)]


def test_an_answer_is_scored_with_its_leading_space():
    request = Plain(TOKENIZER).request((), "Say: moon  ", "moon")
    assert TOKENIZER.decode(request.context) == "Say: moon"
    assert TOKENIZER.decode(request.continuation) == " moon"
    assert request.continuation == TOKENIZER.encode(" moon")


def test_a_context_that_ends_in_a_space_is_refused():
    with pytest.raises(ValueError, match=r"ends in no space.*belongs to the answer"):
        pair(TOKENIZER, "Say: ", "moon")


def test_an_empty_continuation_is_refused():
    with pytest.raises(ValueError, match="continuation: expected a text"):
        pair(TOKENIZER, "Say:", "")


def test_a_context_must_tokenise_to_a_prefix():
    lines = Tokenizer.train(["a\n\nb"] * 9 + ["\n\n\n\n"] * 9, 260)
    assert len(lines.encode("\n\n")) == 1
    assert pair(lines, "a\n\n", " b").continuation == lines.encode(" b")
    with pytest.raises(ValueError, match="tokens the text with its answer begins with"):
        pair(lines, "a\n\n", "b")


def test_an_empty_context_is_a_documents_beginning():
    begin = TOKENIZER.special_tokens["<|endoftext|>"]
    assert Plain(TOKENIZER).after("", "moon") == Request([begin], TOKENIZER.encode(" moon"))
    bare = Tokenizer.train(["a"], 256, ())
    with pytest.raises(ValueError, match="context: expected a text"):
        Plain(bare).after("", "moon")


def test_a_template_has_a_place_for_the_question():
    with pytest.raises(ValueError, match=r"template: expected a text with \{question\}"):
        Plain(TOKENIZER, template="Q: {}")
    # Braces of the question are the question's own.
    asked = Plain(TOKENIZER, "Q: {question} A:").context((), "{question} {x}")
    assert TOKENIZER.decode(asked) == "Q: {question} {x} A:"


def test_shots_come_before_the_question():
    ids = Plain(TOKENIZER, "Q: {question}\nA:").context(SHOTS[:2], "Last?")
    shown = "Q: Question 0?\nA: answer 0\n\nQ: Question 1?\nA: answer 1\n\nQ: Last?\nA:"
    assert TOKENIZER.decode(ids) == shown
    said = TOKENIZER.decode(Chatting(tiny.template()).context(SHOTS[:1], "Last?"))
    assert said == (
        "<|user|> Question 0?<|end|><|assistant|> answer 0<|end|><|user|> Last?<|end|><|assistant|>"
    )


def test_an_answer_ends_with_its_line():
    plain = Plain(TOKENIZER)
    assert set(TOKENIZER.encode("\n")) <= set(plain.stops())
    assert plain.text(TOKENIZER.encode(" moon \nQ:")) == "moon"


# --- which shots, and how many -------------------------------------------------------------------


def test_the_questions_own_example_is_never_a_shot():
    for seed in range(50):
        shots = drawn(SHOTS, 19, "Question 3?", seed)
        assert len(set(shots)) == 19 and SHOTS[3] not in shots


def test_shots_are_drawn_anew_for_each_question_and_the_same_for_a_seed():
    assert drawn(SHOTS, 5, "x", 0, 1) == drawn(SHOTS, 5, "x", 0, 1) != drawn(SHOTS, 5, "x", 0, 2)
    assert drawn(SHOTS, 0, "x", 0) == drawn([], 0, "x", 0) == ()


def test_more_shots_than_examples_are_refused():
    with pytest.raises(ValueError, match="at most 19, the training examples of other questions"):
        drawn(SHOTS, 20, "Question 3?", 0)
    with pytest.raises(ValueError, match="no training examples: name a file"):
        drawn([], 1, "x", 0)


def tokens_needed(shots):
    """Of examples of 10 tokens, a question of 8 and answers of 4."""
    return 10 * len(shots) + 8 + 4


def test_whole_examples_are_dropped_the_oldest_first():
    assert fitted(SHOTS, tokens_needed, 128) == tuple(SHOTS[-11:])
    assert fitted(SHOTS, tokens_needed, 12) == ()


def test_a_question_is_never_cut():
    with pytest.raises(ValueError, match=r"question: expected at most 11 tokens.*got 12"):
        fitted(SHOTS, tokens_needed, 11)


# --- files ---------------------------------------------------------------------------------------


def lines_of(tmp_path, *records):
    path = tmp_path / "items.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_an_answer_is_a_place_a_text_or_a_truth(tmp_path):
    choices = ["no", " yes"]
    path = lines_of(
        tmp_path,
        {"question": "a", "choices": choices, "answer": 1},
        {"question": "b", "choices": choices, "answer": "yes"},
        {"question": "c", "answer": False},
    )
    assert read_items(path) == [
        ChoiceItem("a", ("no", "yes"), 1),
        ChoiceItem("b", ("no", "yes"), 1),
        ChoiceItem("c", ("True", "False"), 1),
    ]
    assert read_items(path)[2].line == 3


def test_a_completion_is_one_or_several(tmp_path):
    path = lines_of(
        tmp_path,
        {"prompt": "2 + 2 =", "completion": "4"},
        {"prompt": "4 =", "completion": ["4", "four"]},
    )
    assert read_items(path) == [FreeItem("2 + 2 =", ("4",)), FreeItem("4 =", ("4", "four"))]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"question": "a", "choices": ["x"], "answer": 0}, "choices: expected a list of two"),
        ({"question": "a", "choices": "xy", "answer": 0}, "choices: expected a list of two"),
        ({"question": "a", "choices": ["x", "x"], "answer": 0}, "a choice unlike the others"),
        ({"question": "a", "choices": ["x", " "], "answer": 0}, "choices.1.: expected a text"),
        ({"question": "a", "choices": ["x", "y"], "answer": 2}, "places count from 0"),
        ({"question": "a", "choices": ["x", "y"], "answer": "z"}, "one of the choices"),
        ({"question": "a", "choices": ["x", "y"], "answer": True}, "leave choices out"),
        ({"question": "a", "choices": ["x", "y"], "answer": 0.0}, "0 to 1, or a choice's text"),
        ({"question": 3, "choices": ["x", "y"], "answer": 0}, "question: expected a string"),
        ({"prompt": "a", "completion": []}, "completion: expected a string"),
        ({"prompt": "a", "response": "b"}, "the entries prompt, response"),
        ({"prompt": "a", "completion": "b"}, "a question with choices, as the lines before"),
    ],
)
def test_a_bad_line_is_named(tmp_path, record, said):
    path = lines_of(tmp_path, {"question": "a", "answer": True}, record)
    with pytest.raises(ValueError, match=rf"items\.jsonl:2: .*{said}"):
        read_items(path)


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a question at least"):
        read_items(lines_of(tmp_path))
