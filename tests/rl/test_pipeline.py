"""The chain on one command: from text to a model that chats, stopped and resumed."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tiny
import torch

from gptwin.rl import pipeline, run_data, run_models
from gptwin.rl.chat import Chat, converse, examples, find_model, find_scorer
from gptwin.rl.configuration import PretrainSettings, dump
from gptwin.rl.data import sources
from gptwin.rl.data.sources import Prompt
from gptwin.rl.judging import sampled_rankings
from gptwin.rl.judging.reward_function import ByFunction, checked_scores, imported
from gptwin.rl.pipeline import Pipeline
from gptwin.rl.stages.generation import generate
from gptwin.rl.studies import reproduce, verdicts
from gptwin.rl.studies.chatgpt import make_chatgpt
from gptwin.rl.training.run import read_log

from ..tools import command


@pytest.fixture(scope="module", autouse=True)
def few_exercises():
    """Measure on few exercises: what is measured is not what these tests are about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_data, "TOKENIZER_EXERCISES", 1000)
        patch.setattr(pipeline, "VALIDATION_PROMPTS", 16)
        patch.setattr(run_data, "VALIDATION_WINDOWS", 8)
        patch.setattr(sampled_rankings, "HELD_OUT_PROMPTS", 16)
        patch.setattr(verdicts, "HELD_OUT_PROMPTS", 48)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, few_exercises):
    """A chain that was too short to pass its thresholds, but ran to its end."""
    directory = tmp_path_factory.mktemp("run")
    assert make_chatgpt(tiny.configuration(directory), quiet=True) == 1
    return directory


def test_the_chain_leaves_models_logs_plots_and_a_report(run):
    for stage in ("pretrain", "sft", "ppo"):
        assert find_model(str(run / stage)) == run / stage / "model"
    for stage in ("pretrain", "sft", "reward", "ppo"):
        assert read_log(run / stage)
        assert (run / stage / "plots/learning.png").stat().st_size > 1000
    assert (run / "ppo/plots/over_optimisation.png").stat().st_size > 1000
    kept = json.loads((run / "report.json").read_text())
    assert all(v.keys() >= {"stage", "loss", "threshold", "passed"} for v in kept["verdicts"])
    assert kept["curve"][0]["validation_kl"] == 0.0
    assert set(kept["seconds"]) == {"pretrain", "sft", "reward", "ppo", "judge"}
    report = (run / "report.md").read_text()
    assert [line.split("|")[1].strip() for line in report.splitlines()[2:]] == [
        "pretrain", "sft", "reward", "ppo",
    ]  # fmt: skip
    assert "FAIL" in report


def test_it_chats_over_several_turns(run):
    chat = Chat(str(run), max_new_tokens=5)
    assert find_model(str(run)) == run / "ppo/model"
    answers = list(converse(chat, ["Hello", "", "Say: moon", "/new", "Bye", "/quit", "no"]))
    assert len(answers) == 4
    assert answers[2] == "(a new conversation)"
    assert chat.messages[0].content == "Bye"


def test_the_reward_model_picks_an_answer(run):
    chat = Chat(str(run), max_new_tokens=5, best_of=3)
    assert chat.temperature == 1.0
    chat.say("Hello")
    said = generate(
        chat.model, [chat.template.prompt(chat.messages[:1])] * 3, max_new_tokens=5,
        stop_tokens=(chat.template.end,), seed=1,
    ).token_lists()  # fmt: skip
    scores = chat.score([Prompt(chat.template.prompt(chat.messages[:1]), ())] * 3, said)
    assert chat.messages[-1].content == chat.template.text(said[int(scores.argmax())])
    assert (run / "ppo/plots/best_of_n.png").stat().st_size > 1000
    with pytest.raises(ValueError, match=r"^best_of: .*no reward model to pick"):
        find_scorer(run / "elsewhere/of/model")


def test_it_says_what_it_can_do_and_survives_what_it_cannot(run):
    chat = Chat(str(run), max_new_tokens=5)
    introduction, too_long = converse(chat, ["/help", "word " * 300])
    assert "eight kinds of exercise" in introduction
    assert all(question in introduction for question in examples())
    assert too_long.startswith("(message: expected at most")
    assert chat.messages == []


