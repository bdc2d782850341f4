"""torch.compile sees each operation as one operator, forward and backward, on either backend."""

import shutil

import pytest
import torch

from gptwin.kernels import launch
from gptwin.kernels.gelu import gelu
from gptwin.kernels.layer_norm import layer_norm
from gptwin.kernels.linear import linear
from gptwin.kernels.softmax import softmax


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X, WEIGHT, VECTOR, RESIDUAL = draw(4, 8), draw(8, 8, seed=1), draw(8, seed=2), draw(4, 8, seed=3)

# name: (operation, its differentiable arguments, its options, how many kernels it launches)
OPERATIONS = {
    "softmax": (softmax, {"x": X}, {"causal": True, "scale": 0.5}, 2),
    "gelu": (gelu, {"x": X}, {}, 2),
    "layer_norm": (layer_norm, {"x": X, "weight": VECTOR, "bias": VECTOR + 1}, {}, 3),
    "layer_norm with a residual": (
        layer_norm,
        {"x": X, "weight": VECTOR, "bias": VECTOR + 1, "residual": RESIDUAL},
        {},
        3,
    ),
    "linear": (linear, {"x": X, "weight": WEIGHT, "bias": VECTOR}, {}, 4),
    "linear with its epilogue": (
        linear,
        {"x": X, "weight": WEIGHT, "bias": VECTOR, "residual": RESIDUAL},
        {"activation": "gelu"},
        5,
    ),
    "linear in tf32": (linear, {"x": X, "weight": WEIGHT}, {"precision": "tf32"}, 3),
}
each_operation = pytest.mark.parametrize("name", OPERATIONS)


def both_directions(name, device, compiler=None):
    """Return results and gradients, compiled or not, and the kernels launched on the way."""
    operation, tensors, options, _ = OPERATIONS[name]
    leaves = {n: t.detach().to(device).requires_grad_() for n, t in tensors.items()}
    if compiler:
        torch.compiler.reset()
        operation = torch.compile(operation, fullgraph=True, backend=compiler)
    with launch.recording() as log:
        results = operation(**leaves, **options)
        results = results if isinstance(results, tuple) else (results,)
        d_results = [draw(*r.shape, seed=9 + i).to(device) for i, r in enumerate(results)]
        gradients = torch.autograd.grad(results, tuple(leaves.values()), d_results)
    return (*results, *gradients), [entry.kernel for entry in log]


def assert_the_same(name, device, compiler):
    expected, kernels = both_directions(name, device)
    actual, compiled_kernels = both_directions(name, device, compiler)
    assert len(actual) == len(expected)
    assert all(map(torch.equal, actual, expected))
    assert sorted(compiled_kernels) == sorted(kernels)
    return kernels


@each_operation
def test_one_graph_and_the_same_bits(name, device):
    kernels = assert_the_same(name, device, "aot_eager")
    assert len(kernels) == OPERATIONS[name][-1]


@each_operation
def test_eager_equivalents_compile_as_well(name, device):
    with launch.backend("eager"):
        assert not assert_the_same(name, device, "aot_eager")


@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler on a CPU")
@pytest.mark.parametrize("name", ["layer_norm with a residual", "linear with its epilogue"])
def test_inductor_takes_the_operators(name, device):
    assert_the_same(name, device, "inductor")


def test_a_forced_configuration_reaches_a_compiled_operation(device):
    """The door is looked at when the kernel is launched, not when the graph is made."""
    compiled = torch.compile(gelu, fullgraph=True, backend="aot_eager")
    for index in (0, 1):
        with launch.configuration(index), launch.recording() as log:
            compiled(X.to(device))
        assert [entry.configuration for entry in log] == [index]


def test_another_backend_is_another_graph(device):
    compiled = torch.compile(gelu, fullgraph=True, backend="aot_eager")
    with launch.recording() as log:
        compiled(X.to(device))
        with launch.backend("eager"):
            compiled(X.to(device))
    assert [entry.kernel for entry in log] == ["gelu_forward_kernel"]


def test_one_graph_serves_every_length(device):
    """Dynamic shapes: the second length generalises the graph, the third must fit it."""
    torch.compiler.reset()
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph

    compiled = torch.compile(lambda x, w: linear(x, w), fullgraph=True, backend=count)
    weight = WEIGHT.to(device)
    for rows in (5, 6, 70, 130):
        x = draw(rows, 8).to(device)
        assert torch.equal(compiled(x, weight), linear(x, weight))
    assert len(graphs) == 2
