"""`gptwin bench cpu`: every path, with tiny models. No test asserts a time."""

import dataclasses
import math
import os
import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from gptwin import records
from gptwin.benchmarks import result_file, training_step
from gptwin.benchmarks.cpu import driver, numpy_model, shakespeare, torch_model
from gptwin.benchmarks.cpu.driver import PARTS, Settings
from gptwin.benchmarks.timing import NATS
from gptwin.cli import app
from gptwin.core.model.gpt import loss_and_gradients
from gptwin.core.model.presets import parameter_count
from gptwin.kernels.model.gpt import GPT

QUICK = Settings(quick=True, threads=1)


def run(name, path, settings=QUICK):
    driver.run_part(name, settings, path)
    return result_file.load(path)[name]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cpu.jsonl"


EXPECTED = {
    "numpy-generation": 2, "numpy-training": 1, "torch-training-small": 2,
    "torch-training-small-compiled": 4,
    "torch-training-124m": 2, "torch-training-124m-compiled": 4, "shakespeare": 2,
    "growth-length": 12, "growth-width": 12, "compile": 1, "interpreter": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_each_part_passes_its_gates_and_stores_what_it_found(name, path):
    part = run(name, path)
    assert (part["status"], part["reason"]) == ("measured", None)
    assert part["environment"]["threads"]["torch"] == 1
    assert {"date", "commit", "cpu", "cores", "python", "numpy", "torch"} <= set(
        part["environment"]
    )
    assert len(part["findings"]) == EXPECTED[name]
    for found in part["findings"]:
        if "transformers" in found["name"] and records.version("transformers") is None:
            assert "not installed" in found["reason"]
            continue
        assert found["status"] == "measured", found["reason"]
        assert found["samples"] >= (2 if found["unit"] == NATS else 3)
        assert found["value"]["p20"] <= found["value"]["median"] <= found["value"]["p80"]
        if "model" in found["settings"]:
            assert found["reached"] in (True, False)
            assert found["settings"]["model"]["n_layer"] >= 1
        else:
            assert found["goal"] is found["reached"] is None
            assert found["settings"]["operation"] in found["name"]


def test_the_command_runs_a_part_in_a_process_of_its_own(path):
    result = CliRunner().invoke(
        app, ["bench", "cpu", "--quick", "--threads", "1", "--only", "numpy-training",
              "--out", str(path)],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    part = result_file.load(path)["numpy-training"]
    threads = part["environment"]["threads"]
    assert part["status"] == "measured"
    assert threads == {"asked": 1, "torch": 1} | dict.fromkeys(result_file.THREAD_VARIABLES, "1")
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "gptwin, NumPy against" in result.output and "≤ 1.5" in result.output


def test_generation_of_other_tokens_fails_the_gate(path, monkeypatch):
    monkeypatch.setattr(numpy_model, "generate", lambda *_, **__: [[0, 1, 2, 3]])
    for found in run("numpy-generation", path)["findings"]:
        assert found["status"] == "not measured"
        assert "gate: gptwin, NumPy: tokens: differs" in found["reason"]


def test_a_wrong_gradient_fails_the_gate(path, monkeypatch):
    def wrong(*arguments):
        loss, gradients = loss_and_gradients(*arguments)
        gradients["h.0.attn.c_attn.bias"] *= 1.001
        return loss, gradients

    monkeypatch.setattr(numpy_model, "loss_and_gradients", wrong)
    [found] = run("numpy-training", path)["findings"]
    assert "gate: gptwin, NumPy: h.0.attn.c_attn.bias: differs" in found["reason"]


def eager_reasons_of_ours():
    """Return why gptwin was not timed."""
    findings = list(torch_model.torch_training_small(QUICK))
    assert all(found["status"] == "not measured" for found in findings)
    return [found["reason"] for found in findings]


def test_a_wrong_loss_fails_the_gate(monkeypatch):
    right = GPT.loss
    monkeypatch.setattr(GPT, "loss", lambda *arguments: 1.0001 * right(*arguments))
    assert all("gptwin: gate: gptwin: first loss" in reason for reason in eager_reasons_of_ours())


def test_a_wrong_step_fails_the_gate(monkeypatch):
    def slower(parameters, lr, **_):
        return torch.optim.AdamW(parameters, lr=0.9 * lr, betas=training_step.BETAS)

    monkeypatch.setattr(training_step, "AdamW", slower)
    for reason in eager_reasons_of_ours():
        assert "gptwin: gate: gptwin: later losses" in reason or "progress" in reason


def test_what_is_not_installed_is_told_in_the_table(path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "transformers", None)
    part = run("torch-training-small", path)
    reasons = [found["reason"] for found in part["findings"] if "transf" in found["name"]]
    assert len(reasons) == 1 and all("not installed" in reason for reason in reasons)
    assert sum(found["status"] == "measured" for found in part["findings"]) == 1
    driver.print_table({"torch-training-small": part}, driver.Console(width=200))
    printed = capsys.readouterr().out
    assert "not installed" in printed and "quick" in printed


def test_without_the_text_shakespeare_is_skipped_and_says_what_it_needs(path, capsys):
    part = run("shakespeare", path, Settings(threads=1))
    assert part["status"] == "skipped" and "tinyshakespeare.txt" in part["reason"]
    driver.print_table({"shakespeare": part}, driver.Console(width=100))
    assert "tinyshakespeare.txt" in capsys.readouterr().out


def test_another_text_is_refused(path, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("abc")
    part = run("shakespeare", path, Settings(threads=1, text=str(other)))
    assert part["status"] == "failed" and "65 different characters" in part["reason"]
    assert str(tmp_path) not in path.read_text()


def test_shakespeares_model_has_nanogpts_size_positions_included():
    assert parameter_count(torch_model.SHAKESPEARE) == torch_model.PARAMETERS_OF_SHAKESPEARE
    shakespeare.check_count(torch_model.SHAKESPEARE, quick=False)
    wider = dataclasses.replace(torch_model.SHAKESPEARE, bias=True)
    with pytest.raises(shakespeare.GateError, match="804,096"):
        shakespeare.check_count(wider, quick=False)


def test_the_validation_loss_is_over_every_letter_once():
    """29 letters after the first, in windows of 8: three full ones and one of 5."""
    config = dataclasses.replace(torch_model.QUICK, n_ctx=8, vocab_size=5)
    model = GPT(config, torch.Generator().manual_seed(0))
    ids = torch.randint(5, (30,), generator=torch.Generator().manual_seed(1))
    total = 0.0
    for start in range(0, 29, 8):
        tokens, targets = ids[None, start : min(start + 8, 29)], ids[None, start + 1 : start + 9]
        logits = model.logits(model(tokens)).detach()
        total += float(torch.nn.functional.cross_entropy(logits[0], targets[0], reduction="sum"))
    assert shakespeare.loss_over(model, ids, batch=2) == pytest.approx(total / 29, rel=1e-5)
    assert model.training


def test_the_learning_rate_rises_falls_and_ends_at_its_least():
    rates = [shakespeare.learning_rate(i, 2000) for i in range(2001)]
    assert rates[0] == pytest.approx(1e-3 / 101)
    assert rates[100] == max(rates) == pytest.approx(1e-3)
    assert rates[2000] == pytest.approx(1e-4)
    assert np.all(np.diff(rates[:101]) > 0) and np.all(np.diff(rates[100:]) < 0)


def test_batches_hold_each_token_and_the_one_that_follows():
    ids = torch.arange(10)
    tokens, targets = shakespeare.draw_batch(ids, 4, 100, torch.Generator().manual_seed(0))
    assert torch.equal(targets, tokens + 1)
    assert tokens.min() == 0 and targets.max() == 9


def test_findings_are_stored_at_once_and_kept_when_the_part_fails(path, monkeypatch):
    def half(_):
        yield {"name": "a", "samples": 1}
        yield {"name": "a", "samples": 2}
        raise RuntimeError("in /opt/x/y.py")

    monkeypatch.setitem(PARTS, "shakespeare", half)
    part = run("shakespeare", path)
    assert part["findings"] == [{"name": "a", "samples": 2}]
    assert (part["status"], part["reason"]) == ("failed", "RuntimeError: in y.py")


def in_a_process(monkeypatch, path, child, limit_s=60.0):
    monkeypatch.setattr(driver, "CHILD", child)
    settings = dataclasses.replace(QUICK, limit_s=limit_s)
    driver.run_in_process("shakespeare", settings, path)
    return result_file.load(path)["shakespeare"]


def test_a_process_that_hangs_is_cut_off(path, monkeypatch):
    part = in_a_process(monkeypatch, path, "import time; time.sleep(600)", 0.5)
    assert part["status"] == "cut off" and part["findings"] == []


def test_a_process_that_dies_is_a_failure_with_its_last_line(path, monkeypatch):
    part = in_a_process(monkeypatch, path, "raise MemoryError('too much in /opt/x/y')")
    assert part["status"] == "failed"
    assert part["reason"] == "ended with code 1: MemoryError: too much in y"


def a_part(status, *findings):
    return {"status": status, "environment": {"cpu": "one"}, "findings": list(findings)}


def test_one_part_replaces_itself_alone_and_has_a_line_for_each_finding(path):
    result_file.save(path, "a", a_part("measured", {"name": "x", "value": 1}, {"name": "y"}))
    result_file.save(path, "b", a_part("failed", {"name": "x"}))
    result_file.save(path, "b", a_part("measured"))
    assert result_file.load(path) == {
        "a": a_part("measured", {"name": "x", "value": 1}, {"name": "y"}), "b": a_part("measured")
    }  # fmt: skip
    assert path.read_text().splitlines()[2] == '{"part": "a", "name": "x", "value": 1}'
    assert len(path.read_text().splitlines()) == 1 + 3 + 1
    assert os.listdir(path.parent) == [path.name]


def test_a_file_that_cannot_be_written_stays_as_it_was(path):
    result_file.save(path, "a", a_part("measured"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        result_file.save(path, "b", a_part("measured", {"figure": math.nan}))
    assert result_file.load(path) == {"a": a_part("measured")}
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    "text", ['{"format": 1, "parts": {}}', '{"format": 2}\n{"part": "a", "name": "x"}', "{", "[]"]
)
def test_a_file_of_another_kind_or_of_before_is_refused(path, text):
    path.write_text(text)
    with pytest.raises(ValueError, match=r"out: expected a result file of format 2.*cpu\.jsonl"):
        result_file.load(path)


def test_the_stored_results_can_be_read_and_hold_no_raw_samples():
    for name in ("cpu", "ppo-cpu"):
        parts = result_file.load(result_file.RESULTS / f"{name}.jsonl")
        found = [each for part in parts.values() for each in part["findings"]]
        assert found and all(isinstance(each.get("samples", 1), int) for each in found)


def test_some_parts_run_in_one_thread(path, monkeypatch):
    threads = {}

    def pretend(name, settings, where):
        threads[name] = settings.threads
        result_file.save(where, name, driver.begin(settings) | {"status": "measured"})

        return ""

    monkeypatch.setattr(driver, "run_in_process", pretend)
    driver.bench(quick=True, threads=2, out=str(path))
    assert {name for name in PARTS if threads[name] == 1} == set(driver.ONE_THREAD)
    threads.clear()
    driver.bench(quick=True, threads=2, out=str(path), resume=True)
    assert threads == {}


def test_resume_leaves_out_what_is_there(path, monkeypatch):
    ran = []

    def pretend(name, settings, where):
        ran.append(name)
        result_file.save(where, name, driver.begin(settings) | {"status": "measured"})

        return ""

    monkeypatch.setattr(driver, "run_in_process", pretend)
    monkeypatch.setattr(records, "commit", lambda: "one")
    options = {"quick": True, "threads": 1, "out": str(path)}
    driver.bench(only=["shakespeare"], **options)
    driver.bench(resume=True, **options)
    assert ran == ["shakespeare", *(name for name in PARTS if name != "shakespeare")]
    monkeypatch.setattr(records, "commit", lambda: "two")
    ran.clear()
    driver.bench(resume=True, **options)
    assert ran == list(PARTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cpu", "--only", "softmax"], "only: expected one of numpy-generation"),
        (["cpu", "--threads", "0"], "threads"),
        (["cpu", "--limit", "0"], "limit"),
        (["cpu", "--text", "no/such/file"], "text: expected a file"),
        (["cpu", "--out", "no/such/file.json"], "out: expected a .jsonl file"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert isinstance(result.exception, ValueError) and message in str(result.exception)


def test_a_file_of_something_else_is_refused_and_kept(path):
    path.write_text('{"rows": []}')
    with pytest.raises(ValueError, match="out: expected a result file"):
        driver.bench(quick=True, threads=1, out=str(path))
    assert path.read_text() == '{"rows": []}'