def test_a_long_conversation_forgets_its_oldest_turns(run):
    chat = Chat(str(run), max_new_tokens=5)
    for i in range(20):
        chat.say(f"This is turn {i} of a conversation.")
    assert len(chat.messages) < 40
    with pytest.raises(ValueError, match=r"^message: expected at most 91 tokens"):
        chat.say("word " * 300)


def test_studies_begin_from_the_chains_models(run, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(reproduce, "GAMMAS", (0.0, 5.0))
    shutil.copytree(run, tmp_path / "seed-0")
    configuration = tiny.configuration(tmp_path)
    (report,) = reproduce.seeds(tmp_path, configuration, [0])
    assert not all(verdict["passed"] for verdict in report["verdicts"])
    assert report["curve"]
    plain, mixed = reproduce.ptx(tmp_path, configuration, [0])
    assert plain["before"] == mixed["before"]
    name = "validation_pretraining_loss"
    assert mixed["after"][name] < min(plain["after"][name], mixed["before"][name])
    assert (tmp_path / "results/chatgpt.png").stat().st_size > 1000


def test_resume_leaves_what_has_ended(run):
    before = {s: (run / s / "log.jsonl").read_bytes() for s in ("pretrain", "sft", "reward", "ppo")}
    Pipeline(tiny.configuration(run), resume=True, quiet=True).all()
    assert before == {s: (run / s / "log.jsonl").read_bytes() for s in before}


def test_a_stage_without_the_one_before_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"pretrain has not been trained: gptwin train pretrain"):
        Pipeline(tiny.configuration(tmp_path), quiet=True).sft()


def test_your_own_files_and_reward(run, tmp_path):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    lines = {
        "text.jsonl": [{"text": "Some words to read. " * 20}] * 20,
        "sft.jsonl": [{"messages": messages}] * 40,
        "ranked.jsonl": [
            {"prompt": "Hi", "completions": ["Hello", "Yo", "No"], "rank": [0, 1, 1]},
            {"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"},
        ] * 10,
        "prompts.jsonl": [{"prompt": "Hi"}, {"prompt": "Who?"}] * 10,
    }  # fmt: skip
    files = {}
    for name, records in lines.items():
        files[name.split(".")[0]] = str(tmp_path / name)
        (tmp_path / name).write_text("".join(json.dumps(r) + "\n" for r in records))
    configuration = tiny.configuration(
        tmp_path / "run",
        pretrain={"data": files["text"], "steps": 2},
        sft={"data": files["sft"], "batch": 8},
        reward={"data": files["ranked"]},
        ppo={"data": files["prompts"], "reward_fn": "tiny:length_of", "episodes": 16},
    )
    Pipeline(configuration, quiet=True).all()
    assert "validation_gold" not in read_log(tmp_path / "run/ppo")[-1]
    assert read_log(tmp_path / "run/reward")[-1]["validation_accuracy"] >= 0


def test_a_compiler_that_is_not_there_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    def run(compiler):
        Pipeline(tiny.configuration(tmp_path / "run", run={"compile": compiler}), quiet=True).all()

    with pytest.raises(ValueError, match=r"^run.compile: expected one of .*, got 'gcc'"):
        run("gcc")
    monkeypatch.setattr(run_models, "has_cpp_compiler", lambda: False)
    with pytest.raises(ValueError, match=r"^run.compile: expected inductor and a C\+\+ compiler"):
        run("inductor")
    assert not (tmp_path / "run").exists()


def test_a_reward_that_cannot_be_imported_is_named():
    assert imported("math:sqrt")(4) == 2
    for path in ("math", "math:nothing", "no_such_module:f"):
        with pytest.raises(ValueError, match=r"^ppo\.reward_fn: expected"):
            imported(path)


def test_scores_of_a_reward_function_are_looked_at():
    assert checked_scores(np.array([1, 2]), 2).tolist() == [1.0, 2.0]
    for found, message in (
        ([1.0], r"expected 2 numbers, one for each response, got shape \(1,\)"),
        (["a", "b"], r"expected 2 numbers, got list: "),
        (None, r"expected 2 numbers, got NoneType: "),
        ([1.0, float("nan")], r"expected finite scores, got nan for response 1"),
    ):
        with pytest.raises(ValueError, match=rf"^ppo\.reward_fn: {message}"):
            checked_scores(found, 2)


