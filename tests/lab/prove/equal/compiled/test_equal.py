"""Twins proved, false statements and broken kernels refuted. Run by ../test_compiled.py."""

import dataclasses
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if os.environ.get("GPTWIN_TESTS_ON") != "native":
    pytest.skip("kernels are interpreted here", allow_module_level=True)

import torch

from gptwin.lab.own.declare import Declaration
from gptwin.lab.prove.equal import cases, command
from gptwin.lab.prove.equal.algebra import number as n
from gptwin.lab.prove.equal.cases import Outcome, prove_case
from gptwin.lab.prove.equal.edits import edited
from gptwin.lab.prove.equal.preparation import prepared, twin_to_prove
from gptwin.lab.prove.equal.proofs import Proof, run_unit, steered_units, two_byte_units, units_of
from gptwin.lab.prove.equal.refactoring import prove_refactoring
from gptwin.lab.twins.catalogue import TWINS

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from breaks import BREAKS, Break  # noqa: E402

# The smallest corner of each twin that has what is to be shown, and others that are smaller.
SMALL: dict[str, dict[str, Any]] = {
    "adamw": {"shapes": [[3, 5], [7]], "step": 2, "weight_decay": 0.1, "max_norm": 0.5, "seed": 3},
    "ema": {"shapes": [[3, 5], [7]], "decay": 0.9, "seed": 1},
}


def small(name: str) -> dict[str, Any]:
    """Give a small case: the twin's smallest study."""
    twin = TWINS[name]
    return SMALL.get(name) or {"seed": 1} | (twin.studies or twin.corners)[-1]


