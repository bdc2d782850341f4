"""`gptwin prompt`, and what its studies look into."""

import json

import pytest

from gptwin.rl.prompting.interface import Answered, Question, Said
from gptwin.rl.prompting.puzzles import HOPS, RING, links_of
from gptwin.rl.studies import in_context, measured, technique_study, techniques


def answered(question, answer, *talk):
    return Answered(question, answer, len(talk), 1, 1, 0, list(talk))


def test_without_a_technique_it_lists_them(capsys):
    assert techniques.prompt("") == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == list(techniques.NAMES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "chain-of-thougt"}, "technique: expected one of chain-of-thought, .*or all"),
        ({"name": "react", "n": 1}, "questions: expected at least 2, got 1"),
        ({"name": "react", "model": "nowhere"}, "nowhere"),
    ],
)
def test_wrong_input_is_refused_by_name(options, message):
    with pytest.raises((ValueError, OSError), match=message):
        techniques.prompt(**options)


def test_rows_are_stored_and_questions_shown(monkeypatch, tmp_path, capsys):
    class Knows:
        seed = 0

        def say(self, calls):
            return [[Said("6", -0.1, 4, 2, True)] * call.n for call in calls]

    monkeypatch.setattr(techniques, "teach", lambda *_, **__: Knows())
    file = tmp_path / "rows.jsonl"
    assert techniques.prompt("program-aided", n=4, show=1, json_file=str(file)) == 0
    head, *rows = map(json.loads, file.read_text().splitlines())
    assert "commit" in head
    assert [(row["arm"], row["n"], row["calls"]) for row in rows] == [
        ("answer at once", 4, 1.0), ("program", 4, 1.0),
    ]  # fmt: skip
    assert "→  6" in capsys.readouterr().out


A, B, C, D = RING[:4]


def test_details_of_chains_of_thought():
    one, two = (links_of(A, hops) for hops in (1, 2))
    good = answered(one, B, ("p", f"{A} {B} answer {B}"))
    bad = answered(two, D, ("p", f"{A} {C} {D} answer {D}"))
    assert technique_study.by_hops([bad, good, good]) == {1: (2, 2), 2: (0, 1)}
    rows = technique_study.details("chain-of-thought", {"steps": [good, bad]})
    assert rows[-1] == {
        "technique": "chain-of-thought", "arm": "each step", "hops": 0, "right": 2, "n": 3,
    }  # fmt: skip


def test_details_of_a_chain_and_a_search():
    question = Question("chain", "moon tree key", "tree")
    whole = answered(question, "tree", ("", "key tree moon"), ("", "tree"))
    # The first stage errs, the second one does what it is asked to.
    half = answered(question, "key", ("", "tree key moon"), ("", "key"))
    assert technique_study.stages([whole, half]) == [
        ("reverse", {"right": 1, "n": 2}), ("second", {"right": 2, "n": 2}),
    ]  # fmt: skip
    question = Question("pet", "pet of bade", "cow", ("bade likes red", "bade keeps cow"))
    found = [answered(question, "cow"), answered(question, "fox")]
    assert technique_study.hits("retrieval", "best 1", 1, found)["hits"] == 0
    both = technique_study.hits("retrieval", "best 2", 2, found)
    assert (both["hits"], both["right of hits"]) == (2, 1)


def test_votes_stand_beside_their_theory():
    class Sure:
        """Replies with the right answer three times of four, in an order that repeats."""

        def say(self, calls):
            texts = [f"answer {x}" for x in (B, B, C, B)] * 10
            return [[Said(text, -1.0, 1, 1, True) for text in texts] for _ in calls]

    rows = technique_study.votes(Sure(), [links_of(A, 1)])
    one = {row["votes"]: row for row in rows if row["temperature"] == 1.0}
    assert (one[1]["right"], one[1]["n"], one[1]["theory"]) == (30, 40, pytest.approx(0.75))
    assert one[40]["right"] == one[40]["n"] == 1
    assert one[3]["theory"] == pytest.approx(0.75**3 + 3 * 0.75**2 * 0.25)


def test_pictures(tmp_path):
    rows = [
        {"map": labels, "size": size, "control": control, "k": k, "right": 3, "n": 4}
        for labels in in_context.MAPS for size in in_context.SIZES
        for control in in_context.CONTROLS for k in in_context.SHOTS if k or control == "right"
    ]  # fmt: skip
    in_context.draw(rows, tmp_path / "in_context.png")
    arms = [("chain-of-thought", arm) for arm in techniques.EXPERIMENTS["chain-of-thought"].arms]
    rows = [{"arm": arm, "hops": k, "right": 1, "n": 2} for _, arm in arms for k in HOPS]
    rows += [
        {"temperature": t, "votes": n, "right": 1, "n": 2, "theory": 0.5}
        for t in technique_study.TEMPERATURES for n in technique_study.VOTES
    ]  # fmt: skip
    rows += [
        {"technique": "tree-of-thoughts", "arm": arm, "right": 1, "n": 2, "calls": 5.0}
        for arm in techniques.EXPERIMENTS["tree-of-thoughts"].arms
    ]
    technique_study.draw(rows, tmp_path / "techniques.png")
    assert all((tmp_path / f"{name}.png").exists() for name in ("in_context", "techniques"))


def test_levels_that_can_be_reached():
    assert in_context.exact("random", "right", 2) == 0.875
    assert in_context.exact("random", "wrong", 2) == 0.125
    assert (
        in_context.exact("random", "shuffled", 8) == in_context.exact("random", "format", 8) == 0.5
    )
    assert in_context.exact("fixed", "wrong", 8) == 1.0
    rows = [
        {"k": 1, "right": 2, "n": 4},
        {"k": 1, "right": 1, "n": 4},
        {"k": 2, "right": 9, "n": 9},
    ]
    assert in_context.pooled(rows, k=1) == (3, 8)


def test_a_study_goes_on_where_it_was_cut(monkeypatch, tmp_path):
    asked = []

    def measure(seed, directory):
        asked.append(seed)
        return [{"seed": seed, "right": 1}]

    study = measured.Study(measure, dict, lambda rows, path: path.write_text(str(len(rows))))
    monkeypatch.setitem(measured.STUDIES, "in_context", study)
    monkeypatch.setattr(measured, "RESULTS", tmp_path / "results")
    runs = ["--directory", str(tmp_path / "runs")]
    measured.main(["in_context", "--seeds", "0", *runs])
    measured.main(["in_context", "--seeds", "0", "1", *runs])
    assert asked == [0, 1]
    head, *rows = (tmp_path / "results/in_context.jsonl").read_text().splitlines()
    assert json.loads(head)["seeds"] == [0, 1]
    assert [json.loads(row)["seed"] for row in rows] == [0, 1]
    assert (tmp_path / "results/in_context.png").read_text() == "2"
