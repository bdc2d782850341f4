"""The sanitizer finds every planted fault, and nothing where there is none."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gptwin.kernels import launch
from gptwin.lab.finding import KINDS
from gptwin.lab.sanitize import sanitize
from gptwin.lab.sanitize_drivers import DriverTarget, load

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
    found = {(f.kind, int(f.where.rpartition(":")[2]), f.tensor) for f in report.findings}
    assert found == set(planted(path)), "\n".join(map(str, report.findings))
    for finding in report.findings:
        assert finding.kernel == "broken_kernel"
        assert Path(finding.where.rpartition(":")[0]) == path


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_nothing_is_found_once_it_is_mended(path: Path) -> None:
    report = sanitize(DriverTarget(load(str(path)), "drive_fixed_kernel"))
    assert not report.findings, "\n".join(map(str, report.findings))
    assert "fixed_kernel" in report.kernels and report.n_accesses


def test_every_kind_is_planted_somewhere() -> None:
    assert {kind for path in BROKEN for kind, _, _ in planted(path)} == set(KINDS)
