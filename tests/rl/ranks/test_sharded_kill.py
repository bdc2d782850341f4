"""A kill in the middle of a checkpoint that two ranks write together leaves the last one whole."""

import os
import signal
import time

import pytest
import torch
from ranks import two_ranks
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from gptwin.rl.formats import checkpoint

SHAPE = (1500, 1000)  # 6 MB: a write is long enough to be hit


def state(step):
    """What is kept at a step: a tensor shared out over the ranks, and one that each holds whole."""
    numbers = torch.arange(SHAPE[0] * SHAPE[1], dtype=torch.float32).view(SHAPE) + step
    mesh = init_device_mesh("cpu", (2,))
    return {"sharded": distribute_tensor(numbers, mesh, [Shard(0)]), "whole": torch.tensor(step)}


def write_for_ever(group, folder):
    for step in range(1, 10**6):
        checkpoint.save(folder, step, state(step), 2, group)


def read_and_go_on(group, folder):
    last = checkpoint.complete(folder)[-1]
    step, found = checkpoint.load(last, state(0))
    assert step == int(last.name.removeprefix("step-")) == int(found["whole"])
    assert isinstance(found["sharded"], DTensor)
    assert torch.equal(found["sharded"].to_local(), state(step)["sharded"].to_local())
    group.wait()
    checkpoint.save(folder, step + 1, state(step + 1), 2, group)


@pytest.mark.parametrize("after", [0.0, 0.01])
def test_a_kill_in_the_middle_of_a_sharded_write_leaves_the_last_one_whole(tmp_path, after):
    if torch.cuda.is_available():
        pytest.skip("two processes would share one GPU")
    context = two_ranks(write_for_ever, tmp_path, wait=False)
    deadline = time.monotonic() + 120
    # Two are complete then. A loop that comes late, on a busy machine, sees a later step than 3.
    while not any(tmp_path.glob(f"step-*[!12].writing/{checkpoint.SHARDS}/*")):
        assert time.monotonic() < deadline, "no third checkpoint was begun"
        assert all(process.is_alive() for process in context.processes)
        time.sleep(0.001)
    time.sleep(after)
    for process in context.processes:
        os.kill(process.pid, signal.SIGKILL)
    for process in context.processes:
        process.join()
    complete = checkpoint.complete(tmp_path)
    assert 1 <= len(complete) <= 3  # a third one may be about to be removed
    two_ranks(read_and_go_on, tmp_path)
    assert checkpoint.complete(tmp_path)[-1] > complete[-1]
    assert not list(tmp_path.glob("*ing"))
