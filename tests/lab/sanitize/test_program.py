"""A program is watched as it is: "cuda" means the CPU, and every launch is seen."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.runtime.errors import InterpreterError

from gptwin.kernels.common import launch
from gptwin.lab.pretend.gpu import pretend_gpu
from gptwin.lab.sanitize import console
from gptwin.lab.sanitize.program import run_command, watching

pytestmark = pytest.mark.skipif(
    not launch.INTERPRETED, reason="the sanitizer watches Triton's interpreter"
)


# --- cuda means the CPU ---------------------------------------------------------------------------


def places(*tensors: torch.Tensor) -> list[str]:
    return [str(tensor.device) for tensor in tensors]


def test_what_is_put_on_the_gpu_says_so_and_so_does_what_comes_of_it() -> None:
    with pretend_gpu():
        x = torch.randn(4, device="cuda")
        assert x.is_cuda and not x.is_cpu and x.get_device() == 0
        assert places(x, x + 1, x[1:], x.float(), x.new_zeros(2), torch.empty_like(x)) == (
            ["cuda:0"] * 6
        )
        assert places(torch.zeros(2), x.cpu(), x.to("cpu"), torch.empty_like(x, device="cpu")) == (
            ["cpu"] * 4
        )
        assert places(torch.zeros(2).cuda(), torch.zeros(2).to(x.device), torch.ones(1).to(x)) == (
            ["cuda:0"] * 3
        )
        assert places(torch.tensor([1.0], device=0), torch.nn.Linear(2, 2).cuda().weight) == (
            ["cuda:0"] * 2
        )
        linear = torch.nn.Linear(2, 2)
        assert places(linear.to("cuda").weight, linear.bias) == ["cuda:0"] * 2
        assert places(linear.to(device="cpu").weight) == ["cpu"]
        with torch.device("cuda"):
            assert places(torch.ones(2)) == ["cuda:0"]
        torch.set_default_device("cuda")
        assert places(torch.ones(2)) == ["cuda:0"]
    assert places(torch.ones(2)) == ["cpu"] and not torch.cuda.is_available()


def test_a_copy_on_the_gpu_is_a_copy() -> None:
    with pretend_gpu():
        x = torch.zeros(3)
        y = x.cuda()
        y += 1
        back = y.cpu()
        y += 1
        assert x.tolist() == [0, 0, 0] and back.tolist() == [1, 1, 1]
        assert y.cuda() is y and x.cpu() is x


class Double(torch.autograd.Function):
    """Asks in its backward pass where it is."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        assert x.is_cuda
        return 2 * x

    @staticmethod
    def backward(ctx: Any, d_y: torch.Tensor) -> torch.Tensor:
        assert d_y.is_cuda
        return d_y * torch.full(d_y.shape, 2.0, device=d_y.device)


def test_gradients_are_on_the_gpu() -> None:
    with pretend_gpu():
        x = torch.ones(3, device="cuda", requires_grad=True)
        Double.apply(x).sum().backward()
        assert x.grad is not None and x.grad.is_cuda and x.grad.tolist() == [2, 2, 2]


def test_what_a_program_asks_of_a_gpu(tmp_path: Path) -> None:
    with pretend_gpu():
        assert torch.cuda.is_available() and torch.cuda.current_device() == 0
        assert torch.cuda.get_device_capability() == (9, 0)
        assert torch.cuda.get_device_properties("cuda").multi_processor_count > 0
        accelerator = torch.accelerator.current_accelerator()
        assert accelerator is not None and accelerator.type == "cuda"
        assert torch.accelerator.is_available() and torch.accelerator.device_count() == 1
        torch.accelerator.synchronize()
        assert torch._C._cuda_getCurrentRawStream(0) == 0  # as Inductor's programs do
        strided = torch._C._dynamo.guards._empty_strided_cuda((2, 3), (1, 2), torch.float16)
        with torch.cuda._DeviceGuard(0):
            assert strided.is_cuda and strided.stride() == (1, 2)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.stream(torch.cuda.Stream()), torch.cuda.device(0):
            start.record()
            torch.cuda.synchronize()
            end.record()
        assert start.elapsed_time(end) > 0
        assert str(triton.runtime.driver.active.get_active_torch_device()) == "cuda:0"
        assert triton.runtime.driver.active.get_current_target().arch == 90
        calls: list[int] = []
        assert triton.testing.do_bench(lambda: calls.append(1)) > 0 and calls == [1]
        seeded = [
            torch.randn(2, device="cuda", generator=torch.Generator("cuda").manual_seed(1))
            for _ in range(2)
        ]
        assert torch.equal(*seeded)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            x = torch.ones(2, 2, device="cuda")
            assert (x @ x).dtype == torch.bfloat16
        with torch.autocast("cuda"):
            assert (x @ x).dtype == torch.get_autocast_dtype("cuda") == torch.float16
        torch.cuda.nvtx.range_push("a range")
        torch.save(x, tmp_path / "x.pt")
        assert torch.load(tmp_path / "x.pt", map_location="cuda").is_cuda
        x.record_stream(torch.cuda.current_stream())
        with pytest.raises(RuntimeError, match="expected launches that can be watched"):
            torch.cuda.CUDAGraph()


