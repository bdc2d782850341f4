"""`gptwin barriers`: of a person's own file, of a program, and what it refuses."""

import json
from pathlib import Path

import pytest

from gptwin.lab.gluon.console import barriers

OWN = """
import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier


@gluon.jit
def meets_kernel(x_ptr, COUNT: gl.constexpr):
    ready = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    mbarrier.init(ready, count=COUNT)
    mbarrier.arrive(ready)
    mbarrier.wait(ready, 0)
    gl.store(x_ptr, gl.load(x_ptr) + 1)


def launch(count=1):
    x = torch.rand(1, device="cuda")
    meets_kernel[(1,)](x, count)
    return x


def waits():
    launch(2)


def nothing():
    pass


if __name__ == "__main__":
    launch()
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "own.py"
    path.write_text(OWN, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("function", "code", "said"),
    [("launch", 0, "nothing found"), ("waits", 1, "deadlock"), ("nothing", 1, "no Gluon kernel")],
)
def test_a_persons_own_kernel_is_played(
    file: str, function: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert barriers([f"{file}::{function}"], schedules=["ahead", "1"]) == code
    assert said in capsys.readouterr().out


def test_a_program_is_played_as_it_is(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert barriers(["python", file], schedules=[]) == 0
    assert "meets_kernel" in capsys.readouterr().out


def test_its_barriers_are_broken(file: str, tmp_path: Path) -> None:
    """All but a wait for what the same partition has done."""
    stored = tmp_path / "rows.jsonl"
    code = barriers(
        [f"{file}::launch"], schedules=[], with_mutants=True, json_file=str(stored)
    )  # fmt: skip
    _, *rows = map(json.loads, stored.read_text().splitlines())
    found = {f"{row['what']}, {row['kind']}": row["found"] for row in rows}
    assert found["init of ready, left out"] == "not initialised"
    assert found["arrive of ready, left out"] == found["wait of ready, phase flipped"] == "deadlock"
    assert found["wait of ready, left out"] == "" and code == 1


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        (["softmax"], {}, "kernel: expected"),
        (["own.py::launch"], {}, "target: expected"),
        (["attention forward"], {"schedules": ["sideways"]}, "schedule must be"),
        (["python", "own.py"], {"with_mutants": True}, "mutants: expected"),
    ],
)
def test_what_makes_no_sense_is_refused(names: list[str], options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        barriers(names, **({"schedules": []} | options))
