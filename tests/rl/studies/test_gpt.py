"""The small world of GPT's studies, and what they stored."""

import itertools
from random import Random

import pytest

from gptwin.records import read_json_lines, results_folder
from gptwin.rl.corpus.contamination import overlaps
from gptwin.rl.data.tasks import gold
from gptwin.rl.studies.gpt import leaks, world

STORED = results_folder("rl/studies/results")


def test_answers_are_scored_as_the_documents_have_them():
    """Else the end that is scored would be a token that no document holds."""
    exercises = list(itertools.islice(world.asked(held_out=False, seed=3), 30))
    for exercise, after in itertools.pairwise(exercises):
        request = world.asking().request((), world.question(exercise), exercise.answer)
        ids = request.context + request.continuation
        running = world.tokenizer().encode(world.document(exercise) + world.document(after))
        assert running[: len(ids)] == ids


def test_wrong_answers_are_wrong_and_unlike_each_other():
    rng = Random(0)
    for exercise in itertools.islice(world.asked(held_out=True, seed=3), 60):
        answers = world.wrong_answers(exercise, rng, 3)
        assert len({*answers, exercise.answer}) == 4
        assert all(gold(exercise, answer) < 1 for answer in answers)


def test_leaks_are_found_but_for_those_in_other_words(monkeypatch):
    """A namesake's question, with the same answer at the same place, shares a run of 13 words."""
    words = Random(0).choices(["alpha", "beta", "gamma", "delta", "epsilon", "zeta"], k=30_000)
    monkeypatch.setattr(leaks, "documentation", lambda: ([" ".join(words)], []))
    known, is_planted = leaks.facts(0)
    planted = [fact for fact, there in zip(known, is_planted, strict=True) if there]
    texts = leaks.texts(0, planted)
    tests = [fact.test for fact in known]
    reworded = overlaps(tests, [fact.reworded() for fact in known])
    assert not any(found.is_dirty for found in reworded)
    read = [fact for fact in known if any(fact.test in text for text in texts)]
    assert 0 < len(read) < len(planted) and set(read) < set(planted)

    def run(fact):
        return fact.who.split()[1], fact.place, fact.thing

    expected = [run(fact) in set(map(run, read)) for fact in known]
    assert [found.is_dirty for found in overlaps(tests, texts)] == expected
    assert not any(found.is_dirty for found in overlaps(tests, leaks.texts(0, [])))


@pytest.mark.parametrize("file", sorted(STORED.glob("gpt-*.jsonl")), ids=lambda file: file.stem)
def test_figures_are_stored_with_their_seeds_and_what_made_them(file):
    head, *rows = read_json_lines(file)
    assert f"gpt-{head['study']}" == file.stem and {"commit", "cpu", "date"} <= head.keys()
    assert rows and {row["seed"] for row in rows} <= set(world.SEEDS)
    for row in rows:
        for share in (row, *(row.get(part) or {} for part in ("all", "clean", "dirty"))):
            if "accuracy" in share:
                low, high = share["interval"]
                assert low <= share["accuracy"] == share["right"] / share["n"] <= high
    assert file.with_suffix(".png").is_file()
