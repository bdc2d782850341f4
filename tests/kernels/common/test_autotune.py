"""An autotuner runs a kernel many times before its result is used: no run may change the next."""

import pytest
import torch

from gptwin.kernels.common import launch
from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.verify.check import prepare, run

if not launch.INTERPRETED:
    pytest.skip("a GPU's autotuner does it by itself", allow_module_level=True)


def tuned_functions():
    """Return every function below an autotuner."""
    kernels = [kernel for twin in TWINS.values() for kernel in twin.kernels().values()]
    return {id(kernel.fn) for kernel in kernels if getattr(kernel, "configs", None)}


@pytest.fixture
def trials(monkeypatch):
    """Launch every tuned kernel twice; return the names of those that were."""
    tuned, launched = tuned_functions(), []
    kind = type(TWINS["gelu"].kernels()["gelu_forward_kernel"].fn)
    once = kind.__getitem__

    def twice(self, grid):
        first = once(self, grid)
        if id(self) not in tuned:
            return first

        def trial(*args, **constants):
            launched.append(launch.kernel_name(self))
            first(*args, **constants)
            return once(self, grid)(*args, **constants)

        return trial

    def begin():
        monkeypatch.setattr(kind, "__getitem__", twice)
        return launched

    return begin


@pytest.mark.parametrize("name", TWINS)
def test_a_second_trial_changes_no_result(name, trials):
    twin = TWINS[name]
    case = min(twin.corners, key=lambda case: twin.cost(case, 4)[0].bytes)
    prepared = prepare(twin, case, twin.dtypes[0], "cpu", None)
    expected = run(twin, twin.kernel, prepared)
    launched = trials()
    actual = run(twin, twin.kernel, prepared)
    tuned = any(getattr(kernel, "configs", None) for kernel in twin.kernels().values())
    assert bool(launched) is tuned
    for result, value in expected.items():
        same = (value == actual[result]) | (value.isnan() & actual[result].isnan())
        assert torch.all(same), f"{result}: a kernel adds to, or reads, what it writes"
