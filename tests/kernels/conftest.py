"""Every test in this folder runs the Triton kernels, on the GPU or through the interpreter."""

import pytest
import torch

from gptwin.kernels import launch


@pytest.fixture(autouse=True)
def on_triton():
    with launch.backend("triton"):
        yield


@pytest.fixture(params=["aot_eager", "inductor"])
def compiler(request):
    """A backend of torch.compile, from a fresh start."""
    if request.param == "inductor" and not _has_cpp_compiler():
        pytest.skip("no C++ compiler")
    torch.compiler.reset()
    yield request.param
    torch.compiler.reset()


def _has_cpp_compiler():
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True