def prove(name: str, case: dict[str, Any] | None = None, **options: Any) -> Outcome:
    with prepared(name):
        return prove_case(twin_to_prove(name), case or small(name), **options)


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_is_proved_and_a_reference_changed_by_one_term_is_not(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside each result and gradient stands one to which 10⁻⁹ times an unknown is added."""
    honest, refuted = cases.differences, dict[str, bool]()

    def compared(result: str, wanted: n.Number, *others: Any) -> Any:
        false = wanted + n.variable(np.ones(())) * 1e-9
        if np.isfinite(wanted.x).any():
            refuted[result] = honest(result, false, *others) is not None
        return honest(result, wanted, *others)

    monkeypatch.setattr(cases, "differences", compared)
    outcome = prove(name)
    assert outcome.proved and outcome.n_elements > 0, (outcome.error, outcome.differences)
    assert outcome.degree < 2**24
    assert refuted and all(refuted.values()), refuted


# The breaks that small cases show in little time; study.py tries all.
FAST = [one for one in BREAKS if one.twin not in ("attention", "cross_entropy", "ppo_loss")]


def broken_is_noticed(one: Break, case: dict[str, Any], steer: str = "") -> Outcome:
    from gptwin.lab.mutate.mutants import source_of

    module = importlib.import_module("gptwin.kernels." + one.file.replace("/", "."))
    source = source_of(Path(module.__file__ or ""))
    assert one.old in source, f"{one.what}: the kernel has changed, mend breaks.py"
    with edited(module.__name__, one.function, source.replace(one.old, one.new)):
        return prove(one.twin, case, steer=steer)


@pytest.mark.parametrize("one", FAST, ids=lambda one: f"{one.twin}: {one.what}")
def test_a_broken_kernel_is_refuted(one: Break) -> None:
    """One that is no other function is proved equal, here at the smallest corners alone."""
    corners = sorted(TWINS[one.twin].corners, key=lambda case: len(str(case)))
    corners = corners if one.changes else corners[:1]
    outcomes = []
    for steer in ("", "steep"):
        for case in (small(one.twin), *corners):
            outcomes.append(broken_is_noticed(one, case, steer))
            assert not outcomes[-1].error
            if outcomes[-1].differences:
                assert one.changes and outcomes[-1].differences[0].line
                return
    assert not one.changes


def test_a_difference_is_described() -> None:
    one = next(b for b in BREAKS if b.what == "KL clamped at 1e-7")
    difference = broken_is_noticed(
        one, {"rows": 3, "vocab": 5, "share": 1.0, "seed": 1}
    ).differences[0]
    assert str(difference).startswith("kl: 3 of 3 elements differ, the first at [0]: the kernel")
    assert "reference's plus 1e-07 (stored by exact_kl.py:" in str(difference)


# --- others' styles ------------------------------------------------------------------------------


def styles() -> list[str]:
    """Name all twins of the two files."""
    modules = [importlib.import_module(f"styles_of_{what}") for what in ("rows", "loops")]
    return [
        f"{module.__name__}:{name}"
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, Declaration)
    ]


@pytest.mark.parametrize("name", styles())
def test_another_style_raises_no_false_alarm(name: str) -> None:
    proof = Proof(name, 1)
    for unit in units_of(proof.name, 1):
        proof.outcomes += run_unit(unit)[1]
    errors = [outcome.error for outcome in proof.outcomes]
    differences = [str(d) for outcome in proof.outcomes for d in outcome.differences]
    assert not differences
    if ":unfollowed_" in name:
        assert all(error.startswith("not followed: ") for error in errors), errors
    else:
        assert proof.proved, errors


def test_a_false_reference_of_another_style_is_refuted(monkeypatch: pytest.MonkeyPatch) -> None:
    styles_module = importlib.import_module("styles_of_loops")
    declared = styles_module.LOGSUMEXP
    import dataclasses

    false = dataclasses.replace(declared, reference=lambda x: torch.logsumexp(x, 1) + 1e-9)
    monkeypatch.setattr(styles_module, "FALSE", false, raising=False)
    outcome = run_unit(units_of("styles_of_loops:FALSE", 1)[0])[1][0]
    assert outcome.differences and not outcome.error


# --- the rest ------------------------------------------------------------------------------------


def test_shadows_are_steered_where_a_decision_went_one_way() -> None:
    """Drawn numbers leave the gradient's norm below AdamW's bound; steered ones pass it."""
    proof = Proof("adamw", 1)
    proof.outcomes.append(prove("adamw", TWINS["adamw"].corners[0] | {"configuration": 0}))
    drawn = set(proof.one_way(steered=False))
    for unit in steered_units(proof):
        proof.outcomes += run_unit(unit)[1]
    assert not proof.failures
    assert set(proof.one_way(steered=True)) < drawn


REFACTORED = """
import torch
import triton
import triton.language as tl


@triton.jit
def scale_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    tl.store(y_ptr + at, {body}, mask=at < n)


def drive_scale_kernel():
    x = torch.randn(50, device="cuda")
    y = torch.empty_like(x)
    scale_kernel[(triton.cdiv(50, {block}),)](x, y, 50, BLOCK={block})
    return y
"""


def test_a_refactoring_is_proved_or_refuted(tmp_path: Path) -> None:
    def written(name: str, body: str, block: int) -> str:
        (tmp_path / f"{name}.py").write_text(REFACTORED.format(body=body, block=block))
        return f"{tmp_path / name}.py::scale_kernel"

    old = written("old", "x * tl.sigmoid(x)", 16)
    assert prove_refactoring(old, written("new", "x / (1.0 + tl.exp(-x))", 64), 1).proved
    wrong = prove_refactoring(old, written("wrong", "x / (1.0000001 + tl.exp(-x))", 64), 1)
    assert wrong.failures[0].differences[0].n_differing == 50
    with pytest.raises(ValueError, match="--equal: expected two kernels of files"):
        command.run([old], seeds=1)


def test_the_command_tells_what_it_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})  # no process is started
    code, rows = command.run(["ema"], seeds=1)
    printed = capsys.readouterr().out
    assert code == 0 and rows[0]["proved"] and rows[0]["kernels"] == "1/1"
    assert "all proved equal on the branches taken" in printed
    assert printed.splitlines()[5].rstrip().endswith("proved")


def test_an_access_outside_every_tensor_is_no_crash(tmp_path: Path) -> None:
    text = REFACTORED.format(body="tl.load(x_ptr + at + 10**9)", block=16)
    (tmp_path / "far.py").write_text(text)
    far = f"{tmp_path / 'far'}.py::scale_kernel"
    proof = prove_refactoring(far, far, 1)
    assert "load outside every tensor" in proof.failures[0].error


def test_the_second_judge_tells_equivalent_from_alive_and_from_what_it_cannot_see() -> None:
    from gptwin.lab.mutate.install import KERNELS
    from gptwin.lab.mutate.mutants import derive
    from gptwin.lab.mutate.second_judge import opinion

    def said(twin: str, file: str, function: str, operator: str, replacement: str = "") -> Any:
        mutants = derive(KERNELS / f"{file}.py", f"kernels/{file}.py")
        return opinion(twin, next(
            m for m in mutants
            if (m.function, m.operator) == (function, operator) and replacement in m.replacement
        )).equal  # fmt: skip

    assert said("gelu", "layers/gelu", "gelu_forward_kernel", "other changed") is True
    assert said("gelu", "layers/gelu", "gate", "factor dropped") is False
    assert said("gelu", "layers/gelu", "gelu_forward_kernel", "precision lowered") is None
    moved = "optimizer/ema", "_average", "bound off by one", "<= 0.5"
    assert said("ema", *moved) is None
    assert said("kl", "rlhf/kl", "k3_near_0", "factor dropped") is None


def test_the_list_of_equivalent_mutants_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gptwin.lab.mutate import console
    from gptwin.lab.mutate.mutants import derive

    of_gelu = derive(console.KERNELS / "layers/gelu.py", "kernels/layers/gelu.py")
    forward = [mutant for mutant in of_gelu if mutant.function == "gelu_forward_kernel"]
    monkeypatch.setattr(console, "mutants_of", lambda name: forward)
    assert console.check_listed(["gelu"], processes=1) == 0
    assert "1 equivalent, 0 alive, 0 not judged" in capsys.readouterr().out


def test_configurations_for_two_bytes_are_proved_in_bfloat16() -> None:
    proof = Proof("decode_attention", 1)
    units = two_byte_units(proof)
    assert units and all(unit.dtype == "bfloat16" for unit in units)
    _, outcomes, _ = run_unit(dataclasses.replace(units[0], seeds=1))
    assert all(outcome.proved for outcome in outcomes)
    assert ("decode_attention_split_kernel", 1) in set().union(*(o.reached for o in outcomes))
