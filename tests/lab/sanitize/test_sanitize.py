"""The sanitizer finds every planted fault, and nothing where there is none."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gptwin.kernels.common import launch
from gptwin.lab.sanitize import console
from gptwin.lab.sanitize.drivers import DriverTarget, load
from gptwin.lab.sanitize.own_twins import IN_PLACE, targets
from gptwin.lab.sanitize.sanitize import sanitize
from gptwin.lab.sanitize.violation import KINDS
from gptwin.lab.twins.catalogue import TWINS

BROKEN = sorted((Path(__file__).parent / "broken").glob("*.py"))

pytestmark = pytest.mark.skipif(
    not launch.INTERPRETED, reason="the sanitizer watches Triton's interpreter"
)


def planted(path: Path) -> Iterator[tuple[str, int, str]]:
    """Yield kind, line and tensor from the comments "finds: kind, tensor; ..." of a file."""
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        found = re.search(r"# finds( on the next line)?: (.*)", line)
        if found:
            for fault in found[2].split(";"):
                kind, _, tensor = fault.partition(",")
                yield kind.strip(), number + bool(found[1]), tensor.strip()


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_each_planted_fault_is_found_and_nothing_else(path: Path) -> None:
    report = sanitize(DriverTarget(load(str(path)), "drive_broken_kernel"))
    found = {(f.kind, int(f.where.rpartition(":")[2]), f.tensor) for f in report.violations}
    assert found == set(planted(path)), "\n".join(map(str, report.violations))
    for violation in report.violations:
        assert violation.kernel == "broken_kernel"
        assert Path(violation.where.rpartition(":")[0]) == path


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_nothing_is_found_once_it_is_mended(path: Path) -> None:
    report = sanitize(DriverTarget(load(str(path)), "drive_fixed_kernel"))
    assert not report.violations, "\n".join(map(str, report.violations))
    assert "fixed_kernel" in report.kernels and report.n_accesses


def test_every_kind_is_planted_somewhere() -> None:
    assert {kind for path in BROKEN for kind, _, _ in planted(path)} == set(KINDS)


def test_the_neighbour_that_was_hit_is_named() -> None:
    for name, neighbour in (("neighbour", "bias_ptr[0]"), ("neighbour_in_a_pool", "values_ptr[0]")):
        path = next(path for path in BROKEN if path.stem == name)
        (violation,) = sanitize(DriverTarget(load(str(path)), "drive_broken_kernel")).violations
        assert violation.detail == f"that is {neighbour}"


# --- a person's own file --------------------------------------------------------------------------

AUTOTUNED = """
import torch
import triton
import triton.language as tl


@triton.autotune([triton.Config({"BLOCK": 16}), triton.Config({"BLOCK": 64})], key=["n"])
@triton.jit
def double_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + at, 2 * tl.load(x_ptr + at))


@triton.jit
def half_kernel(x_ptr, BLOCK: tl.constexpr):
    pass


def drive_double_kernel():
    x, y = torch.ones(48), torch.empty(48)
    double_kernel[lambda meta: (triton.cdiv(48, meta["BLOCK"]),)](x, y, 48)
    return {"doubled": y}


def drive_empty():
    y = torch.empty(0)
    double_kernel[(0,)](torch.ones(0), y, 0)
    return y


def drive_nothing():
    return torch.ones(1)


def drive_and_forget():
    double_kernel[(3,)](torch.ones(48), torch.empty(48), 48)


def drive_badly():
    return torch.ones(2) @ torch.ones(3)
"""


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A person's file, alone in a directory, from which gptwin is called."""
    (tmp_path / "own.py").write_text(AUTOTUNED)
    monkeypatch.chdir(tmp_path)
    return "own.py"


def run(*names: str, **options: Any) -> int:
    return console.run(list(names), **({"dtypes": [], "allow": []} | options))


def test_every_configuration_of_a_persons_kernel_runs(
    own_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"{own_file}::double_kernel", json_file="found.json") == 1
    document = json.loads(Path("found.json").read_text())
    (target,) = document["rows"]
    assert not document["passed"] and target["launches"] == 2
    kinds = [(f["kind"], f["access"], f["tensor"], f["index"]) for f in target["findings"]]
    assert kinds == [
        ("out of bounds", "load", "x_ptr", [48]),
        ("out of bounds", "store", "y_ptr", [48]),
    ]
    assert all("BLOCK: 64" in f["case"] and f["count"] == 16 for f in target["findings"])
    printed = capsys.readouterr().out
    assert "own.py:11: out of bounds" in printed and "x_ptr[48]; its elements are 0..47" in printed
    assert run(f"{own_file}::double_kernel", allow=["out of bounds"]) == 0


def test_a_grid_of_none_is_no_fault(own_file: str) -> None:
    assert run(f"{own_file}::double_kernel", driver="drive_empty") == 0


