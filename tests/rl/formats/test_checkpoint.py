"""What checkpoints promise: everything comes back, and a kill leaves the last one whole."""

import multiprocessing
import os
import signal
import time

import pytest
import torch

from gptwin.rl.formats import checkpoint


def state(seed=0):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))).sum().backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "beta": 0.2,
        "cursor": (1, [2, None], "x", True),
    }


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def test_everything_comes_back(tmp_path):
    kept = state()
    kept["model"] = dict(kept["model"])
    step, back = checkpoint.load(checkpoint.save(tmp_path, 7, kept, keep_last=1))
    assert step == 7
    assert_same(back, kept)


def test_tied_tensors_and_views_are_kept(tmp_path):
    table = torch.arange(6.0).view(2, 3)
    kept = {"wte": table, "head": table.T, "row": table[1], "none": torch.empty(0, 3)}
    _, back = checkpoint.load(checkpoint.save(tmp_path, 1, kept, keep_last=1))
    assert_same(back, {key: value.contiguous() for key, value in kept.items()})


def test_only_the_last_ones_stay(tmp_path):
    for step in (1, 2, 10, 200):
        checkpoint.save(tmp_path, step, {"step": step}, keep_last=2)
    assert [p.name for p in checkpoint.complete(tmp_path)] == ["step-00000010", "step-00000200"]


def test_what_cannot_be_kept_is_named_and_nothing_written(tmp_path):
    with pytest.raises(TypeError, match=r"state/a/1: a checkpoint cannot keep a set"):
        checkpoint.save(tmp_path / "new", 1, {"a": [0, {1}]}, keep_last=1)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("file", [checkpoint.STATE, checkpoint.TENSORS])
def test_a_damaged_checkpoint_is_refused(tmp_path, file):
    kept = checkpoint.save(tmp_path, 1, state(), keep_last=1)
    data = (kept / file).read_bytes()
    (kept / file).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"^checkpoint: .*step-00000001"):
        checkpoint.load(kept)


@pytest.mark.parametrize("said", ["{}", "[]", '{"state.json": 3}'])
def test_checksums_that_leave_a_file_out_are_damaged(tmp_path, said):
    kept = checkpoint.save(tmp_path, 1, state(), keep_last=1)
    (kept / checkpoint.SUMS).write_text(said)
    assert checkpoint.damage(kept) == checkpoint.SUMS


def write_for_ever(directory):
    for step in range(1, 10**6):
        # every number of a checkpoint is its step: a mixture of two would show
        checkpoint.save(directory, step, {str(i): torch.full((2000,), step) for i in range(20)}, 2)


def test_a_kill_in_the_middle_of_a_write_leaves_the_last_one_whole(tmp_path):
    context = multiprocessing.get_context("fork")
    caught_writing = 0
    for attempt in range(12):
        directory = tmp_path / str(attempt)
        process = context.Process(target=write_for_ever, args=(directory,))
        process.start()
        while len(checkpoint.complete(directory)) < 2:
            time.sleep(0.001)
        time.sleep(0.003 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        caught_writing += bool(list(directory.glob("*.*ing")))
        for kept in checkpoint.complete(directory):
            step, tensors = checkpoint.load(kept)
            assert kept.name == f"step-{step:08d}"
            assert all((tensor == step).all() for tensor in tensors.values())
        following = checkpoint.save(directory, 10**7, {}, keep_last=1)
        assert checkpoint.complete(directory) == [following]
        assert not list(directory.glob("*.*ing"))
    assert caught_writing > 0


def test_random_state_comes_back(tmp_path):
    before = checkpoint.random_state()
    _, kept = checkpoint.load(checkpoint.save(tmp_path, 1, before, keep_last=1))
    first = torch.rand(5)
    checkpoint.set_random_state(kept)
    torch.testing.assert_close(torch.rand(5), first, rtol=0, atol=0)
