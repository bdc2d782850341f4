"""Rows keep their bits in every batch, where a twin says so; and it would be noticed if not."""

import dataclasses

import pytest
import torch

from gptwin.core.model.presets import GPTConfig
from gptwin.kernels.attention import decode_attention
from gptwin.kernels.common import launch
from gptwin.kernels.language.token_scores import columns_per_chunk
from gptwin.kernels.layers.softmax import softmax
from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.twins.twin import Rows, Twin
from gptwin.lab.verify import invariance

WITH_ROWS = [name for name, twin in TWINS.items() if isinstance(twin.rows, Rows)]


def test_every_twin_declares_its_rows_or_why_there_are_none():
    not_declared = next(f.default for f in dataclasses.fields(Twin) if f.name == "rows")
    assert all(twin.rows != not_declared for twin in TWINS.values())
    assert len(WITH_ROWS) == 17
    for name in WITH_ROWS:
        axes = TWINS[name].rows.axes
        assert {*axes} & {*TWINS[name].results}
        assert all(axes.get(argument) is not None for argument in TWINS[name].arguments[:1]) or (
            name == "embedding"  # whose arguments are tables
        )


# All twins on all their cases take the interpreter half an hour: `gptwin verify --batch-invariant`.
@pytest.mark.parametrize("name", ["linear", "cross_entropy", "decode_attention", "softmax"])
def test_rows_have_the_same_bits_in_every_batch(name, device, monkeypatch):
    twin = TWINS[name]
    monkeypatch.setattr(invariance, "BESIDE", 2)
    found = invariance.check_rows(name, twin.dtypes[0], device, [twin.studies[-1]])
    assert found.n_compared >= 2
    assert found.faults == []


def test_splits_that_follow_the_batch_are_noticed(device, monkeypatch):
    monkeypatch.setattr(invariance, "BESIDE", 5)
    case = {"batch": 2, "kv_head": 1, "group": 1, "n_query": 1, "capacity": 300, "d_head": 8}
    assert invariance.check_rows("decode_attention", "float32", device, [case]).faults == []
    split = decode_attention.decode_attention_forward

    def by_batch(*args):
        with launch._door_set(batch_invariant=False):
            return split(*args)

    monkeypatch.setattr(decode_attention, "decode_attention_forward", by_batch)
    faults = invariance.check_rows("decode_attention", "float32", device, [case]).faults
    assert faults[0].startswith("output")
    assert "differ by their company (rows behind)" in faults[0]


def test_decoding_gives_the_bits_of_a_pass_over_the_text(device, monkeypatch):
    monkeypatch.setattr(invariance, "MODEL", GPTConfig(19, 6, 1, 1, 16))
    monkeypatch.setattr(invariance, "STEPS", 1)
    assert invariance.check_decoding("float32", device).faults == []
    # The cache without the switch: what a GPU is given otherwise.
    monkeypatch.setattr(
        "gptwin.kernels.model.kv_cache.door", lambda: launch._Door(backend="triton")
    )
    assert invariance.check_decoding("float32", device).faults


def test_a_gradients_chunks_do_not_follow_the_batch():
    few, many = (columns_per_chunk(n, 151_936) for n in (64, 2**16))
    assert few > many
    with launch.batch_invariant():
        assert columns_per_chunk(64, 151_936) == columns_per_chunk(2**16, 151_936)


def test_eager_is_refused():
    with launch.backend("eager"), launch.batch_invariant():
        with pytest.raises(RuntimeError, match=r"softmax: expected kernels under batch_invariant"):
            softmax(torch.zeros(2, 3))


def test_nothing_is_tuned_under_the_switch(monkeypatch):
    """On a GPU the first configuration runs, which the autotuner would have to win."""
    from gptwin.kernels.layers.softmax import softmax_forward_kernel as kernel

    asked = []
    monkeypatch.setattr(launch, "INTERPRETED", False)
    monkeypatch.setattr(launch, "_first_on_cuda", lambda args: True)
    for one in (kernel, kernel.fn):
        monkeypatch.setattr(
            type(one), "__getitem__", lambda self, grid: lambda *a, **k: asked.append(self)
        )
    launch.launch(kernel, (1,), 1)
    with launch.batch_invariant():
        launch.launch(kernel, (1,), 1)
    assert asked == [kernel, kernel.fn]
