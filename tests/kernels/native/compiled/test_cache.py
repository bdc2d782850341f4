"""What is compiled again and what is not: a cached kernel is the one that was asked for."""

import contextlib
import importlib.util
import linecache
import os
import sys

import pytest

if os.environ.get("GPTWIN_TESTS_ON") != "native":
    pytest.skip("kernels are interpreted here", allow_module_level=True)

import torch
import triton
from triton import knobs
from triton.compiler import code_generator

from gptwin.kernels import native
from gptwin.kernels.common.strided import strided
from gptwin.kernels.native import compiler
from gptwin.kernels.native.instructions import ttir

MODULE = """
import triton
import triton.language as tl
FACTOR = tl.constexpr({constant})
@triton.jit
def part(x):
    return {part}
@triton.jit
def kernel(x, y_ptr, stride, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at * stride, part(tl.load(x.ptr + at * x.strides[0])) * FACTOR)
"""


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """Names of the kernels that are compiled, and none of them in a cache at first."""
    names = []

    def listen(src, metadata, metadata_group, times, cache_hit):
        if not cache_hit:
            names.append(src.name)

    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it would be taken for the next file's
    monkeypatch.setattr(knobs.cache, "dir", str(tmp_path / "cache"))
    monkeypatch.setattr(knobs.compilation, "listener", listen)
    return names


def run(tmp_path, part="x + 1", constant=2, stride=1, y_stride=1):
    """Import the module anew, as another process would, and launch its kernel on 0, 1, 2, 3."""
    file = tmp_path / "kernels.py"
    file.write_text(MODULE.format(part=part, constant=constant))
    importlib.invalidate_caches()
    spec = importlib.util.spec_from_file_location("kernels", file)
    module = importlib.util.module_from_spec(spec)
    linecache.checkcache(str(file))
    spec.loader.exec_module(module)
    x = torch.arange(4.0).repeat_interleave(stride)[::stride]
    y = torch.zeros(4 * y_stride)
    module.kernel[(1,)](strided(x), y, y_stride, BLOCK=4)
    return y[::y_stride].tolist()


def test_what_is_known_is_not_compiled_again(compiled, tmp_path):
    assert run(tmp_path) == [2, 4, 6, 8]
    assert run(tmp_path) == [2, 4, 6, 8]
    assert compiled == ["kernel"]


def test_a_function_that_is_called_and_has_changed_is_noticed(compiled, tmp_path):
    assert run(tmp_path) == [2, 4, 6, 8]
    assert run(tmp_path, part="x - 1") == [-2, 0, 2, 4]


def test_a_constant_that_has_changed_is_noticed(compiled, tmp_path):
    assert run(tmp_path) == [2, 4, 6, 8]
    assert run(tmp_path, constant=3) == [3, 6, 9, 12]


@pytest.mark.parametrize(
    ("change", "again"),
    [("Triton", True), ("the backend", False), ("the processor", False), ("the checks", False)],
)
def test_whatever_else_makes_the_code_is_in_its_key(change, again, compiled, tmp_path, monkeypatch):
    run(tmp_path)
    front_end, generated = code_generator.ast_to_ttir, []

    def generate(*arguments, **options):
        generated.append(arguments)
        return front_end(*arguments, **options)

    monkeypatch.setattr(code_generator, "ast_to_ttir", generate)
    if change == "Triton":
        monkeypatch.setattr(triton.runtime.cache, "triton_key", lambda: "another")
    elif change == "the backend":
        monkeypatch.setattr(compiler, "_hash_of_sources", lambda: "other sources")
    elif change == "the processor":
        monkeypatch.setattr(compiler.machine, "describe", lambda: "another processor")
    with native.unchecked() if change == "the checks" else contextlib.nullcontext():
        run(tmp_path)
    assert compiled == ["kernel", "kernel"]
    assert bool(generated) == again  # TTIR is the same for all processors and settings


def test_quick_code_is_compiled_once_for_all_strides(compiled, tmp_path):
    with native.quick_code():
        for strides in ((1, 1), (2, 1), (1, 3), (2, 2)):
            assert run(tmp_path, stride=strides[0], y_stride=strides[1]) == [2, 4, 6, 8]
    assert compiled == ["kernel"]
    assert run(tmp_path, stride=2) == run(tmp_path) == [2, 4, 6, 8]
    assert compiled == ["kernel"] * 3  # what runs for long is compiled for its own strides


def test_what_another_checkout_has_compiled_names_files_of_this_one():
    here = str(ttir.KERNELS / "layers/softmax.py")
    assert ttir.in_this_checkout("/elsewhere/gptwin/kernels/layers/softmax.py") == here
    assert ttir.in_this_checkout(here) == here
    assert ttir.in_this_checkout("/triton/language/standard.py") == "/triton/language/standard.py"
