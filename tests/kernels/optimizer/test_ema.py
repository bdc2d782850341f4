"""What the moving average's kernel promises beyond agreeing with the reference."""

import numpy as np
import pytest
import torch

from gptwin.core.optimizer import ema as core
from gptwin.kernels.common import launch
from gptwin.kernels.optimizer import ema as module
from gptwin.kernels.optimizer.ema import BLOCK, ema, ema_

both_backends = pytest.mark.parametrize("backend", ["triton", "eager"])
SHAPES = [(3, 5), (0,), (1,), (BLOCK,), (BLOCK + 1,), (), (2, 0, 3), (BLOCK - 1,), (2, BLOCK + 7)]


def draw(shapes, seed, device, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]


def expected(averages, parameters, decay):
    """The reference in float64, on the same values."""
    return core.ema(
        *([t.cpu().double().numpy() for t in tensors] for tensors in (averages, parameters)), decay
    )


def assert_close(actual, truth):
    """To two roundings of float32, whatever the parameters' dtype."""
    for new, exact in zip(actual, truth, strict=True):
        assert new.dtype == torch.float32
        np.testing.assert_allclose(new.cpu().double().numpy(), exact, rtol=2**-23, atol=3e-7)


@both_backends
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("decay", [0.992, 0.5, 0.3])
def test_many_tensors_of_all_sizes(backend, dtype, decay, device):
    averages, parameters = draw(SHAPES, 0, device), draw(SHAPES, 1, device, dtype)
    with launch.backend(backend):
        actual = ema(averages, parameters, decay)
    assert [new.shape for new in actual] == [average.shape for average in averages]
    assert_close(actual, expected(averages, parameters, decay))


@pytest.mark.parametrize("n_tensors", [1, 2, 3, 8, 9, 37])
def test_every_block_finds_its_tensor(n_tensors, device):
    """One launch, each tensor with a number of its own; also more blocks than tensors."""
    sizes = [1 + (i * 2711) % (2 * BLOCK) for i in range(n_tensors)]
    averages = [torch.full((n,), float(i), device=device) for i, n in enumerate(sizes)]
    parameters = [average + 64 for average in averages]
    with launch.recording() as log:
        actual = ema(averages, parameters, 0.75)
    assert len(log) == 1
    for i, new in enumerate(actual):
        assert torch.equal(new, torch.full_like(new, i + 16))


def test_in_place_equals_new_tensors_bit_for_bit(device):
    averages, parameters = draw(SHAPES, 2, device), draw(SHAPES, 3, device)
    before = [average.clone() for average in averages]
    pure = ema(averages, parameters, 0.992)
    assert all(map(torch.equal, averages, before))
    assert ema_(averages, parameters, 0.992) is None
    assert all(map(torch.equal, averages, pure))


@both_backends
@pytest.mark.parametrize("transpose", [False, True])
def test_in_place_writes_the_elements_of_a_view_alone(backend, transpose, device):
    memory = torch.full((10, 14), torch.nan, device=device)
    view = memory[1:8, 2:11]
    view.copy_(draw([(7, 9)], 4, device)[0])
    average = view.T if transpose else view
    parameter = draw([tuple(average.shape)], 5, device)[0]
    truth = expected([average], [parameter], 0.9)
    with launch.backend(backend):
        ema_([average], [parameter], 0.9)
    assert_close([average], truth)
    assert memory.isnan().sum() == memory.numel() - view.numel()


@pytest.mark.parametrize("n", [1, BLOCK - 1, BLOCK, BLOCK + 1])
def test_nothing_is_written_past_the_end(n, device):
    memory = torch.ones(2 * BLOCK + 2, device=device)
    parameter = torch.zeros(2 * BLOCK + 2, device=device)[:n]
    ema_([memory[:n]], [parameter], 0.75)
    assert (memory[:n] == 0.75).all() and (memory[n:] == 1).all()