# --- launches are seen ----------------------------------------------------------------------------


@triton.autotune(
    [triton.Config({"BLOCK": block}, num_warps=w) for block in (16, 32, 64, 128) for w in (1, 2)],
    key=["n"],
    reset_to_zero=["y_ptr"],
    prune_configs_by={"early_config_prune": lambda configs, named, **_: configs[2:]},
)
@triton.heuristics({"WRONG": lambda named: named["BLOCK"] == 64})
@triton.jit
def add_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr, WRONG: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n + WRONG
    y = tl.load(y_ptr + at, mask=inside, other=0.0)
    tl.store(y_ptr + at, y + tl.load(x_ptr + at, mask=inside, other=0.0), mask=inside)


def added(x: torch.Tensor) -> torch.Tensor:
    y = torch.empty_like(x)
    add_kernel[lambda meta: (triton.cdiv(x.numel(), meta["BLOCK"]),)](x, y, x.numel())
    return y


def test_an_autotuned_kernel_runs_as_triton_tunes_it() -> None:
    x = torch.randn(50)
    with watching(configs=2) as seen:
        assert torch.equal(added(x), x), "y was zeroed before each configuration"
        assert add_kernel.best_config.kwargs == {"BLOCK": 32}, "the first that is not pruned"
    assert not seen.violations and seen.kernels == {"add_kernel"}
    assert seen.n_launches == 2 and seen.configurations == {"add_kernel": (2, 3)}


def test_a_fault_of_one_configuration_is_told_with_it() -> None:
    with watching() as seen:
        added(torch.randn(50))
    assert [(v.kind, v.access, v.index) for v in seen.violations] == [
        ("out of bounds", "load", (50,)),
        ("out of bounds", "load", (50,)),
        ("out of bounds", "store", (50,)),
    ]
    assert all("test_program.py::test_a_fault" in v.case for v in seen.violations)
    assert all("BLOCK: 64" in v.case for v in seen.violations)


@triton.autotune([triton.Config({"BLOCK": block}) for block in (16, 32)], key=[])
@triton.jit
def increment_kernel(x_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x_ptr + at, tl.load(x_ptr + at, mask=at < n, other=0.0) + 1, mask=at < n)


def test_a_trial_leaves_no_traces() -> None:
    x = torch.zeros(50)
    with watching() as seen:
        increment_kernel[lambda meta: (triton.cdiv(50, meta["BLOCK"]),)](x, 50)
    assert x.tolist() == [1] * 50 and seen.n_launches == 2 and not seen.violations


@triton.jit
def half_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n, other=0.0), mask=at < n // 2)


def half(x: torch.Tensor) -> torch.Tensor:
    y = torch.empty_like(x)
    handle = half_kernel[(1,)](x, y, x.numel(), BLOCK=64)
    assert handle.n_spills == 0 and handle.n_regs > 0 and handle.metadata.num_warps == 4
    return y


half_operation = torch.library.custom_op("gptwin_tests::half", mutates_args=())(half)
half.__annotations__ = {}


@pytest.mark.parametrize("operation", [half, half_operation])
def test_unwritten_results_are_found_when_they_are_used(operation: Any) -> None:
    with watching() as seen:
        y = operation(torch.randn(50, device="cuda"))
        y.shape, y.view(5, 10), y.clone()  # nothing is computed with it
    assert not seen.violations
    with watching() as seen:
        y = operation(torch.randn(50, device="cuda"))
        y[:25].sum()
        torch.where(torch.arange(50) < 25, y, 0).sum()
    assert not seen.violations, "what is used is written"
    with watching() as seen:
        torch.add(torch.ones(50), operation(torch.randn(50))[:25].sum(), out=torch.empty(50)).sum()
    assert not seen.violations, "what an operation is told to write is not read"
    with watching() as seen:
        operation(torch.randn(50, device="cuda")).double().cpu().sum()
    assert [(v.kind, v.kernel, v.count) for v in seen.violations] == [
        ("unwritten result", "half_kernel", 25)
    ]


def test_what_numpy_is_lent_may_be_written_and_must_be_whole() -> None:
    with watching() as seen:
        x = torch.empty(50)
        x.numpy()[:] = np.arange(50)
        half(x)[:25].sum()
    assert not seen.violations
    with watching() as seen:
        half(torch.randn(50)).numpy()
    assert [violation.kind for violation in seen.violations] == ["unwritten result"]


