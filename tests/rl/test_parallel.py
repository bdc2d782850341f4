"""Two processes compute what one does: gloo on the CPU."""

import os
import socket

import pytest
import tiny
import torch

from gptwin.rl.batches import Shuffled
from gptwin.rl.configuration import SFTSettings
from gptwin.rl.language_model import LanguageModelStage
from gptwin.rl.parallel import Group, join, leave


def sft(group, examples):
    model = tiny.gpt()
    # SGD's first step would show the gradient; Adam's shows its sign, so eps is large here.
    settings = SFTSettings(lr=1e-2, batch=7, dropout=0.0, eps=1.0)
    source = Shuffled(examples, 7, seed=0)
    stage = LanguageModelStage(
        "sft", model, source, examples[:5], settings, 3, tiny.template().pad, group
    )
    found = [stage.step(i) for i in range(3)]
    return found, stage.evaluate(), [p.detach() for p in model.parameters()]


def on_rank(rank, port, folder):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    group = join()
    assert (group.rank, group.world) == (rank, 2)
    torch.save(sft(group, tiny.conversations(14)), folder / f"{rank}.pt")
    leave()


@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes would share one GPU")
def test_two_ranks_are_one(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(on_rank, (port, tmp_path), nprocs=2, start_method="fork")
    found, validation, parameters = sft(Group(), tiny.conversations(14))
    for rank in range(2):
        found_2, validation_2, parameters_2 = torch.load(tmp_path / f"{rank}.pt")
        for one, two in zip(found, found_2, strict=True):
            for name in ("loss", "gradient_norm", "lr"):
                assert two[name] == pytest.approx(one[name], rel=1e-4)
        assert validation_2["loss"] == pytest.approx(validation["loss"], rel=1e-5)
        for a, b in zip(parameters, parameters_2, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_alone_is_a_group_of_one():
    group = join()
    assert (group.rank, group.world, group.is_main) == (0, 1, True)
    assert group.total(3.5) == 3.5
    assert group.part([1, 2]) == [1, 2]


def test_parts_are_the_whole():
    parts = [Group(rank, 3).part(list(range(8))) for rank in range(3)]
    assert sorted(i for part in parts for i in part) == list(range(8))
