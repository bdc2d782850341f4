"""Each technique with a model whose replies are written down: what it asks, what it answers."""

import pytest

from gptwin.rl.prompting import techniques as t
from gptwin.rl.prompting.facts import retrieve
from gptwin.rl.prompting.interface import Question, Said, answer_all
from gptwin.rl.prompting.puzzles import can_make, moved, moves

LINKS = Question("links", "links", "ki")
AGES = Question("ages", "ages bade + kilo", "12", ages={"bade": "7", "kilo": "5"})
MAKE = Question("make", "from 2 3 4", "10", numbers=(2, 3, 4))


class Scripted:
    """Replies by prompt: a text, or several one after another; every other prompt gets nothing."""

    def __init__(self, replies, log_probs=None):
        self.replies = {k: [v] if isinstance(v, str) else list(v) for k, v in replies.items()}
        self.log_probs = log_probs or {}
        self.asked = []

    def say(self, calls):
        return [[self.reply(call.prompt) for _ in range(call.n)] for call in calls]

    def reply(self, prompt):
        self.asked.append(prompt)
        left = self.replies.get(prompt, [""])
        text = left.pop(0) if len(left) > 1 else left[0]
        return Said(text, self.log_probs.get(text, -1.0), 1, 1, True)


def answered(technique, question, replies, log_probs=None):
    model = Scripted(replies, log_probs)
    (found,) = answer_all(model, technique, [question])
    return found.answer, model.asked


def test_one_call_each():
    assert answered(t.cued(), LINKS, {"links answer": "ki"})[0] == "ki"
    assert answered(t.reasoned(), LINKS, {"links steps": "ba de ki answer ki"})[0] == "ki"
    # Steps without an answer after them are none, however right they are.
    assert answered(t.reasoned(), LINKS, {"links steps": "ba de ki"})[0] == ""
    assert answered(t.programmed(), LINKS, {"links program": "( 1 + 1 ) * 3"})[0] == "6"
    assert answered(t.programmed(), LINKS, {"links program": "print(6)"})[0] == ""


def test_several_answers():
    said = [f"answer {x}" for x in (7, 5, 5, 7, 3)]
    prompt = "links steps"
    assert answered(t.voted(5), LINKS, {prompt: said})[0] == "7"
    log_probs = {"answer 7": -3.0, "answer 5": -2.0, "answer 3": -1.9}
    assert answered(t.weighed(5), LINKS, {prompt: said}, log_probs)[0] == "5"
    assert answered(t.likeliest(5), LINKS, {prompt: said}, log_probs)[0] == "3"
    assert answered(t.any_of(5), LINKS, {prompt: said})[0] == "7"
    assert answered(t.any_of(6), LINKS, {prompt: [*said, "answer ki"]})[0] == "ki"


def test_facts_come_before_the_question():
    question = Question("home", "colour of home of bade", "red")
    facts = "bade lives in oslo , oslo is red"
    answer, asked = answered(
        t.known_first(), question,
        {f"{question.text} know": facts, f"{facts} . {question.text} answer": "red"},
    )  # fmt: skip
    assert answer == "red"
    assert len(asked) == 2
    _, asked = answered(t.told(lambda q: "a . b"), question, {})
    assert asked == ["a . b . colour of home of bade answer"]


def test_a_chain_asks_about_what_it_got():
    question = Question("chain", "moon tree key", "tree")
    replies = {
        "reverse moon tree key answer": "key tree moon",
        "second key tree moon answer": "tree",
    }
    assert answered(t.chained(), question, replies)[0] == "tree"
    _, asked = answered(t.asked_as_one(), question, {})
    assert asked == ["second reverse moon tree key answer"]


