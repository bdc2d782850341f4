"""Questions and documents: right answers, nothing of the evaluation in training, a token a word."""

from random import Random

import pytest

from gptwin.rl.prompting import corpus, facts, puzzles
from gptwin.rl.prompting.calculator import calculate

FAMILIES = (*corpus.FAMILIES, "home")


@pytest.fixture(scope="module")
def documents():
    rng = Random(0)
    return [corpus.document(rng) for _ in range(3000)]


def test_a_word_is_a_token(documents):
    words = corpus.tokenizer()
    for text in (part for written in documents for part in written):
        assert len(words.encode(" " + text)) == len(text.split()), text


def test_documents_fit_into_the_context(documents):
    longest = max(len(corpus.encoded(written)) for written in documents)
    assert longest < corpus.small_gpt(0).config.n_ctx


def test_only_the_reply_and_its_end_are_trained():
    written = corpus.encoded(puzzles.Document("from 1 2 move", "1 + 2"))
    assert written.trained == [False] * 4 + [True] * 4
    assert corpus.Corpus(5, 1).batch(3) == corpus.Corpus(5, 1).batch(3)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_document_asks_what_the_evaluation_asks(family, documents):
    asked = corpus.questions(family, 100)
    assert asked == corpus.questions(family, 100)
    directly = {written.prompt for written in documents}
    for question in asked:
        assert question.family == family
        assert f"{question.text} answer" not in directly
        if family != "home":
            assert corpus.is_held_out(question)


A, B, C, D = puzzles.RING[:4]


def test_links_and_their_steps():
    assert set(puzzles.LINK) == set(puzzles.LINK.values()) == set(puzzles.NAMES)
    question = puzzles.links_of(A, 2)
    assert (question.text, question.answer) == (f"start {A} go 2", C)
    answer, steps, filler = puzzles.documents_of_links(question)
    assert answer.reply == C
    assert steps.reply == f"{A} {B} {C} answer {C}"
    assert filler.reply == f". . . answer {C}"
    assert puzzles.links_of(puzzles.RING[-1], 1).answer == A


@pytest.mark.parametrize(
    ("said", "right"),
    [
        (f"{A} {B} {C} answer {C}", 2),
        (f"{A} {C} {D} answer {D}", 1),  # wrong, and rightly gone on from there
        (f"{A} {B} {D} answer {C}", 1),
        (f"{A} {B} answer {B}", 1),  # a hop is missing
        (f"{A} {B} {C} {D} answer {D}", 2),  # hops that nobody asked for do not count
        (f"{B} {B} {B} answer {C}", 0),
        ("", 0),
    ],
)
def test_each_step_is_graded(said, right):
    assert puzzles.graded_steps(puzzles.links_of(A, 2), said) == (right, 2)


def test_stories_are_what_their_programs_compute():
    rng = Random(3)
    for _ in range(200):
        question = puzzles.draw_story(rng)
        value = calculate(question.documents[0])
        assert str(value) == question.answer
        assert 0 <= value <= corpus.LARGEST_NUMBER


def test_numbers_that_are_searched_make_ten():
    rng = Random(4)
    for _ in range(50):
        question = puzzles.draw_search(rng)
        assert puzzles.can_make(question.numbers)
        first, second, judged = puzzles.documents_of_search(question, rng)
        left = puzzles.moved(question.numbers, first.reply)
        assert second.prompt == f"{puzzles.listed(left)} move"
        assert puzzles.moved(left, second.reply) is not None
        numbers = tuple(int(word) for word in judged.prompt.split()[1:-1])
        assert (judged.reply == "sure") == puzzles.can_make(numbers)


def test_half_of_the_names_are_never_asked_directly(documents):
    hidden = set(puzzles.NAMES) - facts.ASKED_IN_TRAINING
    asked = [w.prompt for w in documents if w.prompt.startswith("colour of home of")]
    assert {p.split()[4] for p in asked if p.endswith("answer")} <= facts.ASKED_IN_TRAINING
    known = {p.split()[4] for p in asked if p.endswith("know")}
    assert known & hidden
    assert {q.text.split()[-1] for q in corpus.questions("home", 999)} == hidden


def test_pets_are_read_or_unknown():
    rng = Random(5)
    seen = set()
    for _ in range(200):
        question = facts.draw_pet(rng)
        name = question.text.split()[-1]
        telling = f"{name} keeps {question.answer}"
        assert telling in question.documents
        (written,) = facts.documents_of_pet(question, rng)
        told = telling in written.prompt.split(" . ")
        seen.add(told)
        assert written.reply == (question.answer if told else facts.UNKNOWN)
    assert seen == {True, False}


def test_the_talk_with_tools_is_the_one_that_react_has():
    question = facts.draw_ages(Random(6))
    _, first, sign, second = question.text.split()
    written = facts.documents_of_ages(question, Random(0))
    assert [w.reply.split()[0] for w in written[:4]] == ["lookup", "lookup", "calculate", "finish"]
    a, b = question.ages[first], question.ages[second]
    assert written[3].prompt == (
        f"{question.text} act lookup {first} see {a} act lookup {second} see {b} "
        f"act calculate {a} {sign} {b} see {question.answer} act"
    )
