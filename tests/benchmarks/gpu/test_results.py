"""What comes of a result file: README's table, the comparison of two, pictures. Made-up figures."""

import copy
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gptwin.benchmarks import compare, result_file
from gptwin.benchmarks.gpu.end_to_end import training
from gptwin.benchmarks.gpu.operations.cells import cost_of
from gptwin.benchmarks.gpu.operations.clock import CountingClock
from gptwin.benchmarks.gpu.operations.providers import providers
from gptwin.benchmarks.gpu.operations.results import DIRECTIONS, cell_name, newest
from gptwin.benchmarks.gpu.operations.roofline import DATASHEET, peaks_of, rate, roofline_of
from gptwin.benchmarks.gpu.operations.shapes import shapes
from gptwin.benchmarks.gpu.shown import goals, plots
from gptwin.cli import app
from gptwin.core.model.presets import preset
from gptwin.lab.twins.catalogue import TWINS

README = Path(__file__).resolve().parents[3] / "README.md"
DEVICE = "NVIDIA H100 80GB HBM3"
PEAKS = {"copy": 3e12, "bfloat16": 8e14, "float32": 5e13, "datasheet": DATASHEET[DEVICE]}
ENVIRONMENT = {"date": "2026-01-01", "commit": "made up", "device": DEVICE, "driver": "1",
               "cuda": "1", "torch": "1", "triton": "1"}  # fmt: skip


def made_up(operation, dtype, pace):
    """Make a part in which each provider takes so many times as long as the roofline."""
    twin = TWINS[operation]
    found = []
    for shape, case in shapes(twin).items():
        for direction in DIRECTIONS:
            cost = cost_of(twin, case, dtype, direction)
            for provider, times in pace.items():
                seconds = times * max(cost.bytes / PEAKS["copy"], cost.flops / PEAKS[dtype])
                roofline = roofline_of(cost, seconds, PEAKS, dtype, 0)
                found.append({
                    "name": cell_name(shape, direction, provider), "shape": shape, "case": case,
                    "direction": direction, "provider": provider, "status": "measured",
                    "reason": None, "unit": "seconds", "samples": 9, "launch_bound": False,
                    "value": {"median": seconds, "p20": 0.99 * seconds, "p80": 1.01 * seconds},
                    "extra_bytes": int(cost.bytes * times), "flops": cost.flops,
                    "bytes": cost.bytes, "flops_per_s": cost.flops / seconds,
                    "bytes_per_s": cost.bytes / seconds, "roofline": roofline, "gate": {},
                })  # fmt: skip
    settings = {"dry_run": False, "only": [], "peaks": PEAKS}
    return {"status": "measured", "reason": None, "settings": settings,
            "environment": ENVIRONMENT, "findings": found}  # fmt: skip


@pytest.fixture
def parts():
    return {
        "softmax/bfloat16": made_up("softmax", "bfloat16", {
            "gptwin": 1.05, "eager": 3.0, "torch.compile": 1.2, "Liger": 1.0,
        }),
        "gae/float32": made_up("gae", "float32", {"gptwin": 1.5, "eager": 300.0}),
    }  # fmt: skip


@pytest.fixture
def path(parts, tmp_path):
    return write(parts, tmp_path / "a.jsonl")


def write(parts, path):
    for name, part in parts.items():
        result_file.save(path, name, part)
    return path


def bench(*arguments):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


# --- the table of goals --------------------------------------------------------------------------


def test_readmes_table_says_what_the_stored_results_say():
    text = README.read_text(encoding="utf-8")
    _, _, rest = text.partition(goals.BEGIN)
    table, end, _ = rest.partition(goals.END)
    assert end, "README has no table of goals"
    assert table.strip() == goals.table(goals.stored()), "run: gptwin bench table README.md"


def test_without_results_every_goal_is_not_measured():
    rows = goals.rows({})
    assert len(rows) == len(goals.GOALS) + 3
    assert {(row.figure, row.reached) for row in rows[:-1]} == {("not measured", None)}
    assert rows[-1].figure == f"not measured ({goals.NO_TRL})" and rows[-1].reached is None


def test_a_goals_figure_is_the_worst_of_its_sizes(parts):
    rows = {(row.operation, row.goal): row for row in goals.rows(parts)}
    share = rows["softmax forward", "≥ 90% of the measured copy bandwidth"]
    assert share.reached and share.verdict == "reached" and share.figure.startswith("95%")
    liger = rows["softmax forward", "≥ 1× as fast as Liger"]
    assert liger.reached is False and liger.verdict == "missed"
    eager = rows["gae forward", "≥ 5× as fast as eager PyTorch"]
    assert eager.figure.startswith("200×") and eager.reached
    compiled = rows["gae forward", "≥ 1× as fast as torch.compile"]
    assert compiled.reached is None and compiled.figure == "not measured"

    slow = next(
        found
        for found in parts["softmax/bfloat16"]["findings"]
        if found["name"] == "64 MiB | forward | gptwin"
    )
    slow["roofline"]["share"] = 0.5
    row = {(row.operation, row.goal): row for row in goals.rows(parts)}[
        "softmax forward", "≥ 90% of the measured copy bandwidth"
    ]
    assert row.verdict == "missed" and row.figure.startswith("50% (64 MiB;")