@pytest.mark.parametrize("offset", [0, 1, 2, 3])
@pytest.mark.parametrize("which", ["average", "parameter"])
def test_addresses_need_no_alignment(which, offset, device, monkeypatch):
    """The interpreter loads from any address: what the compiler is told is checked as well."""
    n = BLOCK + 5
    average, parameter = draw([(n + 4,), (n + 4,)], 6, device)
    average = average[offset if which == "average" else 0 :][:n]
    parameter = parameter[offset if which == "parameter" else 0 :][:n]
    truth = expected([average], [parameter], 0.992)
    told = []

    def spy(kernel, grid, table, *args, **constants):
        told.append(table.ALIGNED.value)
        launch.launch(kernel, grid, table, *args, **constants)

    monkeypatch.setattr(module, "launch", spy)
    ema_([average], [parameter], 0.992)
    assert_close([average], truth)
    aligned = all(t.data_ptr() % 16 == 0 for t in (average, parameter))
    assert told == [aligned] == [offset == 0]


def test_each_dtype_of_the_parameters_takes_one_launch(device):
    shapes = [(5,), (6,), (7,), (8,)]
    dtypes = [torch.float32, torch.bfloat16, torch.float32, torch.float16]
    averages = draw(shapes, 7, device)
    parameters = [p.to(dtype) for p, dtype in zip(draw(shapes, 8, device), dtypes, strict=True)]
    with launch.recording() as log:
        actual = ema(averages, parameters, 0.992)
    assert len(log) == 3
    assert_close(actual, expected(averages, parameters, 0.992))


@both_backends
def test_decay_1_keeps_decay_0_copies_and_equals_stay(backend, device):
    """Bit for bit; the last is why the kernel adds a part of the difference."""
    averages, parameters = draw([(1000,)], 9, device), draw([(1000,)], 10, device)
    averages[0] *= 1e6
    with launch.backend(backend):
        assert torch.equal(ema(averages, parameters, 1.0)[0], averages[0])
        assert torch.equal(ema(averages, parameters, 0.0)[0], parameters[0])
        for decay in (0.992, 0.9, 0.3):
            assert torch.equal(ema(averages, averages, decay)[0], averages[0])


@both_backends
def test_nothing_gets_a_gradient_and_autograd_sees_the_write(backend, device):
    averages, parameters = draw([(4,)], 11, device), draw([(4,)], 12, device)
    for tensor in (*averages, *parameters):
        tensor.requires_grad_()
    with launch.backend(backend):
        assert not ema(averages, parameters, 0.9)[0].requires_grad
        loss = (averages[0] ** 2).sum()
        ema_(averages, parameters, 0.9)
    assert averages[0].is_leaf and averages[0].requires_grad
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@both_backends
def test_no_tensors_and_empty_tensors_launch_nothing(backend, device):
    empty = draw([(0,), (3, 0)], 0, device)
    with launch.backend(backend), launch.recording() as log:
        assert ema([], [], 0.9) == []
        ema_([], [], 0.9)
        assert [new.shape for new in ema(empty, empty, 0.9)] == [(0,), (3, 0)]
    assert not log


def test_bad_arguments_are_named(device):
    averages, parameters = draw([(4,), (4,)], 13, device), draw([(4,), (4,)], 14, device)
    with pytest.raises(ValueError, match=r"averages\[1\]: expected dtype float32, got dtype torch"):
        ema([averages[0], averages[1].half()], parameters, 0.9)
    with pytest.raises(ValueError, match=r"averages\[1\]: expected memory of its own, got that of"):
        ema_([averages[0], averages[0]], parameters, 0.9)
    with pytest.raises(ValueError, match=r"parameters\[1\]: expected dtype float32, float16 or bf"):
        ema(averages, [parameters[0], parameters[1].double()], 0.9)
    with pytest.raises(ValueError, match="decay: expected a number from 0 to 1"):
        ema_(averages, parameters, -0.1)
