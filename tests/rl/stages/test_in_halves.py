"""A PPO iteration in halves: the same step as in one piece, and the same bits each time."""

import pytest
import tiny
import torch
from ppo_stage import stage

from gptwin.kernels.common import launch
from gptwin.kernels.cpu.halves import Halves


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "options", [{"minibatches": 1}, {"minibatches": 2}, {"shared_trunk": True}]
)
def test_an_iteration_in_halves_is_the_iteration(options, two_threads):
    halves, again, whole = (stage(**options) for _ in range(3))
    whole.crew.halves = Halves(in_halves=False)
    assert halves.crew.halves.in_halves
    for index in range(2):
        found = [s.step(index) for s in (halves, again, whole)]
        assert found[0] == found[1]
        assert found[0] == pytest.approx(found[2], rel=1e-3, abs=1e-5)
    trained = (s.policy.parameters() for s in (halves, again, whole))
    for mine, same, close in zip(*trained, strict=True):
        assert torch.equal(mine, same)
        torch.testing.assert_close(mine, close, rtol=1e-4, atol=1e-6)


def test_what_must_be_done_in_order_is_not_done_in_halves():
    assert Halves.of(True, tiny.gpt()).in_halves
    assert not Halves.of(False, tiny.gpt()).in_halves
    assert not Halves.of(True, tiny.gpt(), tiny.gpt(dropout=0.1)).in_halves
    with launch.backend("triton"):
        assert not Halves.of(True, tiny.gpt()).in_halves
