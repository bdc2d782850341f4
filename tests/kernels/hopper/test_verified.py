"""`gptwin verify` with GPTWIN_HOPPER=1 says which cases ran the kernels, and fails if none did."""

import pytest
import torch

from gptwin.kernels.common import launch
from gptwin.kernels.hopper import answers, serving
from gptwin.kernels.hopper.answers import KERNELS, Answers
from gptwin.lab.twins.attention.hopper import CASES, cases_for_hopper
from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.verify import console
from gptwin.lab.verify.invariance_console import verify_invariance
from gptwin.lab.verify.verify import fixed_cases


@pytest.fixture(autouse=True)
def switched_on(monkeypatch):
    monkeypatch.setenv(serving.VARIABLE, "1")


def test_without_such_a_gpu_it_is_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"GPTWIN_HOPPER: expected a GPU of capability 9\.0"):
        console.verify(["attention"], dtypes=[])
    with pytest.raises(ValueError, match="unset beside --batch-invariant"):
        verify_invariance(["attention"], dtypes=[])
    monkeypatch.setattr(answers, "INTERPRETED", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for capability, here in (((8, 0), "a GPU of capability 8.0"), ((9, 0), "")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda c=capability: c)
        assert answers.why_not_here() == here
    answers.expect_here()


@pytest.mark.skipif(not launch.INTERPRETED, reason="the plain kernels are interpreted")
def test_a_run_that_reaches_none_fails_with_the_reason_of_the_door(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(console, "expect_here", lambda: None)
    monkeypatch.setattr(serving, "can_run", lambda x: True)
    case = '{"batch": 1, "head": 1, "queries": 5, "d_head": 64, "causal": true, "window": 3}'
    stored = tmp_path / "found.json"
    options = {"dtypes": ["bfloat16"], "case": case, "json_file": str(stored)}
    assert console.verify(["attention"], **options) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "all agree, but nothing was proved for Hopper" in said
    assert (
        "GPTWIN_HOPPER=1 was asked for, and no case ran attention's kernels for Hopper: a" in said
    )
    assert "a window, padding or documents: the causal mask alone is known (1 cases)" in said
    assert '"passed": false' in stored.read_text()
    monkeypatch.setenv(serving.VARIABLE, "0")
    assert console.verify(["attention"], **options) == 0


def test_every_kernel_must_be_launched_unless_one_case_was_asked_for():
    some = Answers()
    assert "no case ran attention's kernels for Hopper: none calls" in some.missing(whole=True)
    some.add_case(["", ""], [*KERNELS][:2])
    some.add_case(["d_head 40: no", "d_head 40: no"], ["attention_forward_kernel"])
    assert "no case ran d_query: d_head 40: no (1 cases)" in some.missing(whole=True)
    assert not some.missing(whole=False)
    more = Answers()
    more.add_case([""], KERNELS)
    some.add(more)
    assert not some.missing(whole=True)
    assert "forward 2, d_key and d_value 2, d_query 1; the plain ones: d_head 40" in str(some)


def test_cases_are_verified_that_they_serve(monkeypatch):
    """Each d_head, masked or not, with shared keys, beyond one turn of the rings."""
    monkeypatch.setattr(serving, "can_run", lambda x: True)
    twin = TWINS["attention"]
    asked = [*fixed_cases(twin)]
    for case in CASES:
        assert case | {"configuration": 0} in asked
    for value in ("0", ""):
        monkeypatch.setenv(serving.VARIABLE, value)
        assert not cases_for_hopper(twin)
    monkeypatch.setenv(serving.VARIABLE, "1")
    assert not cases_for_hopper(TWINS["gelu"])
    assert {(c["d_head"], c.get("causal", False)) for c in CASES} == {
        (64, True), (64, False), (128, True), (128, False),
    }  # fmt: skip