def test_a_failed_size_does_not_vanish(parts):
    for found in parts["softmax/bfloat16"]["findings"]:
        if found["name"] == "64 MiB | forward | gptwin":
            found |= {"status": "failed", "reason": "gate", "value": None}
    row = {(row.operation, row.goal): row for row in goals.rows(parts)}[
        "softmax forward", "≥ 90% of the measured copy bandwidth"
    ]
    assert row.verdict == "incomplete"


def test_a_peer_that_is_not_installed_leaves_its_goal_open(parts):
    for found in parts["softmax/bfloat16"]["findings"]:
        if found["provider"] == "Liger":
            found |= {"status": "skipped", "reason": "not installed (liger_kernel)", "value": None}
    rows = [row for row in goals.rows(parts) if row.goal == "≥ 1× as fast as Liger"]
    row = next(row for row in rows if row.operation == "softmax forward")
    assert row.reached is None and row.figure == "not measured (not installed (liger_kernel))"


def test_goals_hold_for_any_gpu_of_an_architecture(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(goals, "RESULTS", tmp_path)
    assert goals.stored() is None and "Hopper or Ampere" in goals.table(None)
    for number, device in enumerate(("NVIDIA A100-SXM4-80GB", "NVIDIA L4", "NVIDIA H200")):
        for part in parts.values():
            part["environment"] = {
                **ENVIRONMENT,
                "device": device,
                "date": f"2026-01-0{3 - number}",
            }
        file = write(parts, tmp_path / f"{number}.jsonl")
        assert goals.stored() == (tmp_path / "0.jsonl" if device != "NVIDIA H200" else file)
    assert goals.table(goals.stored()).startswith("Measured on NVIDIA H200 (Hopper)")
    assert newest(tmp_path) == tmp_path / "0.jsonl"  # of whatever GPU


def test_ppo_is_judged_beside_trl_once_that_is_measured(parts):
    rate = {"status": "measured", "reason": None, "unit": "tokens/s"}
    alike, own = "16 episodes, as TRL's", "64 episodes"
    findings = [
        {"name": f"{shape} | iteration | {who}", "shape": shape, "provider": who,
         "value": {"median": value}, **rate}
        for shape, who, value in (
            (alike, "gptwin", 300.0), (alike, "TRL", 200.0), (own, "gptwin", 900.0),
        )
    ]  # fmt: skip
    parts["ppo"] = {**next(iter(parts.values())), "findings": findings}
    row = next(r for r in goals.rows(parts) if r.operation == "PPO update, end to end")
    assert row.reached and row.figure.startswith("1.5×")


def test_a_dry_run_fills_in_nothing(parts):
    for part in parts.values():
        part["settings"]["dry_run"] = True
    assert all(row.reached is None for row in goals.rows(parts))


def test_every_goal_names_sizes_and_providers_that_are_measured():
    for goal in goals.GOALS:
        assert list(goals.sizes_of(goal)), f"{goal.operation}: {goal.claim}"
        names = {provider.name for provider in providers(goal.part.partition("/")[0])}
        assert set(goal.figure.needs) <= names, goal


def test_the_table_is_written_between_the_markers_alone(path, tmp_path):
    file = tmp_path / "x.md"
    file.write_text(f"before\n{goals.BEGIN}\nold\n{goals.END}\nafter\n")
    assert bench("table", file, "--results", path).exit_code == 0
    text = file.read_text()
    assert text.startswith(f"before\n{goals.BEGIN}\nMeasured on {DEVICE} (Hopper)")
    assert text.endswith(f"{goals.END}\nafter\n") and "old" not in text
    file.write_text("no markers")
    assert "table: expected a file with the lines" in str(bench("table", file).exception)


# --- two files -----------------------------------------------------------------------------------


def slower(parts, factor, provider="gptwin"):
    changed = copy.deepcopy(parts)
    for found in changed["softmax/bfloat16"]["findings"]:
        if found["provider"] == provider and found["direction"] == "forward":
            found["value"] = {name: factor * x for name, x in found["value"].items()}
    return changed


@pytest.mark.parametrize(
    ("factor", "provider", "exit_code", "words"),
    [
        (1.0, "gptwin", 0, "0 better, 0 worse"),
        (1.015, "gptwin", 0, "0 better, 0 worse"),  # within both files' noise
        (1.2, "gptwin", 1, "0 better, 8 worse"),
        (0.8, "gptwin", 0, "8 better, 0 worse"),
        (1.2, "Liger", 0, "0 better, 0 worse"),  # a peer's loss is none of ours
    ],
)
def test_a_regression_beyond_the_noise_ends_with_1(
    parts, path, tmp_path, factor, provider, exit_code, words
):
    other = write(slower(parts, factor, provider), tmp_path / "b.jsonl")
    result = bench("compare", path, other)
    assert result.exit_code == exit_code, result.output
    assert words in result.output


def test_a_figure_that_is_gone_is_a_regression(parts, path, tmp_path):
    changed = copy.deepcopy(parts)
    found = changed["softmax/bfloat16"]["findings"][0]
    found |= {"status": "failed", "reason": "gate: wrong", "value": None}
    result = bench("compare", path, write(changed, tmp_path / "b.jsonl"))
    assert result.exit_code == 1 and "no figure any more" in result.output


def test_of_rates_more_is_better():
    def found(median):
        value = {"median": median, "p20": 0.99 * median, "p80": 1.01 * median}
        return {"name": "gptwin", "unit": "tokens/s", "value": value}

    assert compare.compare_findings("training", found(100), found(80)).verdict == compare.WORSE
    assert compare.compare_findings("training", found(80), found(100)).verdict == compare.BETTER


def test_dry_runs_and_strangers_are_not_compared(parts, path, tmp_path):
    other = tmp_path / "b.jsonl"
    other.write_text('{"rows": []}')
    assert "a result file of format" in str(bench("compare", path, other).exception)
    other.unlink()
    for part in parts.values():
        part["settings"]["dry_run"] = True
    message = str(bench("compare", path, write(parts, other)).exception)
    assert "a dry run's figures mean nothing" in message


# --- pictures ------------------------------------------------------------------------------------


def test_time_throughput_roofline_and_memory_are_drawn(parts, path):
    del parts["gae/float32"]
    written = plots.plot(parts, path.with_suffix(""))
    assert {file.name for file in written} == {
        "softmax-bfloat16.png", "roofline.png", "memory.png",
    }  # fmt: skip
    for file in written:
        assert file.read_bytes().startswith(b"\x89PNG") and file.stat().st_size > 20_000


def test_a_dry_runs_pictures_say_so(parts):
    for part in parts.values():
        part["settings"]["dry_run"] = True
    assert "mean nothing" in plots._title(parts)


# --- end to end ----------------------------------------------------------------------------------


def test_training_is_gated_timed_and_says_what_its_flops_are():
    def found(only, clock):
        events = training.training(clock, "cpu", PEAKS, tiny=True, only=frozenset(only))
        return {e["finding"]["name"]: e["finding"] for e in events if "finding" in e}

    cells = found({"gptwin"}, CountingClock())
    assert set(cells) == {"gptwin", "gptwin, compiled"}
    for cell in cells.values():
        assert cell["status"] == "measured", cell["reason"]
        assert cell["unit"] == "tokens/s" and cell["mfu"] > 0
        assert json.loads(json.dumps(cell)) == cell


@pytest.mark.parametrize(
    ("rate", "datasheet", "rejected"),
    [
        (8.1e14, None, None),  # the measured peak's noise
        (8.8e14, None, "1.07 times the measured peak of flops"),
        (8.8e14, DATASHEET[DEVICE], None),
        (1.978e15, DATASHEET[DEVICE], "2.00 times the datasheet's peak of flops"),
    ],
)
def test_training_beyond_the_peak_is_rejected(rate, datasheet, rejected):
    assert training.above_the_peak(rate, PEAKS | {"datasheet": datasheet}) == rejected


def test_a_wrong_model_is_not_timed(monkeypatch):
    monkeypatch.setattr(training, "TOLERANCES", {"first loss": 0.0})
    events = list(
        training.training(CountingClock(), "cpu", None, tiny=True, only=frozenset({"gptwin"}))
    )
    cells = [e["finding"] for e in events if "finding" in e]
    assert cells and all(cell["reason"].startswith("gate: gptwin") for cell in cells)


def test_flops_of_a_token_are_those_of_nanogpt():
    """nanoGPT's estimate for GPT-2 124M: N = 123.65M parameters without positions."""
    n = 124_439_808 - 1024 * 768
    assert training.flops_per_token(preset("gpt2"), 1024) == 6 * n + 12 * 12 * 768 * 1024


def test_peaks_are_the_medians_and_the_vendors():
    found = [rate("copy", "bytes/s", 6, [1.0, 2.0, 3.0], "6 bytes")]
    assert peaks_of(found, DEVICE) == {"copy": 3.0, "datasheet": DATASHEET[DEVICE]}
    assert peaks_of(found, "another")["datasheet"] is None
