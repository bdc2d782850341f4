"""Lists of configurations by architecture: what is compiled for, or asked for, chooses."""

import pytest
import triton
from triton.backends.compiler import GPUTarget

from gptwin.kernels.common._triton import architecture, for_architecture
from gptwin.lab.inspect.targets import TargetOnly

LISTS = {"sm_90": [90], "amd": [942]}


@pytest.mark.parametrize(
    ("backend", "arch", "name", "chosen"),
    [
        ("cuda", 90, "sm_90", [90]),
        ("cuda", 80, "sm_80", [0]),
        ("hip", "gfx942", "amd", [942]),
        ("cpu", "host", "", [0]),
    ],
)
def test_a_target_chooses(monkeypatch, backend, arch, name, chosen):
    monkeypatch.setenv("GPTWIN_ARCH", "sm_90")  # is for where nothing is compiled
    monkeypatch.setattr(triton.runtime.driver, "_active", TargetOnly(GPUTarget(backend, arch, 32)))
    assert architecture() == name and for_architecture([0], **LISTS) == chosen


@pytest.mark.parametrize(("asked", "chosen"), [("sm_90", [90]), ("amd", [942]), ("sm_80", [0])])
def test_the_interpreter_takes_what_is_asked_for(monkeypatch, asked, chosen):
    monkeypatch.setattr(triton.runtime.driver, "_active", None)
    monkeypatch.setenv("GPTWIN_ARCH", asked)
    assert architecture() == asked and for_architecture([0], **LISTS) == chosen
