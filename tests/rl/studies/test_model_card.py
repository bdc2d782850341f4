"""`gptwin model` as a user meets it: exact figures, one screen, clear refusals."""

import json
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from gptwin.cli import app
from gptwin.core.model.presets import PRESETS
from gptwin.rl.studies import model_card
from gptwin.rl.studies.model_card import in_words

from ...tools import command

# The published sizes, to the last digit.
PARAMETERS = {
    "gpt1": 116_534_784,
    "gpt2": 124_439_808,
    "gpt2-xl": 1_557_611_200,
    "gpt3-13b": 12_853_386_240,
    "gpt3-175b": 174_604_259_328,
    "bert-base": 109_482_240,
}


def model(*arguments):
    """Run the command in this process and return what it printed."""
    result = CliRunner().invoke(app, ["model", *arguments], env={"COLUMNS": "80"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0
    return result.output


def numbers(text):
    return [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*", text)]


def test_the_table_has_every_preset_and_fits_80_columns():
    printed = model()
    lines = printed.splitlines()
    assert [line.split()[0] for line in lines[2 : 2 + len(PRESETS)]] == list(PRESETS)
    for name, count in PARAMETERS.items():
        (row,) = [line for line in lines if line.startswith(f"{name} ")]
        assert f"{count:,}" in row
    assert max(map(len, lines)) <= 80 and "…" not in printed


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_preset_is_counted_three_ways(name):
    printed = model(name)
    rows = [line for line in printed.splitlines() if line.startswith("  by ")]
    assert [numbers(row)[0] for row in rows] == [PARAMETERS[name]] * 3
    assert "all three agree" in printed
    assert max(map(len, printed.splitlines())) <= 80 and "…" not in printed
    assert len(printed.splitlines()) < 40  # one screen


def test_counts_that_differ_are_an_error(monkeypatch):
    monkeypatch.setattr(model_card, "parameter_count", lambda config: 1)
    with pytest.raises(RuntimeError, match="counted differently"):
        model("gpt2")


def test_gpt2s_figures():
    """Worked out by hand: F = L(24C²T + 4CT²) + 2TCV; 2·L·C numbers of cache per token."""
    card = json.loads(model("gpt2", "--json"))
    assert card["flops"] == {
        "forward_per_token": 291_648_307_200 // 1024,
        "forward_per_sequence": 291_648_307_200,
        "forward_per_sequence_masked": 272_339_828_736,
        "training_per_sequence": 3 * 291_648_307_200,
    }
    per_token = 2 * 12 * 768
    assert card["kv_cache_bytes"] == {
        "float32": {"per_token": 4 * per_token, "full_context": 4 * 1024 * per_token},
        "bfloat16": {"per_token": 2 * per_token, "full_context": 2 * 1024 * per_token},
    }
    activations = 1024 * (12 * (16 * 768 + 12) + 2 * 768)
    assert card["training_bytes"]["bfloat16"] == {
        "parameters": 2 * 124_439_808,
        "gradients": 2 * 124_439_808,
        "moments": 8 * 124_439_808,
        "activations": 2 * activations,
        "logits": 0,
        "total": 12 * 124_439_808 + 2 * activations,
    }


def test_the_printed_figures_are_those_of_the_json():
    printed = model("gpt2")
    for figure in ("291,648,307,200", "272,339,828,736", "284,812,800", "72 KiB", "36 MiB"):
        assert figure in printed
    assert "float32" in printed and "bfloat16" in printed


def test_json_of_all():
    cards = json.loads(model("--json"))
    assert [card["preset"] for card in cards] == list(PRESETS)
    assert all(len(set(card["parameters"].values())) == 1 for card in cards)


def test_a_name_may_be_written_in_other_ways():
    assert json.loads(model("GPT3_175B", "--json"))["preset"] == "gpt3-175b"


def test_an_encoder_has_no_cache():
    assert "cache" not in model("bert-base")
    assert json.loads(model("bert-base", "--json"))["kv_cache_bytes"] is None


def test_the_band_of_gpt3_changes_the_masked_flops_alone():
    cards = [json.loads(model("gpt3-125m", "--json", "--band", b)) for b in ("0", "1", "512")]
    dense, narrow, wide = (card["flops"].pop("forward_per_sequence_masked") for card in cards)
    assert narrow < wide < dense
    assert [card.pop("band") for card in cards] == [None, 1, 512]
    assert cards[0] == cards[1] == cards[2]
    assert "the last 512 keys" in model("gpt3-125m", "--band", "512")
    assert "never published" in model("gpt3-125m")


def test_the_command_itself():
    words = [sys.executable, "-m", "gptwin", "model", "gpt2"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "124,439,808" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chatgpt"], "architecture of GPT-3.5, ChatGPT and GPT-4 is unpublished"),
        (["instructgpt"], "InstructGPT is GPT-3"),
        (["gpt9"], "name: expected one of gpt1, gpt2, gpt2-medium"),
        (["gpt2", "--band", "3"], "band: expected a preset of GPT-3 beside it, got gpt2"),
        (["--band", "3"], "band: expected a preset beside it"),
        (["gpt3-13b", "--band", "-1"], "band: expected a number of keys"),
    ],
)
def test_what_cannot_be_said_is_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        model(*arguments)


def test_a_refusal_is_exit_code_2():
    status, printed, errors = command.gptwin("model", "chatgpt")
    assert (status, printed) == (2, "")
    assert "unpublished" in errors and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("n_bytes", "words"),
    [
        (0, "0 bytes"),
        (1023, "1,023 bytes"),
        (1024, "1 KiB"),
        (36_864, "36 KiB"),
        (1536, "1.50 KiB"),
        (15_500, "15.1 KiB"),
        (497_759_232, "475 MiB"),
        (5000 * 1024**4, "5,000 TiB"),
    ],
)
def test_bytes_in_words(n_bytes, words):
    assert in_words(n_bytes) == words
