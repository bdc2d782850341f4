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


def test_where_every_architecture_is_asked_for_no_tile_is_left_out(monkeypatch):
    monkeypatch.setattr(triton.runtime.driver, "_active", None)
    monkeypatch.setenv("GPTWIN_ARCH", "every")
    small, wide, tall = ({"M": m, "N": n} for m, n in ((16, 16), (16, 64), (64, 16)))
    others = [triton.Config(small, num_warps=4)]
    lists = {
        "sm_90": [triton.Config(wide, num_warps=8), triton.Config(small, num_warps=8)],
        "amd": [triton.Config(tall, num_warps=4)],
    }
    chosen = for_architecture(others, **lists)
    assert [one.kwargs for one in chosen] == [small, wide, tall]
    assert chosen[0] is others[0]  # with what `others` says of it beside its tile
    assert for_architecture(3, amd=2) == 3
