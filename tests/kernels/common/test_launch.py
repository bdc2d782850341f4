"""The door: which backend runs, what is refused before a launch, what instruments can ask for."""

import subprocess
import sys
import threading

import pytest
import torch

from gptwin.kernels.common import launch, rows
from gptwin.kernels.common._triton import tl, triton
from gptwin.kernels.common.strided import block_at, part_of, strided
from gptwin.kernels.layers.softmax import softmax
from gptwin.lab.twins.catalogue import TWINS

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")


@pytest.fixture(autouse=True)
def on_triton():
    """Undo this folder's default: these tests choose the backend themselves."""
    yield


def python(code, **environment):
    import os

    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@needs_no_gpu
def test_cpu_tensors_run_eager_unless_asked(monkeypatch):
    monkeypatch.delenv("GPTWIN_BACKEND", raising=False)
    with launch.recording() as log:
        softmax(torch.zeros(2, 3))
        assert not log
        monkeypatch.setenv("GPTWIN_BACKEND", "triton")
        softmax(torch.zeros(2, 3))
        assert [entry.kernel for entry in log] == ["softmax_forward_kernel"]
        with launch.backend("eager"):
            softmax(torch.zeros(2, 3))
        assert len(log) == 1


def in_another_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


@needs_no_gpu
def test_what_a_thread_asks_for_no_other_gets():
    """While one compiled, another launched nothing; and of two backends one stayed set for ever."""

    def kernels_launched():
        with launch.recording() as log:
            softmax(torch.zeros(2, 3))
        return len(log)

    with launch.backend("triton"), launch.tracing(), launch.configuration(1):
        assert kernels_launched() == 0
        assert in_another_thread(kernels_launched) == 0  # eager is a CPU's
    with launch.backend("triton"):
        assert kernels_launched() == 1

    def on_triton():
        with launch.backend("triton"):
            return kernels_launched()

    with launch.tracing(), launch.recording() as log:
        assert in_another_thread(on_triton) == 1
    assert not log


def test_contexts_of_two_threads_may_end_in_any_order():
    started, ended = threading.Event(), threading.Event()

    def work():
        with launch.backend("eager"):
            started.set()
            ended.wait(10)

    thread = threading.Thread(target=work)
    with launch.backend("triton"):
        thread.start()
        started.wait(10)
    ended.set()
    thread.join()
    assert launch.door() == launch._Door() and not launch._open


def test_backward_in_a_thread_of_pytorchs_own_is_asked_what_was_asked_for_last():
    """So it runs on a GPU. A thread that Python did not start has a name that Python made up."""
    import _thread

    done, found = threading.Event(), []

    def work():
        found.append(launch.door())
        done.set()

    with launch.backend("triton"), launch.configuration(2), launch.tracing():
        _thread.start_new_thread(work, ())
        assert done.wait(10)
    assert found == [launch._Door(backend="triton", configuration=2)]


@needs_no_gpu
def test_cpu_tensor_is_refused_where_kernels_are_neither_interpreted_nor_compiled():
    code = """
import sys
sys.modules["llvmlite"] = None  # as where it is not installed
import torch
from gptwin.kernels.layers.softmax import softmax
from gptwin.lab.twins.catalogue import TWINS
softmax(torch.zeros(2, 3))
"""
    status, output = python(code, GPTWIN_BACKEND="triton", TRITON_INTERPRET="0")
    assert status == 1
    assert "RuntimeError: softmax: expected x on a GPU, got a tensor on the CPU" in output
    assert "TRITON_INTERPRET=1" in output and "pip install llvmlite" in output


def test_without_triton_eager_runs_and_kernels_are_refused():
    code = """
import sys
sys.modules["triton"] = None  # as on a platform that has no Triton
import torch
from gptwin.kernels.layers import gelu, layer_norm, linear, softmax
print(softmax.softmax(torch.zeros(1, 2)).tolist())
from gptwin.kernels.common import launch
with launch.backend("triton"):
    softmax.softmax(torch.zeros(1, 2))
"""
    status, output = python(code)
    assert status == 1
    assert "[[0.5, 0.5]]" in output
    assert "softmax: expected Triton to be installed" in output
    assert "Linux alone" in output


