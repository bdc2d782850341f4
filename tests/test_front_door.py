"""The front door: what `import gptwin` promises, at its price, and both doors alike."""

import ast
import functools
import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import gptwin
from gptwin.lab.twins.catalogue import TWINS

TOP = ("GPT", "check", "generate", "ops", "preset", "reference", "twin")

# Parameters that one door alone has, and why.
BY_DESIGN = {
    ("ops", "linear", "precision"): "in NumPy a product is as exact as its numbers",
    ("ops", "qkv_attention", "force_path"): "which kernels compute it; NumPy has one way",
}


def run_alone(code: str) -> str:
    """Run code in a Python of its own, and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def parameters(operation) -> dict:
    return {
        name: (parameter.kind.name, parameter.default)
        for name, parameter in inspect.signature(operation).parameters.items()
    }


def test_importing_gptwin_imports_nothing_else():
    heavy = run_alone(
        "import sys; before = set(sys.modules); import gptwin\n"
        "print(*sorted(name for name in set(sys.modules) - before\n"
        "              if name.split('.')[0] not in sys.stdlib_module_names))"
    )
    assert heavy == "gptwin"


def test_the_reference_needs_no_pytorch():
    said = run_alone(
        "import sys; sys.modules['torch'] = sys.modules['triton'] = None  # as if not installed\n"
        "import numpy, gptwin\n"
        "config = gptwin.preset('gpt2', n_layer=1, n_head=2, d_model=8, vocab_size=11, n_ctx=6)\n"
        "parameters = gptwin.reference.init_parameters(config, numpy.random.default_rng(0))\n"
        "(tokens,) = gptwin.reference.generate(parameters, config, [[1, 2]], max_new_tokens=3)\n"
        "print(len(tokens), gptwin.reference.softmax(numpy.zeros((1, 2))).tolist())"
    )
    assert said == "3 [[0.5, 0.5]]"


def test_the_top_holds_what_it_promises():
    assert sorted({*gptwin.__all__} - {"__version__"}) == sorted(TOP)
    assert set(TOP) <= set(dir(gptwin))
    for name in TOP:
        assert getattr(gptwin, name).__doc__, name


# Forks of a process that has imported what takes long, and nothing of gptwin.
EACH_FIRST = """
import json, os, sys, traceback
import numpy, torch, triton

def ask(name):
    try:
        import gptwin
        getattr(gptwin, name)
        return 0
    except BaseException:
        traceback.print_exc()
        return 1

failed = []
for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        os._exit(ask(name))
    if os.waitpid(child, 0)[1]:
        failed.append(name)
print(json.dumps(failed))
"""


@functools.cache
def asked_for_first():
    """Return the names that cannot be, and why."""
    words = [sys.executable, "-c", EACH_FIRST, *TOP]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.parametrize("name", TOP)
def test_a_name_can_be_the_first_to_be_asked_for(name):
    """Rooms that import each other would load in one order alone."""
    failed, why = asked_for_first()
    assert name not in failed, why


def test_type_checkers_are_told_of_the_same_names():
    tree = ast.parse(Path(gptwin.__file__).read_text(encoding="utf-8"))
    told = {
        (alias.name, f".{node.module}" if node.module else f".{alias.name}")
        for branch in tree.body
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in branch.body
        for alias in node.names
    }
    assert told == set(gptwin._HOMES.items())


def test_a_name_that_is_not_there_is_answered_with_those_that_are():
    with pytest.raises(AttributeError, match=r"no attribute 'softmax'.*gptwin\.ops"):
        _ = gptwin.softmax
    assert not hasattr(gptwin, "refrence")
    said = subprocess.run(
        [sys.executable, "-c", "import gptwin; gptwin.refrence"],
        capture_output=True, text=True, check=False,
    ).stderr  # fmt: skip
    assert "Did you mean: 'reference'" in said


@pytest.mark.parametrize("door", ["reference", "ops"])
def test_a_door_holds_every_twin_and_lists_what_it_holds(door):
    module = getattr(gptwin, door)
    assert set(TWINS) <= set(module.__all__)
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(module.__all__)


@pytest.mark.parametrize("name", TWINS)
def test_both_doors_take_the_same_arguments(name):
    taken = {
        door: parameters(getattr(getattr(gptwin, door), name)) for door in ("reference", "ops")
    }
    for door, operation, extra in BY_DESIGN:
        if operation == name:
            taken[door].pop(extra)  # a KeyError: it is listed without need
    assert list(taken["reference"].items()) == list(taken["ops"].items())


@pytest.mark.parametrize("name", TWINS)
def test_a_door_has_both_passes_of_an_operation_that_has_them(name):
    """Some twins' passes are made for the instruments alone: an operation of lists, say."""
    twin, reference = TWINS[name], gptwin.reference
    for part, suffix in ((twin.forward, "forward"), (twin.backward, "backward")):
        if part is not None and not part.__name__.startswith("_"):
            assert hasattr(reference, f"{name}_{suffix}")


def test_both_doors_compute_the_same():
    x = np.random.default_rng(0).normal(size=(3, 5))
    expected, saved = gptwin.reference.softmax_forward(x)
    leaf = torch.tensor(x, requires_grad=True)
    with gptwin.ops.backend("eager"):
        y = gptwin.ops.softmax(leaf)
    np.testing.assert_allclose(y.detach().numpy(), expected, atol=1e-12)
    d_y = np.arange(15.0).reshape(3, 5)
    y.backward(torch.tensor(d_y))
    d_x = gptwin.reference.softmax_backward(saved, d_y)
    np.testing.assert_allclose(leaf.grad.numpy(), d_x, atol=1e-12)
