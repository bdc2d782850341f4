"""What a run goes on from, and what it reads before its first step: whatever differs is named."""

import dataclasses
import json
import re
import shutil

import chain
import pytest

from gptwin.rl.data import sources
from gptwin.rl.formats.checksums import checksum
from gptwin.rl.pipeline import LEFT, STAGES, Pipeline
from gptwin.rl.run_data import RunData
from gptwin.rl.training.inputs import read_ended, write_ended
from gptwin.rl.training.lock import only_writer


def changed(directory, **tables):
    """Return the chain's settings, but for {"ppo": {"ptx": 1.0}}."""
    configuration = chain.configuration(directory)
    tables = {n: dataclasses.replace(getattr(configuration, n), **t) for n, t in tables.items()}
    return dataclasses.replace(configuration, **tables)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    chain.few(monkeypatch.setattr)


def going_on(directory, stage, **tables):
    getattr(Pipeline(changed(directory, **tables), resume=True, quiet=True), stage)()


@pytest.mark.parametrize(
    ("stage", "table", "settings", "message"),
    [
        ("sft", "pretrain", {"time": 16}, r"pretrain\.time: expected 32, got 16"),
        ("reward", "sft", {"examples": 65}, r"sft\.examples: expected 64, got 65"),
        ("reward", "ppo", {"max_response": 9}, r"ppo\.max_response: expected 8, got 9"),
        ("ppo", "pretrain", {"time": 16}, r"pretrain\.time: expected 32, got 16"),
        ("ppo", "run", {"seed": 1}, r"run\.seed: expected 0, got 1"),
        ("sft", "run", {"dtype": "bfloat16"}, r"run\.dtype: expected 'float32', got 'bfloat16'"),
    ],
)
def test_a_setting_that_a_later_stage_reads_is_compared(whole, stage, table, settings, message):
    with pytest.raises(ValueError, match=f"^{message}.*another setting than the run in"):
        going_on(whole, stage, **{table: settings})


@pytest.mark.parametrize("stage", ["pretrain", "sft", "ppo"])
def test_a_data_file_of_other_order_is_named(whole, tmp_path, stage):
    lines = (whole.parent / "text.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "text.jsonl").write_text("".join(reversed(lines)))
    data = {"data": str(tmp_path / "text.jsonl")}
    with pytest.raises(ValueError, match=r"^pretrain\.data: .*another content of the file than"):
        going_on(whole, stage, pretrain=data)


@pytest.mark.parametrize(
    ("trained", "stage", "file"),
    [
        ("pretrain", "sft", "pretrain/model/model.safetensors"),
        ("sft", "reward", "sft/model/model.safetensors"),
        ("reward", "ppo", "reward/scorer.safetensors"),
    ],
)
def test_a_model_that_was_trained_anew_in_between_is_named(whole, tmp_path, trained, stage, file):
    run = tmp_path / "run"
    shutil.copytree(whole, run, ignore=shutil.ignore_patterns("checkpoints"))
    shutil.copy(whole.parent / "text.jsonl", tmp_path)
    data = bytearray((run / file).read_bytes())
    data[-5] ^= 1
    (run / file).write_bytes(data)
    ended = read_ended(run / trained)
    write_ended(run / trained, ended.inputs, ended.steps, LEFT[trained])
    with pytest.raises(ValueError, match=rf"^{re.escape(file)}: .*another file than the run in"):
        going_on(run, stage)


def test_weights_and_where_they_lie(whole, tmp_path):
    """A folder of weights is known by its files, not by its name."""
    for name in ("one", "two"):
        shutil.copytree(whole / "pretrain/model", tmp_path / name)
    one, two = (
        RunData(changed(tmp_path / "run", model={"weights": str(tmp_path / name)})).inputs("sft")
        for name in ("one", "two")
    )
    assert one == two
    file = tmp_path / "two/model.safetensors"
    assert one["model.weights/model.safetensors"] == f"sha256 {checksum(file)}"
    tables = {"model": {"weights": str(tmp_path / "one")}, "ppo": {"max_response": 96}}
    with pytest.raises(
        ValueError, match=r"^ppo\.max_response: expected below the model's n_ctx = 96"
    ):
        Pipeline(changed(tmp_path / "run", **tables))


def test_all_data_are_read_before_the_first_step(tmp_path):
    """As found: a record of a later stage that is too long stopped the chain in its middle."""
    lines = [{"prompt": "Hi", "chosen": "Yes", "rejected": "No"} for _ in range(20)]
    lines[16]["prompt"] = "Hello there. " * 60
    file = tmp_path / "ranked.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for table in ("reward", "ppo"):
        pipeline = Pipeline(changed(tmp_path / "run", **{table: {"data": str(file)}}), quiet=True)
        with pytest.raises(ValueError, match=r"1 of 20 that are longer \(lines 17; the longest"):
            pipeline.all()
    assert not any((tmp_path / "run" / stage).exists() for stage in STAGES)


def test_settings_are_checked_by_whoever_makes_them(tmp_path):
    with pytest.raises(ValueError, match=r"^sft\.epochs: expected at least 1, got 0"):
        Pipeline(changed(tmp_path / "run", sft={"epochs": 0}))
    assert not (tmp_path / "run").exists()


def test_a_run_that_goes_on_elsewhere_is_left_alone(whole):
    with only_writer(whole), pytest.raises(ValueError, match=r"^run\.directory: .*that nobody wr"):
        going_on(whole, "all")


def test_a_pass_without_gradients_takes_no_more_than_training(tmp_path):
    pipeline = Pipeline(changed(tmp_path / "run"), quiet=True)
    c = pipeline.configuration.ppo
    assert (c.batch, c.minibatches) == (16, 4)
    assert [pipeline._answers_at_once(most) for most in (64, 3)] == [4, 3]


# --- what is mixed into data of one's own ----------------------------------------------------


def written(file, lines):
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"data": str(file)}