class Counting:
    """A user's reward that remembers how often it was asked."""

    seen = 0

    def __call__(self, conversations, texts):
        self.seen += len(texts)
        return [self.seen] * len(texts)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def test_what_a_reward_function_remembers_is_kept():
    prompts, said = tiny.prompts(2), [[5], [6]]
    first, second = (ByFunction(Counting(), tiny.template(), torch.device("cpu")) for _ in range(2))
    first(prompts, said)
    second.load_state_dict(first.state_dict())
    assert second(prompts, said).tolist() == [4, 4]
    plain = ByFunction(tiny.length_of, tiny.template(), torch.device("cpu"))
    assert plain.state_dict() == {}
    plain.load_state_dict({})


def test_skipped_lines_are_counted_and_reported(tmp_path, capsys):
    file = tmp_path / "texts.jsonl.gz"
    lines = [json.dumps({"text": "words"}), "no JSON", json.dumps({"text": "more"}), "{}"]
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    settings = PretrainSettings(data=str(file))
    assert sources.texts(settings, skip_bad_lines=True) == (["more"], ["words"])
    assert re.search(r"2 records, 2 bad lines skipped, the first: .*:2: ", capsys.readouterr().err)
    with pytest.raises(ValueError, match=r"texts\.jsonl\.gz:2: line: expected a JSON object"):
        sources.texts(settings)


def test_the_command_line(run, tmp_path):
    def gptwin(*arguments, **options):
        return subprocess.run(
            [sys.executable, "-m", "gptwin", *arguments],
            capture_output=True, encoding="utf-8", errors="surrogateescape", check=False,
            cwd=tmp_path,
            # As in a locale of UTF-8, whatever the one here is.
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8:strict"},
            **options,
        )  # fmt: skip

    text = tmp_path / "text.jsonl"  # read sooner than what is built in
    text.write_text((json.dumps({"text": "Some words to read. " * 20}) + "\n") * 20)
    own = tiny.configuration(tmp_path / "run", pretrain={"data": str(text)})
    (tmp_path / "few.toml").write_text(dump(own))
    done = gptwin("train", "pretrain", "--config", "few.toml", "pretrain.steps=2", "--quiet")
    assert done.returncode == 0, done.stderr
    assert [record["step"] for record in read_log(tmp_path / "run/pretrain")] == [0, 1, 2]
    again = command.gptwin("train", "pretrain", "--config", str(tmp_path / "few.toml"), "--quiet")
    assert again.status == 2
    assert again.errors.count("\n") == 1
    assert "--resume" in again.errors
    lines = "caf\udce9\nHello\n/quit\n"  # a byte that is no UTF-8
    said = gptwin("chat", str(run), "--max-new-tokens", "3", input=lines)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("(text: expected characters that UTF-8 has")
    assert len(said.stdout.splitlines()) >= 2


def test_held_out_exercises_are_in_no_stages_data():
    seen = {e.messages for e in sources.drawn(0, 2000, held_out=False)}
    assert not seen & {e.messages for e in sources.drawn(1, 400, held_out=True)}


def test_a_line_that_is_not_utf8_and_options_without_meaning_are_refused(run):
    chat = Chat(str(run), max_new_tokens=5)
    bad, good = converse(chat, ["caf\udce9", "Hello"])
    assert bad.startswith("(text: expected characters that UTF-8 has")
    assert not good.startswith("(")
    assert chat.messages[0].content == "Hello"
    for options, message in (
        ({"max_new_tokens": 0}, r"^max_new_tokens: expected at least 1, got 0"),
        ({"max_new_tokens": 96}, r"^max_new_tokens: expected below the model's n_ctx"),
        ({"best_of": 0}, r"^best_of: expected at least 1, got 0"),
        ({"temperature": -1.0}, r"^temperature: expected at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            Chat(str(run), **options)


def test_resume_names_what_has_changed(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")

    def going_on(**tables):
        Pipeline(tiny.configuration(tmp_path / "run", **tables), resume=True, quiet=True).all()

    for tables, message in (
        ({"pretrain": {"time": 16}}, r"^pretrain\.time: expected 32, got 16"),
        ({"ppo": {"max_response": 9}}, r"^ppo\.max_response: expected 8, got 9"),
        ({"ppo": {"episodes": 48}}, r"^ppo: expected at least the 4 steps that are done, got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            going_on(**tables)
    weights = tmp_path / "run/reward/scorer.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-5] ^= 1
    weights.write_bytes(damaged)
    going_on()  # written again from the last checkpoint
    assert weights.read_bytes() == (run / "reward/scorer.safetensors").read_bytes()