def test_unknown_backend_is_refused(monkeypatch):
    monkeypatch.setenv("GPTWIN_BACKEND", "cuda")
    with pytest.raises(ValueError, match="GPTWIN_BACKEND: expected 'triton' or 'eager', got"):
        softmax(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="backend: expected 'triton' or 'eager', got 'cpu'"):
        launch.backend("cpu")


def test_float64_is_refused_by_kernels(device):
    x = torch.zeros(2, 3, dtype=torch.float64, device=device)
    with launch.backend("triton"), launch.recording() as log:
        with pytest.raises(ValueError, match="x: expected dtype float32, float16 or bfloat16"):
            softmax(x)
    assert not log


def test_tensors_on_two_devices_are_refused():
    mask = torch.ones(2, 3, dtype=torch.bool, device="meta")
    with pytest.raises(ValueError, match="key_mask: expected device cpu, like x, got device meta"):
        softmax(torch.zeros(2, 3), key_mask=mask)


def test_a_forced_configuration_is_the_one_launched(device):
    with launch.backend("triton"):
        for index in (0, 1, 2, 4):
            with launch.configuration(index), launch.recording() as log:
                softmax(torch.zeros(2, 3, device=device))
            assert log[0].configuration == index % 3


@triton.jit
def sum_of_two_kernel(x, bias, pair, y, N: tl.constexpr):
    """y = x + bias + pair[0] of a matrix for each program."""
    at = tl.arange(0, N)
    total = tl.load(block_at(part_of(x, tl.program_id(0)), at, at))
    if bias is not None:
        total += tl.load(bias.ptr + at * bias.strides[0])[None, :]
    if pair[0] is not None:
        total += tl.load(pair[0])
    tl.store(block_at(part_of(y, tl.program_id(0)), at, at), total)


@pytest.mark.parametrize("absent", ["bias", "pair", ""])
def test_tensors_within_tuples_are_recorded_and_none_is_skipped(absent, device):
    x = torch.arange(32.0, device=device).view(4, 2, 4).permute(1, 2, 0)
    bias = None if absent == "bias" else torch.arange(8.0, device=device)[::2]
    one = None if absent == "pair" else torch.ones((), device=device)
    y = torch.empty(2, 4, 4, device=device)
    with launch.recording() as log:
        launch.launch(sum_of_two_kernel, (2,), strided(x), strided(bias), (one, 2), strided(y), N=4)
    given = {"x.ptr": x, "bias.ptr": bias, "pair[0]": one, "y.ptr": y}
    present = {name: tensor for name, tensor in given.items() if tensor is not None}
    assert log[0].tensors.keys() == present.keys()
    assert all(log[0].tensors[name] is tensor for name, tensor in present.items())
    assert torch.equal(y, x + (0 if bias is None else bias) + (0 if one is None else one))


def test_wishes_end_with_their_context(device):
    with pytest.raises(KeyError):
        with launch.backend("eager"), launch.configuration(1):
            raise KeyError
    assert launch.door() == launch._Door()


@pytest.mark.parametrize(
    ("size", "bucket"), [(0, 1), (1, 1), (2, 2), (3, 4), (1024, 1024), (1025, 2048)]
)
def test_sizes_of_one_bucket_are_tuned_together(size, bucket):
    assert rows.bucketed(size) == (size, bucket)


def test_no_kernel_is_tuned_again_for_every_length():
    """Lengths vary from batch to batch; widths and vocabularies are the model's."""
    lengths = {"n_elements", "n_tokens", "n_rows", "n_query", "n_key", "capacity", "n_time"}
    faults = {
        name: lengths & set(kernel.keys)
        for twin in TWINS.values()
        for name, kernel in twin.kernels().items()
        if lengths & set(getattr(kernel, "keys", ()))
    }
    assert not faults
