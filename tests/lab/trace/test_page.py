"""The page of a trace: every tile with its numbers, its line and its tensor, in one file."""

import json
import re
from pathlib import Path

import pytest
import torch

from gptwin.kernels.common import plain
from gptwin.kernels.common._triton import tl, triton
from gptwin.kernels.common.launch import INTERPRETED
from gptwin.lab.trace import record
from gptwin.lab.trace.page import TEMPLATE, write_page
from gptwin.lab.trace.record import recording_tiles
from gptwin.lab.trace.trace import trace_file, trace_program

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="a GPU shows nothing of this")


@triton.jit
def shift_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    tl.store(y_ptr + at, x + 0.5, mask=at < n)


def data_of(page: Path) -> dict:
    (text,) = re.findall(r"const DATA = (.*);\n", page.read_text(encoding="utf-8"))
    return json.loads(text)


def trace_shift(page: Path) -> dict:
    x = torch.tensor([1.0, float("inf"), -3.0, 1 / 3, 7.0, 9.0], dtype=torch.bfloat16)
    y = torch.empty(9, dtype=torch.bfloat16)[::2]
    plain.watch_plain_launches()
    with recording_tiles() as recorder:
        shift_kernel[(2,)](x, y.contiguous(), 5, BLOCK=4)
    write_page(page, "a shift</script>", recorder)
    return data_of(page)


def test_each_program_has_its_tiles(tmp_path):
    data = trace_shift(tmp_path / "page.html")
    (launch,) = data["launches"]
    assert launch["kernel"] == "shift_kernel"
    assert [(t["name"], t["shape"], t["dtype"]) for t in launch["tensors"]] == [
        ("x", [6], "bfloat16"),
        ("y", [5], "bfloat16"),
    ]
    assert [program["id"] for program in launch["programs"]] == [[0, 0, 0], [1, 0, 0]]
    load, store = launch["programs"][0]["turns"]
    assert (load["kind"], load["tensor"], load["at"]) == ("load", 0, [0, 1, 2, 3])
    assert load["values"] == [1, "inf", -3, 0.334]  # as bfloat16 has a third
    assert (store["kind"], store["tensor"]) == ("store", 1)
    assert store["values"] == [1.5, "inf", -2.5, 0.8359]  # a tie, to even
    lines = data["files"][store["file"]].splitlines()
    assert lines[store["line"] - 1].strip().startswith("tl.store(y_ptr")
    last, _ = launch["programs"][1]["turns"]
    # x has a sixth element, which this lane's mask leaves out
    assert (last["mask"], last["at"]) == ("1000", [4, -1, -1, -1])


def test_the_page_needs_no_network_and_no_title_ends_its_script(tmp_path):
    trace_shift(tmp_path / "page.html")
    around = TEMPLATE.read_text(encoding="utf-8")
    assert not [word for word in ("http", " src=", " href=", "@import", "url(") if word in around]
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("</script>") == 1


def test_what_is_left_out_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "MOST_LANES", 10)
    data = trace_shift(tmp_path / "page.html")
    assert data["left_out"] == 2
    assert len(data["launches"][0]["programs"]) == 1


def test_a_file_with_a_driver_is_traced(tmp_path, capsys):
    code = (
        "import torch, triton\nimport triton.language as tl\n"
        "@triton.jit\ndef one_kernel(x_ptr):\n    tl.store(x_ptr, 1.0)\n"
        "def drive_one_kernel():\n    x = torch.empty(1)\n    one_kernel[(1,)](x)\n    return x\n"
        "def drive_nothing():\n    return torch.empty(1)\n"
    )
    (tmp_path / "one.py").write_text(code)
    file = str(tmp_path / "one.py")
    assert trace_file(f"{file}::one_kernel", driver=None, out=str(tmp_path)) == 0
    assert "1 launch of one_kernel, 1 tiles" in " ".join(capsys.readouterr().out.split())
    assert data_of(tmp_path / "drive_one_kernel.html")["launches"][0]["kernel"] == "one_kernel"
    with pytest.raises(ValueError, match="expected a launch of a Triton kernel, got none"):
        trace_file(file, driver="drive_nothing", out=str(tmp_path))


def test_a_program_is_traced_as_it_is(tmp_path, capsys):
    code = (
        "import torch, triton\nimport triton.language as tl\n"
        "@triton.autotune([triton.Config({'B': 2}), triton.Config({'B': 4})], key=[])\n"
        "@triton.jit\ndef two_kernel(x_ptr, B: tl.constexpr):\n"
        "    tl.store(x_ptr + tl.arange(0, B), 1.0)\n"
        "two_kernel[(1,)](torch.empty(4, device='cuda'))\n"
    )
    (tmp_path / "two.py").write_text(code)
    assert trace_program(["python", str(tmp_path / "two.py")], out=str(tmp_path)) == 0
    (launch,) = data_of(tmp_path / "program.html")["launches"]
    assert (launch["kernel"], launch["options"]["B"]) == ("two_kernel", "2")
    (store,) = launch["programs"][0]["turns"]
    assert (store["at"], store["values"]) == ([0, 1], [1, 1])
