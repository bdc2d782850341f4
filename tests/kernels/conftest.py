"""Every test in this folder runs the Triton kernels, on the GPU or through the interpreter."""

import pytest
import torch

from gptwin.kernels.common import launch
from gptwin.kernels.cpu.speed import has_cpp_compiler


@pytest.fixture(autouse=True)
def on_triton():
    with launch.backend("triton"):
        yield


@pytest.fixture(params=["aot_eager", "inductor"])
def compiler(request):
    """A backend of torch.compile, from a fresh start."""
    if request.param == "inductor" and not has_cpp_compiler():
        pytest.skip("no C++ compiler")
    torch.compiler.reset()
    yield request.param
    torch.compiler.reset()
