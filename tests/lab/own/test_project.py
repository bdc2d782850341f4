"""The project of docs/own.md: each instrument, from its declaration, as the page says."""

import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gptwin.cli import app
from gptwin.kernels.common.launch import INTERPRETED
from gptwin.lab.mutate.equivalent import reasons_of
from gptwin.lab.mutate.mutate import mutants_of
from gptwin.lab.own.check import check
from gptwin.lab.own.declare import Declaration
from gptwin.lab.twins import find

from ...own_md import PAGE, write_project

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="sized for the interpreter")
MODULES = ("twins", "rms_norm")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the mended project, the current one; its modules are forgotten later."""
    write_project(tmp_path, mended=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for variable, value in (("TRITON_INTERPRET", "1"), ("CUDA_VISIBLE_DEVICES", "")):
        monkeypatch.setenv(variable, value)  # commands set them, too, and this undoes it
    for module in MODULES:
        monkeypatch.setitem(sys.modules, module, None)
        del sys.modules[module]
    find._imported.cache_clear()
    mutants_of.cache_clear()
    yield tmp_path
    find._imported.cache_clear()
    mutants_of.cache_clear()


def gptwin(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_its_code_is_short(project: Path) -> None:
    lines = (project / "twins.py").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) < 15


def test_each_instrument_takes_the_declaration(project: Path) -> None:
    one = ("twins:RMS", "--dtype", "float32")
    said = gptwin("verify", "--dtype", "float32", "--examples", "2", "--json", "found.json")
    assert "each kernel against its reference" in said and "all agree" in said
    assert json.loads(Path("found.json").read_text())["rows"][0]["operation"] == "twins:RMS"
    assert "nothing found" in gptwin("sanitize", *one)
    gptwin("trace", *one)
    assert Path("build/trace/twins.RMS.html").is_file()
    said = gptwin(
        "mutate",
        "twins:RMS",
        "--no-prove",
        "--sample",
        "5",
        "--seed",
        "1",
        "--examples",
        "1",
        "--processes",
        "1",
    )
    assert "5 mutants" in said and "every twin reaches it" in said
    gptwin("report", "twins:RMS", "--verification", "found.json")
    page = Path("report.html").read_text(encoding="utf-8")
    assert "rms_norm_kernel" in page and "No cost is declared." in page


def test_the_driver_of_the_page_watches_it(project: Path) -> None:
    """docs/sanitize.md has it appended to rms_norm.py."""
    page = (PAGE.parent / "sanitize.md").read_text(encoding="utf-8")
    (driver,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    with open("rms_norm.py", "a", encoding="utf-8") as file:
        file.write(f"\n\n{driver}")
    assert "nothing found" in gptwin("sanitize", "rms_norm.py::rms_norm_kernel")


def test_a_list_beside_the_kernel_names_what_changes_no_result(project: Path) -> None:
    twin, (first, *others) = find.find_twin("twins:RMS"), mutants_of("twins:RMS")
    entry = "[[equivalent]]\nreason = 'It is so.'\nmutants = [{!r}]\n"
    file = Path("rms_norm.equivalent.toml")
    file.write_text(entry.format(first.name))
    assert first.name.startswith("rms_norm.py rms_norm")
    assert reasons_of(twin, [first, *others]) == {first.identity: "It is so."}
    file.write_text(entry.format("rms_norm.py rms_norm | other changed | a -> b | 0"))
    with pytest.raises(ValueError, match=r"equivalent.toml: expected names of mutants of rms_n"):
        reasons_of(twin, [first])
    for text in ("equivalent = 3", "[[equivalent]]\nmutants = []", "[allow]", "[equivalent]", "="):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"rms_norm.equivalent.toml: expected (TOML|\[\[equi)"):
            reasons_of(twin, [first])


def test_inspect_compiles_it(project: Path) -> None:
    said = gptwin("inspect", "twins:RMS", "--arch", "sm_90", "--dtype", "bfloat16")
    assert "1 kernels, 1 compilations; 0 failed" in said


def test_predict_estimates_it(project: Path) -> None:
    said = gptwin("predict", "twins:RMS", "--dtype", "bfloat16")
    assert "H100 SXM (sm_90): estimates, not measurements, of known error ±15%" in said
    assert "rms_norm" in said and "the twin declares no cost, so there is no roofline" in said


def test_the_fault_that_verify_finds_is_the_one_shown(project: Path) -> None:
    write_project(project, mended=False)
    (project / "rms_norm.py").write_text(
        (project / "rms_norm.py").read_text()
        .replace("x = tl.load(x_ptr + row * stride + at, mask=at < n)",
                 "x = tl.load(x_ptr + row * stride + at, mask=at < n, other=0.0)")
        .replace("tl.load(weight_ptr + at)", "tl.load(weight_ptr + at, mask=at < n)")
    )  # fmt: skip
    import twins  # type: ignore[import-not-found]

    assert isinstance(twins.RMS, Declaration)
    with pytest.raises(AssertionError) as caught:
        check(twins.RMS, examples=25)
    shown = PAGE.read_text(encoding="utf-8").partition("smallest failing case")[2]
    shown = "smallest failing case" + shown.partition("written by")[0]
    said = " ".join(str(caught.value).split())
    assert " ".join(shown.split()) in said


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("twins:RSM", "twins:RSM: expected a twin that twins declares .*: RMS, got nothing"),
        ("twins:rms_norm", "twins:rms_norm: expected .*, got a function"),
        ("nowhere:RMS", "nowhere:RMS: importing nowhere raised ModuleNotFoundError"),
        ("RMS", "operation: expected one of softmax, .* or package.module:NAME"),
    ],
)
def test_names_without_a_twin_are_refused(project: Path, name: str, message: str) -> None:
    with pytest.raises((ValueError, RuntimeError), match=message):
        find.find_twin(name)
