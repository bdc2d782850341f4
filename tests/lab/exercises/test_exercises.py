"""Every exercise's solution passes; what is handed out and each typical wrong answer does not."""

import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

pytest.importorskip("triton")

from gptwin.kernels.common import launch
from gptwin.lab.exercises import hand_out
from gptwin.lab.exercises.grade import Verdict, grade

pytestmark = pytest.mark.skipif(not launch.INTERPRETED, reason="needs TRITON_INTERPRET=1")

NAMES = hand_out.names()


def graded(folder: Path, name: str, text: str) -> Verdict:
    path = folder / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    return grade(str(path))


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_passes_and_what_is_handed_out_does_not(name: str, tmp_path: Path) -> None:
    verdict = graded(tmp_path, name, hand_out.solution(name))
    assert verdict.passed, verdict.messages
    verdict = graded(tmp_path, name, hand_out.task(name))
    assert not verdict.passed
    assert hand_out.find(name).broken or "is not filled yet" in verdict.messages[0]


@pytest.mark.parametrize("name", NAMES)
def test_each_typical_wrong_answer_gets_its_own_message(name: str, tmp_path: Path) -> None:
    exercise, solution = hand_out.find(name), hand_out.solution(name)
    assert len(exercise.wrong) >= 3
    for number, wrong in enumerate(exercise.wrong):
        verdict = graded(tmp_path, name, hand_out.replaced(solution, wrong.replace))
        said = "\n".join(verdict.messages)
        assert not verdict.passed, f"wrong answer {number} passes"
        assert wrong.says in said, f"wrong answer {number} ({verdict.look}): {said}"


def test_there_are_exercises_of_every_level_and_ten_faults() -> None:
    assert len(NAMES) >= 24
    assert {hand_out.level_of(name) for name in NAMES} == {1, 2, 3, 4, 5}
    assert sum(bool(hand_out.find(name).broken) for name in NAMES) >= 10
    assert all(len(hand_out.find(name).hints) >= 3 for name in NAMES)


def test_no_file_that_is_handed_out_hides_a_module() -> None:
    """With copy.py beside it, no Python that is started there could import PyTorch."""
    hidden = set(sys.stdlib_module_names) | set(packages_distributions())
    assert not hidden & set(NAMES)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("    return y\n", "", "is a `return` missing?"),
        ("def solve(", "def answer(", "there is no function `solve`"),
        ("triton.cdiv(x.numel(), 64)", "no_such_name", "solve raised NameError"),
        ("import torch\n", "import no_such_module\n", "importing it raised"),
        ("copy_kernel[grid](", "copy_kernel[grid(", "this is no Python"),
        ("copy_kernel[grid](x, y, x.numel(), BLOCK=64)", "y.copy_(x)", "launches no kernel"),
        ("torch.empty_like(x)", "x.new_empty(x.numel() + 1)", "has bytes that nothing has written"),
    ],
)
def test_what_keeps_a_file_from_running_is_named(
    old: str, new: str, says: str, tmp_path: Path
) -> None:
    verdict = graded(
        tmp_path, "first_copy", hand_out.replaced(hand_out.solution("first_copy"), {old: new})
    )
    assert says in "\n".join(verdict.messages)


@pytest.mark.parametrize(
    ("text", "match"),
    [('"""no_such: nothing."""\n', "no_such"), ("import torch\n", "first line")],
)
def test_a_file_that_names_no_exercise_is_refused(text: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=match):
        graded(tmp_path, "mine", text)
    with pytest.raises(ValueError, match="a Python file"):
        grade(str(tmp_path / "absent.py"))
