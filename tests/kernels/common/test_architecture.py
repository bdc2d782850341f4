"""Lists of configurations by architecture: what is compiled for, or asked for, chooses."""

import pytest
import triton
from triton.backends.compiler import GPUTarget

from gptwin.kernels.attention.attention_backward_keys import KEY_VALUE_KERNELS, key_value_kernel
from gptwin.kernels.common._triton import compiles_for_amd, compiles_for_hopper
from gptwin.lab.inspect.targets import TargetOnly


@pytest.mark.parametrize(
    ("backend", "arch", "hopper"),
    [("cuda", 90, True), ("cuda", 80, False), ("cuda", 100, False), ("hip", "gfx942", False)],
)
def test_a_target_chooses(monkeypatch, backend, arch, hopper):
    monkeypatch.setenv("GPTWIN_ARCH", "sm_90")  # is for where nothing is compiled
    monkeypatch.setattr(triton.runtime.driver, "_active", TargetOnly(GPUTarget(backend, arch, 32)))
    assert compiles_for_hopper() is hopper and compiles_for_amd() is (backend == "hip")


@pytest.mark.parametrize(("asked", "hopper"), [("sm_90", True), ("sm_80", False)])
def test_the_interpreter_takes_what_is_asked_for(monkeypatch, asked, hopper):
    monkeypatch.setattr(triton.runtime.driver, "_active", None)
    monkeypatch.setenv("GPTWIN_ARCH", asked)
    assert compiles_for_hopper() is hopper


def test_groups_and_float32_have_the_common_kernel():
    assert key_value_kernel(2, 4) is KEY_VALUE_KERNELS[2]
    assert key_value_kernel(4, 1) is KEY_VALUE_KERNELS[4]
    # As many configurations as the catalogue counts, whatever the architecture.
    assert len(key_value_kernel(2, 1).configs) == len(KEY_VALUE_KERNELS[2].configs)