@torch.library.custom_op("gptwin_tests::swapped", mutates_args=())
def swapped(x: torch.Tensor) -> torch.Tensor:
    y = torch.zeros_like(x)
    half_kernel[(1,)](y, x, x.numel(), BLOCK=64)
    return y


def test_a_custom_operation_writes_only_what_it_declares() -> None:
    with watching() as seen:
        swapped(torch.randn(50))
    assert [(v.kind, v.tensor) for v in seen.violations] == [("write to an input", "y_ptr")]
    with watching(updates=["y_ptr"]) as seen:
        swapped(torch.randn(50))
    assert not seen.violations and seen.n_launches == 1


def test_an_inner_context_tells_its_own_findings_and_the_outer_one_all() -> None:
    with watching(configs=2) as outer:
        half(torch.randn(50)).sum()
        with watching() as inner:
            added(torch.randn(50))
        with watching() as again:
            half(torch.randn(50)).sum()
        with watching() as other:
            swapped(torch.randn(50))
    assert not inner.violations and inner.kernels == {"add_kernel"}
    assert len(again.violations) == len(other.violations) == 1
    assert len(outer.violations) == 2, "what was found twice is told once"
    assert outer.n_launches == 3 + inner.n_launches


@triton.jit
def failing_kernel(x_ptr):
    tl.device_assert(tl.load(x_ptr) > 0, "x is not positive")


def test_what_a_kernel_raises_reaches_the_program_and_is_a_finding() -> None:
    with watching() as seen, pytest.raises(InterpreterError, match="x is not positive"):
        failing_kernel[(1,)](torch.zeros(1, device="cuda"))
    assert [violation.kind for violation in seen.violations] == ["failure"]


COMPILED = """
import os
os.environ.pop("TRITON_INTERPRET", None)
import torch, triton, triton.language as tl

@triton.jit
def twice(x):
    return 2 * x

@triton.jit
def twice_kernel(x_ptr, y_ptr):
    tl.store(y_ptr, twice(tl.load(x_ptr)))

from gptwin.lab.sanitize.program import watching

with watching() as seen:
    x, y = torch.ones(1, device="cuda"), torch.empty(1, device="cuda")
    twice_kernel[(1,)](x, y)
    assert y.item() == 2, y
assert seen.n_accesses == 2 and not seen.violations, seen
"""


def test_kernels_are_seen_that_were_decorated_before(tmp_path: Path) -> None:
    file = tmp_path / "compiled.py"  # Triton reads a kernel's source
    file.write_text(COMPILED)
    environment = {name: v for name, v in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, str(file)], check=True, env=environment)


# --- the command line -----------------------------------------------------------------------------

SCRIPT = """
import sys
import torch, triton, triton.language as tl
from helper import N

@triton.jit
def copy_kernel(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at))

if __name__ == "__main__":
    if "launch" in sys.argv:
        x = torch.randn(N, device="cuda")
        copy_kernel[(1,)](x, torch.empty_like(x), BLOCK=16)
    sys.exit(3 if "fail" in sys.argv else 0)
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "script.py").write_text("\n" * 88 + SCRIPT)
    (tmp_path / "helper.py").write_text("N = 10\n")
    monkeypatch.chdir(tmp_path)
    return "script.py"


def run(*words: str) -> int:
    return console.run(list(words), dtypes=[], allow=[])


def test_a_script_is_run_as_it_is(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # what is no test is told by its line
    arguments, path = sys.argv, sys.path[:]
    assert run("python", "-u", script, "launch") == 1
    printed = capsys.readouterr().out
    assert f"{script}:97: out of bounds: touches memory" in printed, "no emoji for :100:"
    assert "x_ptr[10]; its elements are 0..9" in printed and f"in <module>, {script}:102" in printed
    assert sys.argv is arguments and sys.path == path


def test_no_launch_is_not_ok(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("python", script) == 1
    printed = capsys.readouterr().out
    assert "no Triton kernel was launched in this process" in printed and "ok" not in printed
    assert run("python", script, "fail") == 3
    assert run("python", "-c", "import sys; sys.exit('why')") == 1
    assert "why" in capsys.readouterr().err


def test_a_module_is_run_as_it_is(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path.cwd()))
    outcome = run_command(["python3.11", "-m", "script", "launch", "fail"])
    assert outcome.exit_code == 3 and outcome.seen.n_launches == 1


@pytest.mark.parametrize("words", [["python"], ["python", "nowhere.py"], ["python", "-m"]])
def test_a_command_that_is_none_is_refused(words: list[str]) -> None:
    with pytest.raises(ValueError, match="command: expected"):
        run(*words)
