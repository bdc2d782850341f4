"""What a CPU tells of single operations: growth, overhead, and what is predicted. No test times."""

import numpy as np
import pytest

from gptwin.benchmarks import result_file
from gptwin.benchmarks.cpu import driver, growth, overhead, static
from gptwin.benchmarks.cpu.growth import slope, standard_error
from gptwin.benchmarks.models import Settings
from gptwin.benchmarks.operations import MODEL_CASES, arguments, by_numpy, by_torch, comparable
from gptwin.benchmarks.timing import GateError, expect_same
from gptwin.core.layers import softmax as core_softmax
from gptwin.kernels.common import launch
from gptwin.lab.twins.catalogue import TWINS
from gptwin.records import json_lines

QUICK = Settings(quick=True)
SIZES = (64, 128, 256, 512)


def test_the_exponent_of_a_power_law_is_found_exactly():
    sizes = np.array(SIZES, float)
    rounds = np.stack([3e-6 * sizes**2, 1e-3 * sizes**0.5], axis=1)
    assert slope(SIZES, rounds) == pytest.approx([2.0, 0.5])
    assert standard_error(SIZES, 3e-6 * sizes**2) == pytest.approx(0.0, abs=1e-9)
    assert standard_error((1, 2), np.array([1.0, 5.0])) is None


def test_the_standard_error_is_that_of_least_squares():
    values = np.exp(np.array([0.1, 1.4, 2.0, 3.7]))
    x, y = np.log(SIZES), np.log(values)
    (fitted, _), covariance = np.polyfit(x, y, 1, cov=True)
    assert slope(SIZES, values) == pytest.approx(fitted)
    assert standard_error(SIZES, values) == pytest.approx(np.sqrt(covariance[0, 0]))


def test_the_count_of_attention_grows_between_linear_and_quadratic():
    found = [f for f in growth.growth_with_length(QUICK) if "attention" in f["name"]]
    assert len(found) == 2 and all(1.5 < f["by_count"] <= 2 for f in found)
    widths = {f["name"]: f["by_count"] for f in growth.growth_with_width(QUICK)}
    assert widths["linear with width, NumPy reference"] == pytest.approx(2.0, abs=0.02)
    assert widths["gelu with width, eager PyTorch"] == pytest.approx(1.0)


@pytest.mark.parametrize("name", MODEL_CASES)
def test_reference_and_eager_give_results_and_gradients_under_the_same_names(name):
    given = arguments(TWINS[name], MODEL_CASES[name](8, 64))
    ours, other = by_numpy(given).result(), by_torch(given, TWINS[name].eager).result()
    assert set(ours) == set(other) and any(key.startswith("d_") for key in ours)
    for key, expected in ours.items():
        expect_same(key, other[key], expected, growth.TOLERANCE)


def test_a_wrong_gradient_is_not_timed(monkeypatch):
    right = core_softmax.softmax_backward
    twin = TWINS["softmax"]
    monkeypatch.setitem(twin.__dict__, "backward", lambda *given: 1.01 * right(*given))
    found = [f for f in growth.growth_with_length(QUICK) if f["name"].startswith("softmax")]
    assert [f["status"] for f in found] == ["not measured"] * 2
    assert all("gate: softmax at 4: d_x: differs" in f["reason"] for f in found)


def test_what_is_not_finite_must_be_so_for_both():
    expected, actual = comparable({"lse": [1.0, -np.inf]}), comparable({"lse": [1.0, -1e30]})
    expect_same("lse", expected["lse"], expected["lse"], 1e-3)
    with pytest.raises(GateError, match="finite: differs"):
        expect_same("finite", actual["lse, finite"], expected["lse, finite"], 1e-3)


def test_the_interpreter_part_runs_kernels_and_is_skipped_without_it(monkeypatch, tmp_path):
    ran = []
    right = TWINS["gelu"].kernel

    def kernel(**given):
        ran.append(launch.runs_on_triton("gelu", x=given["x"]))
        return right(**given)

    monkeypatch.setitem(TWINS["gelu"].__dict__, "kernel", kernel)
    monkeypatch.setattr(overhead, "QUICK_TWINS", ("gelu",))
    assert [f["status"] for f in overhead.interpreter(QUICK)] == ["measured"]
    assert ran and all(ran)
    monkeypatch.setattr(launch, "INTERPRETED", False)
    driver.run_part("interpreter", QUICK, tmp_path / "cpu.jsonl")
    part = result_file.load(tmp_path / "cpu.jsonl")["interpreter"]
    assert part["status"] == "skipped" and "TRITON_INTERPRET=1" in part["reason"]


ROW = {
    "operation": "gelu", "kernel": "gelu_forward_kernel", "arch": "sm_90", "dtype": "bfloat16",
    "configuration": 0, "occupancy": 0.75,
    "resources": {"registers": 32, "spill_bytes": 0, "shared_bytes": 1024},
}  # fmt: skip


def test_times_are_predicted_and_resources_read_where_they_are_stored(
    tmp_path, monkeypatch, capsys
):
    stored = tmp_path / "inspect.jsonl"
    monkeypatch.setattr(static, "INSPECTED", stored)
    assert all("gptwin inspect" in f["reason"] for f in static.static(QUICK))
    wider = ROW | {"configuration": 1, "resources": ROW["resources"] | {"registers": 40}}
    rows = [ROW, wider, ROW | {"resources": None}]
    stored.write_text(json_lines([{"typical": True}, *rows]))
    path = tmp_path / "cpu.jsonl"
    assert driver.bench(only=["static"], threads=1, quick=True, out=str(path)) == 0
    findings = {f["name"]: f for f in result_file.load(path)["static"]["findings"]}
    assert list(findings) == list(TWINS)
    assert {f["status"] for f in findings.values()} == {"predicted"}
    driver.print_table({"static": driver.begin(QUICK) | {"findings": list(static.static(QUICK))}},
                    driver.Console(width=120))  # fmt: skip
    printed = capsys.readouterr().out
    assert "predicted, not measured" in printed and "32-40" in printed and "75%" in printed


def test_the_prediction_is_the_roofline_of_the_datasheet():
    costs = {f["name"]: f["costs"] for f in static.static(QUICK)}
    gelu, linear = costs["gelu"]["forward"], costs["linear"]["forward"]
    assert gelu["predicted_seconds"]["H100"] == pytest.approx(gelu["bytes"] / 3.35e12)
    assert linear["predicted_seconds"]["A100"] == pytest.approx(linear["flops"] / 312e12)


def test_a_stored_inspection_of_something_else_is_refused(tmp_path):
    (tmp_path / "inspect.jsonl").write_text("{}\n{}\n")
    with pytest.raises(ValueError, match=r"inspect.jsonl: expected what gptwin inspect"):
        static.read_kernels(tmp_path / "inspect.jsonl")


def test_plots_are_stored_as_png_and_as_svg_that_takes_a_pages_colours(tmp_path):
    path = tmp_path / "cpu.jsonl"
    driver.run_part("growth-length", QUICK, path)
    driver.run_part("interpreter", QUICK, path)
    driver.plot(driver.ordered(result_file.load(path)), path)
    for name in ("cpu-growth", "cpu-overhead"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        drawing = (tmp_path / f"{name}.svg").read_text()
        assert "var(--ink, #22272b)" in drawing and "font-family: inherit" in drawing
        assert "#14675c" not in drawing.replace("var(--accent, #14675c)", "")
    assert not (tmp_path / "cpu.png").exists()  # nothing with a goal
