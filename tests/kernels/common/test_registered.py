"""torch.compile sees each operation as one operator, forward and backward, on either backend."""

import shutil
from typing import NamedTuple

import pytest
import torch

from gptwin.kernels.attention.attention import attention
from gptwin.kernels.attention.qkv_attention import qkv_attention
from gptwin.kernels.common import launch
from gptwin.kernels.common.registered import registered
from gptwin.kernels.layers.embedding import embedding
from gptwin.kernels.layers.gelu import gelu
from gptwin.kernels.layers.layer_norm import layer_norm
from gptwin.kernels.layers.linear import linear
from gptwin.kernels.layers.softmax import softmax
from gptwin.kernels.model.decoder_block import decoder_block


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


def test_a_second_derivative_is_refused_when_compiled(device):
    torch.compiler.reset()
    compiled = torch.compile(gelu, fullgraph=True, backend="aot_eager")
    x = X.detach().to(device).requires_grad_()
    (d_x,) = torch.autograd.grad(compiled(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        torch.autograd.grad(d_x.square().sum(), x)


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


QKV, HEADS = draw(8, 24, seed=4), {n: draw(2, 2, 5, 8, seed=i) for i, n in enumerate("qkv")}
STREAM = draw(2, 5, 8, seed=5)


@pytest.mark.parametrize(
    "masks",
    [{}, {"window": 3, "key_start": torch.tensor([0, 2])}, {"cu_seqlens": torch.tensor([0, 2, 4])}],
    ids=["causal", "window and padding", "documents"],
)
@pytest.mark.parametrize("name", ["attention", "qkv_attention"])
def test_attention_with_its_masks(name, masks, device):
    masks = {n: m.to(device) if isinstance(m, torch.Tensor) else m for n, m in masks.items()}
    if name == "attention":
        leaves = [t.to(device).requires_grad_() for t in HEADS.values()]

        def operation(*tensors):
            return attention(*tensors, causal=True, **masks)[0]
    else:
        given = (STREAM, QKV, draw(24), VECTOR, VECTOR + 1)
        leaves = [t.to(device).requires_grad_() for t in given]

        def operation(*tensors):
            return qkv_attention(*tensors, n_head=2, **masks)

    torch.compiler.reset()
    expected, actual = (
        operation(*leaves),
        torch.compile(operation, fullgraph=True, backend="aot_eager")(*leaves),
    )
    d_result = draw(*expected.shape, seed=6).to(device)
    for compiled, plain in zip(
        (actual, *torch.autograd.grad(actual, leaves, d_result)),
        (expected, *torch.autograd.grad(expected, leaves, d_result)),
        strict=True,
    ):
        assert torch.equal(compiled, plain)


class Bounds(NamedTuple):
    low: torch.Tensor | None
    high: float
    closed: bool


@registered
def clipped(x: torch.Tensor, bounds: Bounds) -> torch.Tensor:
    assert bounds.closed
    low = x if bounds.low is None else torch.maximum(x, bounds.low)
    return low.clamp(max=bounds.high)


def test_a_named_tuple_reaches_the_host_function_whole():
    torch.compiler.reset()
    compiled = torch.compile(clipped, fullgraph=True, backend="aot_eager")
    for low in (torch.zeros(8), None):
        bounds = Bounds(low, 0.5, closed=True)
        assert torch.equal(compiled(X, bounds), clipped(X, bounds))


@pytest.mark.parametrize("positions", [None, torch.tensor([[0, 1, 1, 3], [2, 2, 0, 1]])])
def test_embedding(positions, device):
    tokens = torch.tensor([[1, 2, 3, 1], [0, 7, 7, 7]], device=device)
    tables = [WEIGHT.to(device).requires_grad_(), RESIDUAL.to(device).requires_grad_()]
    positions = None if positions is None else positions.to(device)

    def operation(*tables):
        return embedding(tokens, *tables, positions=positions)

    torch.compiler.reset()
    compiled = torch.compile(operation, fullgraph=True, backend="aot_eager")
    d_y = draw(2, 4, 8, seed=6).to(device)
    expected, actual = (torch.autograd.grad(f(*tables), tables, d_y) for f in (operation, compiled))
    assert all(map(torch.equal, actual, expected))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_whole_block(norm, device):
    """Only its parts are operators; the compiler sees through what puts them together."""
    shapes = [(8,), (8,), (8, 24), (24,), (8, 8), (8,), (8,), (8,), (8, 32), (32,), (32, 8), (8,)]
    given = (STREAM, *(draw(*shape, seed=i) for i, shape in enumerate(shapes)))
    leaves = [t.detach().to(device).requires_grad_() for t in given]

    def operation(*tensors):
        return decoder_block(*tensors, n_head=2, norm=norm)

    torch.compiler.reset()
    compiled = torch.compile(operation, fullgraph=True, backend="aot_eager")
    d_y = draw(2, 5, 8, seed=40).to(device)
    expected, actual = (torch.autograd.grad(f(*leaves), leaves, d_y) for f in (operation, compiled))
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, atol=1e-5, rtol=1e-5)
