"""Five models that differ in one thing each: their data, a whole tiny lineage, and its table."""

import dataclasses
import json
from random import Random

import pytest

from gptwin.rl import command, run_data
from gptwin.rl.data.records import DataFile, Dialogue, Preference, Text
from gptwin.rl.data.tasks import gold
from gptwin.rl.studies import lineage


def tiny(directory):
    c = lineage.SMALL
    return dataclasses.replace(
        c,
        model=dataclasses.replace(c.model, n_layer=1, n_head=2, d_model=16, vocab_size=320),
        run=dataclasses.replace(c.run, directory=str(directory), threads=1),
        pretrain=dataclasses.replace(c.pretrain, steps=2, batch=2, time=16, warmup=1),
        sft=dataclasses.replace(c.sft, examples=128, batch=4, warmup=1),
        reward=dataclasses.replace(c.reward, prompts=16, batch=4),
        ppo=dataclasses.replace(c.ppo, episodes=16, batch=16, minibatches=2, max_response=4),
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("lineage")
    with pytest.MonkeyPatch.context() as patch:
        words = [f"Some words to read, of text {i}, and more of them. " * 9 for i in range(20)]
        patch.setattr(lineage, "documentation", lambda: (words, words[:2]))
        patch.setattr(lineage, "library", lambda held_out: ["def f(x):\n    return x\n" * 30] * 20)
        # An untrained model's answers are never rated best, so that the marks are drawn.
        patch.setattr(lineage, "rated", lambda gold, rng, noise: rng.choice((6, 7)))
        patch.setattr(run_data, "TOKENIZER_EXERCISES", 300)
        patch.setattr(lineage, "MEASURED", 8)
        code = lineage.make_lineage(tiny(root), quiet=True)
        assert code == 0
        # What is there is not made again, and what is measured again is the same.
        again = lineage.Lineage(tiny(root), resume=True, quiet=True)
        again.train()
        rows = lineage.measure(again, 8)
    return root, rows


def test_five_models_and_their_table(made):
    root, rows = made
    assert [row["model"] for row in rows] == list(lineage.MODELS) == list(lineage.DIFFERS)
    kept = [json.loads(line) for line in (root / lineage.REPORT).read_text().splitlines()]
    assert "commit" in kept[0]
    assert [row["text"] for row in kept[1:]] == [row["text"] for row in rows]
    assert len({row["code"] for row in rows}) == 5  # each differs from the one before
    for row in rows:
        assert 0 <= row["one turn"]["gold"] <= 1
        assert row["several turns"]["n"] == 8
    assert lineage.table(rows).row_count == 5


def test_every_file_is_one_that_the_pipeline_reads(made):
    root, _ = made
    kinds = {"text": Text, "code": Text, "demonstrations": Dialogue, "best_rated": Dialogue,
             "rankings": Preference, "prompts": Dialogue, "dialogues": Dialogue}  # fmt: skip
    assert {path.stem for path in (root / "data").iterdir()} == set(kinds)
    for name, kind in kinds.items():
        assert list(DataFile(root / "data" / f"{name}.jsonl", kind))
    text, code = ((root / "data" / f"{name}.jsonl").read_text() for name in ("text", "code"))
    assert code.startswith(text)
    assert len(code) > 1.8 * len(text)


def test_the_picture(made, tmp_path):
    lineage.draw(made[1], tmp_path / "lineage.png")
    assert (tmp_path / "lineage.png").stat().st_size > 1000


def test_up_to_ppo_every_exercise_has_one_turn():
    for exercise in lineage.one_turn(0, 50, held_out=False):
        assert exercise.family != "remember"
        assert len(exercise.messages) == 1
    several = lineage.several_turns(0, 40, held_out=True)
    assert sum(e.family == "remember" for e in several) == 20
    for exercise in several:
        assert len(exercise.messages) >= 3
        assert gold(exercise, exercise.answer) == 1.0


def test_marks():
    rng = Random(0)
    assert [lineage.rated(g, rng, 0.0) for g in (0.0, 0.5, 1.0)] == [1, 4, 7]
    marks = [lineage.rated(0.9, rng, 0.2) for _ in range(200)]
    assert {min(marks) >= 1, max(marks) == 7, len(set(marks)) > 3} == {True}


def test_it_brings_its_own_data(capsys):
    with pytest.raises(ValueError, match=r"sft\.data: expected none, of a lineage"):
        command.train(
            "lineage", None, ["sft.data=mine.jsonl"], resume=False, skip_bad_lines=False, quiet=True
        )
    with pytest.raises(ValueError, match=r"stage: expected one of .*chatgpt, lineage"):
        command.train("linaege", None, [], resume=False, skip_bad_lines=False, quiet=True)
