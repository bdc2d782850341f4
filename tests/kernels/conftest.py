"""Every test in this folder runs the Triton kernels, on the GPU or through the interpreter."""

import pytest

from gptwin.kernels import launch


@pytest.fixture(autouse=True)
def on_triton():
    with launch.backend("triton"):
        yield