@pytest.mark.parametrize(
    ("target", "driver", "message"),
    [
        (
            "own.py::nothing",
            None,
            "a kernel of own.py \\(double_kernel, half_kernel\\), got 'nothing'",
        ),
        ("own.py::double_kernel", "drive_it", "a function drive_it\\(\\) in own.py"),
        ("other.py::double_kernel", None, "a Python file that exists"),
        ("sotfmax", None, "one of softmax, .*adamw_.*file.py::kernel, got 'sotfmax'"),
    ],
)
def test_a_wrong_target_is_refused(
    own_file: str, target: str, driver: str | None, message: str
) -> None:
    with pytest.raises((ValueError, RuntimeError), match=message):
        run(target, driver=driver)


@pytest.mark.parametrize(
    ("target", "driver", "n_found", "message"),
    [
        ("own.py::double_kernel", "drive_nothing", 0, "no kernel was launched"),
        ("own.py", "drive_nothing", 0, "no kernel was launched"),
        ("own.py::double_kernel", "drive_and_forget", 2, "likely cause: no return statement"),
        ("own.py::double_kernel", "drive_badly", 0, "drive_badly raised .*own.py:40"),
        ("own.py::half_kernel", "drive_double_kernel", 2, "half_kernel was not launched, but dou"),
        ("own.py", "drive_double_kernel", 2, "2 findings"),
    ],
)
def test_what_was_not_checked_is_told_and_no_finding_is_lost(
    own_file: str, target: str, driver: str, n_found: int, message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run(target, driver=driver, json_file="found.json") == 1
    document = json.loads(Path("found.json").read_text())
    assert not document["passed"] and len(document["rows"][0]["findings"]) == n_found
    assert re.search(message, capsys.readouterr().out)


def test_a_wrong_option_is_refused(own_file: str) -> None:
    for options, message in (
        ({"allow": ["races"]}, "allow: expected one of out of bounds"),
        ({"dtypes": ["float8"]}, "dtype: expected one of float32"),
        ({"json_file": "nowhere/found.json"}, "json: expected a file in a directory"),
    ):
        with pytest.raises(ValueError, match=message):
            run(own_file, **options)


IN_PLACE_FILE = """
import torch
import triton
import triton.language as tl
from .sizes import N


@triton.jit
def double_kernel(x_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(x_ptr + at, 2 * tl.load(x_ptr + at))


def double(x):
    double_kernel[(1,)](x, BLOCK=N)
    return x


def doubled(x):
    return double(x + 1).sum()


def doubled_through_a_buffer(x):
    buffer = torch.empty_like(x)
    buffer.copy_(x)
    return double(buffer).sum()


def made():
    return torch.randn(N)


def drive_own_intermediate():
    return doubled(torch.randn(N))


def drive_own_buffer():
    return doubled_through_a_buffer(made())


def drive_returned():
    x = torch.randn(N, device="cuda")
    double(x)
    return {"x": x}


def drive_input():
    x = made()
    return double(x).sum()


def drive_unnamed_input():
    return double(torch.randn(N)).sum()


def drive_helpers_input():
    def drive():
        x = torch.randn(N)
        return double(x).sum()
    return drive()
"""


@pytest.mark.parametrize(
    ("driver", "n_found"),
    [
        ("own_intermediate", 0),
        ("own_buffer", 0),
        ("returned", 0),
        ("input", 1),
        ("unnamed_input", 1),
        ("helpers_input", 1),
    ],
)
def test_an_input_is_what_the_driver_can_see(tmp_path: Path, driver: str, n_found: int) -> None:
    package = tmp_path / f"in_place_{driver}"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "sizes.py").write_text("N = 16\n")
    (package / "kernels.py").write_text(IN_PLACE_FILE)
    module = load(str(package / "kernels.py"))  # it imports its neighbour relatively
    report = sanitize(DriverTarget(module, f"drive_{driver}"))
    kinds = [violation.kind for violation in report.violations]
    assert kinds == ["write to an input"] * n_found and report.n_launches == 1
    assert not sanitize(DriverTarget(module, f"drive_{driver}"), updates=["x_ptr"]).violations


# --- the project's own kernels --------------------------------------------------------------------


@pytest.mark.parametrize("name", [*TWINS, *IN_PLACE])
def test_nothing_is_found_in_our_own_kernels(name: str) -> None:
    report = sanitize(next(targets(name, [])))
    assert not report.violations, "\n".join(map(str, report.violations))
    assert report.n_accesses


def test_an_update_in_place_must_be_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    undeclared = dataclasses.replace(IN_PLACE["ema_"], updates=("no such kind",))
    monkeypatch.setitem(IN_PLACE, "ema_", undeclared)
    violations = sanitize(next(targets("ema_", []))).violations
    assert {violation.kind for violation in violations} == {"write to an input"}