PAIRS = [{"prompt": "Hi", "chosen": f"Yes {i}", "rejected": "No"} for i in range(40)]
BUILTIN = {"data": ""}


@pytest.fixture
def notes(tmp_path, monkeypatch, capsys):
    """Return what a run says of the data that it brings along itself, while it does something."""
    monkeypatch.setattr(
        sources, "documentation", lambda n: (["Words to read. " * 99], ["Some. " * 99])
    )

    def said(do, **tables):
        capsys.readouterr()
        do(Pipeline(changed(tmp_path / "run", **tables), quiet=True))
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return [line for line in capsys.readouterr().err.splitlines() if "gptwin brings" in line]

    return said


def test_a_tokenizer_of_ones_own_text_says_what_else_it_is_of(notes):
    (line,) = notes(lambda pipeline: pipeline.tokenizer)
    assert line.startswith("Note: the tokenizer mixes in the words of the built-in exercises")
    assert notes(lambda pipeline: pipeline.tokenizer, pretrain=BUILTIN) == []


def test_ppo_on_ones_own_prompts_says_once_what_text_it_mixes_in(notes, tmp_path):
    def twice(pipeline):
        pipeline._pretraining_term()
        pipeline._pretraining_term()

    own = written(tmp_path / "own.jsonl", PAIRS)
    (line,) = notes(twice, pretrain=BUILTIN, ppo=own | {"ptx": 27.8})
    assert line.startswith("Note: ppo.ptx = 27.8 (0: leave it out) mixes in Python's documentation")
    text = written(tmp_path / "own-text.jsonl", [{"text": "Some words to read. " * 20}] * 20)
    for ppo in (
        own | {"ptx": 0.0},
        own | {"ptx": 1.0, "pretraining_data": text["data"]},
        {"ptx": 1.0},
    ):
        assert notes(twice, pretrain=BUILTIN, ppo=ppo) == []


def test_sft_on_ones_own_data_says_what_text_it_mixes_in(notes, whole, tmp_path, monkeypatch):
    class Begun(Exception):
        """The stage is about to take its first step."""

    def begin(pipeline, stage):
        raise Begun

    def sft(pipeline):
        with pytest.raises(Begun):
            pipeline.sft()

    monkeypatch.setattr(Pipeline, "_run", begin)
    monkeypatch.setattr(Pipeline, "_expect_ended", lambda pipeline, stage: None)
    own = written(tmp_path / "own.jsonl", PAIRS)
    found = []
    for pretrain, sft_data in ((BUILTIN, own), ({}, own), (BUILTIN, {})):
        shutil.copytree(whole / "pretrain", tmp_path / "run/pretrain")
        said = notes(sft, pretrain=pretrain, sft=sft_data | {"pretraining_share": 0.1})
        found.append([line for line in said if "tokenizer" not in line])
    assert found == [
        ["Note: sft.pretraining_share mixes in 3 windows a step, which gptwin brings along, not "
         "your data"],
        [],
        [],
    ]  # fmt: skip


def test_a_reward_model_of_ones_own_rankings_is_centred_on_the_best_of_them(tmp_path, capsys):
    own = written(tmp_path / "own.jsonl", PAIRS)
    pipeline = Pipeline(changed(tmp_path / "run", reward=own), quiet=True)
    training, _ = pipeline._rankings
    rows = pipeline._centred_on(training)
    assert rows == [ranking.prompt + ranking.completions[0] for ranking in training]
    assert "reward: without sft.data, the answers that were ranked best" in capsys.readouterr().err
    both = Pipeline(changed(tmp_path / "run", reward=own, sft=own), quiet=True)
    both._centred_on(training)
    assert "without sft.data" not in capsys.readouterr().err
