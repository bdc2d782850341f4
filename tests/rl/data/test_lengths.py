"""Data that do not fit, or say nothing: named before the first step, never left out in silence."""

import json

import hh
import pytest
import tiny

from gptwin.rl.configuration import PPOSettings, PretrainSettings, RewardSettings, SFTSettings
from gptwin.rl.data import sources

N_CTX = 40


def written(tmp_path, lines):
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


def both(parts):
    training, validation = parts
    return training + validation


def readings(data, on_long, n_ctx=N_CTX):
    """Each stage's reading of one file."""
    template = tiny.template()
    sft = SFTSettings(data=data, on_long=on_long)
    reward = RewardSettings(data=data, on_long=on_long)
    ppo = PPOSettings(data=data, on_long=on_long, max_response=8)
    return {
        "sft": lambda: both(sources.demonstrations(template, sft, n_ctx, 0)),
        "reward": lambda: both(sources.rankings(template, reward, n_ctx)),
        "ppo": lambda: sources.prompts(template, ppo, n_ctx, 0, 10),
    }


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
def test_what_is_too_long_is_named_cut_or_dropped_as_asked(tmp_path, capsys, stage):
    pairs = [{"prompt": "Hi", "chosen": "Yes", "rejected": "No"} for _ in range(12)]
    for line in (3, 9):
        pairs[line - 1]["prompt"] = "Hello there. " * 20
    data = written(tmp_path, pairs)
    with pytest.raises(ValueError, match=r"data\.jsonl: .*2 of 12 that are longer \(lines 3, 9;"):
        readings(data, "error")[stage]()
    assert len(readings(data, "drop")[stage]()) == 10
    assert "0 truncated, 2 dropped" in capsys.readouterr().err
    kept = readings(data, "truncate")[stage]()
    if stage == "sft":  # nothing that an assistant says is left of these
        assert len(kept) == 10
        return
    assert len(kept) == 12
    most = N_CTX - 8 if stage == "ppo" else N_CTX
    assert sorted(map(len, kept))[-2:] == [most, most]
    assert "2 truncated, 0 dropped" in capsys.readouterr().err
    name = "ids" if stage == "ppo" else "prompt"
    for short, long in zip(kept, readings(data, "error", 1000)[stage](), strict=True):
        end = getattr(short, name)  # what was said last, and whose turn it is
        assert end == getattr(long, name)[-len(end) :]


def test_a_long_answer_is_cut_at_its_end(tmp_path):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "word " * 60}]
    data = written(tmp_path, [{"messages": turns}] * 3)
    for example in readings(data, "truncate")["sft"]():
        assert len(example) == N_CTX + 1
        assert example.trained[-1]


def test_preferences_teach_every_stage(tmp_path):
    file = tmp_path / "data.jsonl"
    lines = hh.rows(30).splitlines()
    file.write_text("\n".join(line for i, line in enumerate(lines, 1) if i != 7))
    found = {name: read() for name, read in readings(str(file), "drop", 96).items()}
    assert [len(found[name]) for name in ("sft", "reward")] == [28, 28]
    assert tiny.template().text(found["reward"][0].completions[0]).endswith("chosen")
    assert all(prompt.messages[-1].role == "user" for prompt in found["ppo"])


def test_a_demonstration_without_an_answer_is_a_bad_line(tmp_path, capsys):
    answered = {"prompt": "Hi", "completion": "Hello"}
    data = written(tmp_path, [answered, {"prompt": "Hi"}] * 4)
    with pytest.raises(ValueError, match=r"data\.jsonl:2: line: expected a last turn of the assis"):
        readings(data, "error")["sft"]()
    settings = SFTSettings(data=data)
    training, _ = sources.demonstrations(tiny.template(), settings, N_CTX, 0, True)
    assert len(training) == 3
    assert "4 bad lines skipped" in capsys.readouterr().err


def test_too_few_records_are_refused_and_a_book_is_cut(tmp_path, capsys):
    data = written(tmp_path, [{"prompt": "Hi", "completion": "Hello"}])
    with pytest.raises(ValueError, match=r"data\.jsonl: expected at least 2 records, .* got 1"):
        readings(data, "error")["sft"]()
    book = written(tmp_path, [{"text": "0123456789" * 10}])
    training, validation = sources.texts(PretrainSettings(data=book))
    assert [len(text) for (text,) in (training, validation)] == [90, 10]
    assert "its last tenth is held out" in capsys.readouterr().err
