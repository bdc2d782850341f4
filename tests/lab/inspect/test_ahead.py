"""A folder of kernels that were compiled elsewhere: small, found where it lies now, or refused."""

import json
import os

import pytest

from gptwin.lab.inspect import ahead

HERE = {"triton_key": "3.6.0-abc", "ptxas": "12.8", "python": "3.12"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(ahead, "triton_made_with", lambda: HERE)
    monkeypatch.setenv(ahead.CACHE_VARIABLE, "elsewhere")
    kernel, launcher = tmp_path / "kernels" / "KEY", tmp_path / "kernels" / "LAUNCHER"
    kernel.mkdir(parents=True)
    launcher.mkdir()
    (launcher / "launcher.so").write_text("")
    for name in ("a.json", "a.cubin", "a.ttir", "a.ptx"):
        (kernel / name).write_text(name)
    paths = {name: f"/where/it/was/{name}" for name in ("a.json", "a.cubin", "a.ttir", "a.ptx")}
    (kernel / "__grp__a.json").write_text(json.dumps({"child_paths": paths}))
    assert ahead.slim(kernel.parent) == 1
    (kernel.parent / ahead.MADE).write_text(json.dumps({"kernels": 1, **HERE}))
    return kernel.parent


def test_what_a_gpu_needs_is_kept_and_found_where_it_lies(folder):
    assert not (folder / "LAUNCHER").exists()
    assert sorted(p.name for p in (folder / "KEY").iterdir()) == [
        "__grp__a.json", "a.cubin", "a.json",
    ]  # fmt: skip
    assert ahead.settle(folder) == 1
    assert os.environ[ahead.CACHE_VARIABLE] == str(folder)
    listed = json.loads((folder / "KEY" / "__grp__a.json").read_text())["child_paths"]
    assert listed == {name: str(folder / "KEY" / name) for name in ("a.json", "a.cubin")}


def test_another_tritons_kernels_are_refused(folder, monkeypatch):
    monkeypatch.setattr(ahead, "triton_made_with", lambda: HERE | {"python": "3.13"})
    with pytest.raises(
        ValueError, match=r"kernels: .*of python 3\.12, and this machine's is 3\.13"
    ):
        ahead.settle(folder)
    assert ahead.misfit(folder) and not ahead.misfit(folder.parent)
    with pytest.raises(ValueError, match="a folder that gptwin bench ahead made"):
        ahead.settle(folder.parent)