def test_the_search_for_documents_is_by_words_and_keeps_the_order_of_equals():
    documents = ["kilo keeps fox", "bade likes red", "bade keeps cow", "bade bade bade"]
    assert retrieve("pet of bade", documents, 2) == ["bade likes red", "bade keeps cow"]
    assert retrieve("pet of bade", documents, 9)[-1] == "kilo keeps fox"
    question = Question("pet", "pet of bade", "cow", documents=tuple(documents))
    _, asked = answered(t.retrieved(2), question, {})
    assert asked == ["bade likes red . bade keeps cow . pet of bade answer"]


# --- tools ---------------------------------------------------------------------------------------

ACTS = {
    "ages bade + kilo act": "lookup bade",
    "ages bade + kilo act lookup bade see 7 act": "lookup kilo",
    "ages bade + kilo act lookup bade see 7 act lookup kilo see 5 act": "calculate 7 + 5",
    "ages bade + kilo act lookup bade see 7 act lookup kilo see 5 act calculate 7 + 5 see 12 act": (
        "finish 12"
    ),
}


def test_tools_are_used_until_the_model_is_done():
    answer, asked = answered(t.acted(), AGES, ACTS)
    assert answer == "12"
    assert asked == list(ACTS)


@pytest.mark.parametrize(
    "action",
    ["lookup nobody", "calculate 7 +", "calculate 1 / 0", "search bade", "gibberish", "",
     "calculate __import__('os')"],
)  # fmt: skip
def test_what_no_tool_makes_sense_of_shows_nothing(action):
    assert t.observed(action, t.tools_of(AGES)) == ""


def test_after_the_last_round_an_answer_is_forced():
    looped = {}
    prompt = "ages bade + kilo"
    for _ in range(t.ROUNDS):
        looped[f"{prompt} act"] = "lookup x"
        prompt += " act lookup x see"
    answer, asked = answered(t.acted(), AGES, looped | {f"{prompt} answer": "9"})
    assert answer == "9"
    assert len(asked) == t.ROUNDS + 1


# --- search --------------------------------------------------------------------------------------


def test_moves():
    assert set(moves((2, 5))) == {"2 + 5", "2 * 5", "5 - 2"}
    assert moved((2, 3, 4), "2 * 3") == (4, 6)
    for wrong in ("2 * 2", "3 - 4", "2 / 4", "2 *", "9 + 2", "2 * 3 + 4", "two + 3"):
        assert moved((2, 3, 4), wrong) is None, wrong
    assert can_make((2, 3, 4))
    assert not can_make((1, 1, 1))


def test_a_tree_keeps_what_is_judged_best():
    replies = {
        "from 2 3 4 move": ["2 + 3", "nonsense", "2 * 3", "2 + 3"],
        "from 4 5 value": "impossible", "from 4 6 value": "sure",
        "from 4 6 move": ["4 + 6", "4 * 6", "4 * 6", "4 * 6"],
    }  # fmt: skip
    answer, asked = answered(t.searched(1, proposals=4), MAKE, replies)
    assert answer == "10"
    assert asked.count("from 4 6 move") == 4
    assert "from 4 5 move" not in asked
    # What need not be narrowed down is not judged.
    _, asked = answered(t.searched(2, proposals=4), MAKE, replies)
    assert "from 4 6 value" not in asked


def test_of_equal_judgements_the_first_stays_and_no_move_ends_it():
    replies = {"from 2 3 4 move": ["2 + 3", "2 * 3"]}
    _, asked = answered(t.searched(1, proposals=2), MAKE, replies)
    assert "from 4 5 move" in asked
    assert answered(t.searched(1), MAKE, {}) == ("", ["from 2 3 4 move"] * 6)


def test_trying_stops_at_the_first_that_makes_it():
    replies = {
        "from 2 3 4 move": ["2 + 3", "2 * 3"], "from 4 5 move": "4 + 5", "from 4 6 move": "4 + 6",
    }  # fmt: skip
    answer, asked = answered(t.tried(5), MAKE, replies)
    assert answer == "10"
    assert len(asked) == 4
    assert answered(t.tried(1), MAKE, replies)[0] == "9"
