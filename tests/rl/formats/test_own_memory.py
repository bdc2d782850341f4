"""Views that overlap are written as tensors of their own."""

import torch
from safetensors.torch import load_file

from gptwin.rl.formats.tensors import own_memory, save_tensors


def test_overlapping_views_are_written(tmp_path):
    whole = torch.arange(10.0)
    views = {"head": whole[:6], "tail": whole[3:], "again": whole[:6], "own": torch.ones(2)}
    save_tensors(own_memory(views), tmp_path / "model.safetensors")
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == views.keys()
    assert all(torch.equal(found[name], view) for name, view in views.items())
