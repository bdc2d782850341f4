"""What failed once is kept, and comes first the next time."""

import dataclasses
import runpy
from pathlib import Path

import pytest

from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.verify import console, regressions, verify
from gptwin.lab.verify.regressions import Failure, failures, remember

TESTS = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of its own: none of these failures is the project's."""
    path = tmp_path / "regressions.json"
    monkeypatch.setattr(regressions, "FILE", path)
    monkeypatch.setattr(console, "FILE", path)
    return path


@pytest.fixture
def broken(monkeypatch):
    """A GELU that is wrong where there are more than two numbers."""
    twin = TWINS["gelu"]

    def kernel(x, **options):
        return twin.kernel(x, **options) * (1.5 if x.numel() > 2 else 1.0)

    kernel.__module__ = twin.kernel.__module__  # where Twin.kernels() looks
    monkeypatch.setitem(TWINS, "gelu", dataclasses.replace(twin, kernel=kernel))


def test_the_committed_file_is_in_order():
    known = {name: failures(name, TESTS / "regressions.json") for name in TWINS}
    assert sum(map(len, known.values())) >= 7


def test_a_failure_is_kept_once(file):
    first, second = Failure("float32", {"shape": [1]}, "why"), Failure("float16", {"shape": [1]})
    assert failures("gelu") == []
    assert remember("gelu", first) and remember("gelu", second)
    assert not remember("gelu", dataclasses.replace(first, note="another day"))
    assert failures("gelu") == [first, second] and failures("softmax") == []
    assert len(file.read_text().splitlines()) == 2 + 2 + 2  # a failure on each line


def test_breaking_a_kernel_records_the_case_and_the_next_run_replays_it_first(
    file, broken, monkeypatch, capsys, device
):
    asked = {"dtypes": ["float32"], "examples": 5}
    assert console.verify(["gelu"], **asked) == 1
    assert not file.exists()  # unless asked to
    assert console.verify(["gelu"], **asked, remember=True) == 1
    assert "kept, to be replayed first" in capsys.readouterr().out
    (kept,) = failures("gelu")
    assert kept.dtype == "float32" and "gptwin verify" in kept.note

    run = []
    for name in ("check", "check_nonfinite"):
        real = getattr(verify, name)
        monkeypatch.setattr(
            verify, name, lambda t, case, *r, real=real: (run.append(case), real(t, case, *r))[1]
        )
    row = verify.verify_row(verify.Job("gelu", "float32", 1, 0, None), device, lambda: None)
    assert row.failure is not None and run[0] == {"configuration": 0} | kept.case
    assert (
        len(run)
        >= verify.count_cases(row.job)
        > verify.count_cases(dataclasses.replace(row.job, dtype="float16"))
    )


def test_a_failing_property_of_a_twin_is_kept_in_its_smallest_case(file):
    holds_for_tame_cases = runpy.run_path(str(TESTS / "test_twins.py"))["holds_for_tame_cases"]

    def property_of_gelu(case):
        assert max(case["shape"]) < 5

    twin = TWINS["gelu"]
    with pytest.raises(AssertionError):
        holds_for_tame_cases(twin, property_of_gelu, max_examples=100)
    (kept,) = failures("gelu")
    assert max(kept.case["shape"]) == 5
    assert "tests/test_twins.py, test_a_failing_property" in kept.note

    tried = []
    holds_for_tame_cases(twin, lambda case: tried.append(case["shape"]), max_examples=1)
    assert tried[0] == kept.case["shape"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON, got Expecting property name"),
        ("[]", "expected an object"),
        ('{"gelo": []}', "gelo: expected one of softmax, .* renamed"),
        ('{"gelu": {}}', "gelu: expected a list, got {}"),
        ('{"gelu": [{"case": {}}]}', r"gelu\[0\]: expected .*dtype"),
        ('{"kl": [{"dtype": "float16", "case": {}}]}', r"kl\[0\].dtype: expected one of float32"),
        ('{"gelu": [{"dtype": "float32", "case": {}}]}', r"case: expected such as .*KeyError"),
        ('{"gelu": [{"dtype": "float32", "case": [1]}]}', r"case: expected such as"),
    ],
)
def test_a_malformed_file_is_refused_with_the_place(file, text, message):
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as refused:
        failures("gelu")
    assert str(file) in str(refused.value) and "\n" not in str(refused.value)


def test_without_a_checkout_nothing_is_remembered(monkeypatch, tmp_path):
    monkeypatch.setattr(regressions, "FILE", tmp_path / "no" / "regressions.json")
    assert failures("gelu") == []
    with pytest.raises(ValueError, match="remember: expected a checkout of gptwin"):
        remember("gelu", Failure("float32", {"shape": [1]}))
