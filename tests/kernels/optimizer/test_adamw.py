"""What AdamW promises beyond agreeing with the reference: in place, and as an optimizer."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch

from gptwin.core.optimizer import adamw as core
from gptwin.kernels.common import launch
from gptwin.kernels.common.finite import checking_finite
from gptwin.kernels.optimizer.adamw import AdamW, adamw, adamw_, global_norm
from gptwin.kernels.optimizer.adamw_update import BLOCK, gradient_norm_kernel

both_backends = pytest.mark.parametrize("backend", ["triton", "eager"])
SHAPES = [(3, 5), (0,), (1,), (BLOCK,), (), (2, 0, 3), (BLOCK - 1,), (2, BLOCK + 7)]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def draw(seed, device, shapes=SHAPES, dtype=torch.float32):
    """Parameters, gradients, first and second moments."""
    g = torch.Generator().manual_seed(seed)
    lists = [[torch.randn(shape, generator=g) for shape in shapes] for _ in range(4)]
    lists[3] = [x.square() for x in lists[3]]
    wanted = (dtype, dtype, torch.float32, torch.float32)
    return [[x.to(device, d) for x in xs] for xs, d in zip(lists, wanted, strict=True)]


def expected(lists, **options):
    """The reference in float64, on the same values."""
    return core.adamw(*([x.cpu().double().numpy() for x in xs] for xs in lists), **options)


def assert_close(actual, truth, rtol=1e-6):
    for xs, exacts in zip(actual[:3], truth[:3], strict=True):
        for x, exact in zip(xs, exacts, strict=True):
            slack = max(rtol, torch.finfo(x.dtype).eps / 2)
            np.testing.assert_allclose(
                x.detach().cpu().double().numpy(), exact, rtol=slack, atol=slack
            )
    assert float(actual[3]) == pytest.approx(float(truth[3]), rel=1e-6)


def clones(lists):
    return [[x.clone() for x in xs] for xs in lists]


@both_backends
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("epsilon", core.EPSILONS)
def test_many_tensors_of_all_sizes(backend, dtype, epsilon, device):
    lists = draw(0, device, dtype=dtype)
    options = {"step": 3, "lr": 0.01, "max_norm": 1.0, "epsilon": epsilon}
    options["weight_decay"] = [0.1 * i for i in range(len(SHAPES))]
    with launch.backend(backend):
        actual = adamw(*lists, **options)
    assert_close(actual, expected(lists, **options))
    for xs, like in zip(actual[:3], (lists[0], *lists[2:]), strict=True):
        assert [(x.shape, x.dtype) for x in xs] == [(x.shape, x.dtype) for x in like]


@both_backends
@pytest.mark.parametrize("epsilon", core.EPSILONS)
@pytest.mark.parametrize("same_dtype", [True, False])
def test_in_place_equals_new_tensors(backend, epsilon, same_dtype, device):
    """On Triton bit for bit. On the CPU the gradients are left clipped, on Triton unchanged."""
    lists = draw(1, device)
    if not same_dtype:
        lists[1] = [x.bfloat16() for x in lists[1]]
    options = {"step": 2, "lr": 0.01, "weight_decay": 0.1, "max_norm": 1.0, "epsilon": epsilon}
    before = clones(lists)
    with launch.backend(backend):
        pure = adamw(*lists, **options)
        for xs, olds in zip(lists, before, strict=True):
            assert all(map(torch.equal, xs, olds))
        norm = adamw_(*lists, **options)
    assert torch.equal(norm, pure.gradient_norm)
    scale = core.clip_scale(norm.item(), 1.0) if backend == "eager" and same_dtype else 1.0
    torch.testing.assert_close(lists[1], [g * scale for g in before[1]])
    for xs, news in zip((lists[0], *lists[2:]), pure[:3], strict=True):
        for x, new in zip(xs, news, strict=True):
            assert torch.equal(x, new) or backend == "eager"
    assert_close((lists[0], *lists[2:], norm), expected(before, **options))


@both_backends
@pytest.mark.parametrize("decays", [(0.1, 0.1), (0.1, 0.0)])
def test_the_optimizer_is_pytorchs(backend, decays, device):
    """Ten steps with clipping in float64's company, and groups as nanoGPT makes them."""
    shapes = [(4, 5), (7,), (BLOCK + 3,)]
    ours, theirs = (
        [torch.nn.Parameter(x.to(dtype)) for x in draw(2, device, shapes)[0]]
        for dtype in (torch.float32, torch.float64)
    )

    def groups(of):
        return [
            {"params": of[:1], "weight_decay": decays[0]},
            {"params": of[1:], "weight_decay": decays[1]},
        ]

    settings = {"lr": 0.01, "betas": (0.9, 0.95), "eps": 1e-8}
    optimizer = AdamW(groups(ours), **settings, max_norm=1.0)
    reference = torch.optim.AdamW(groups(theirs), **settings)
    for step in range(10):
        gradients = draw(10 + step, device, shapes)[1]
        for x, y, gradient in zip(ours, theirs, gradients, strict=True):
            x.grad, y.grad = gradient, gradient.double()
        with launch.backend(backend), launch.recording() as log:
            optimizer.step()
        norm = torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        reference.step()
        assert optimizer.gradient_norm.item() == pytest.approx(norm.item(), rel=1e-6)
        kernels = [entry.kernel for entry in log]
        assert kernels.count("adamw_kernel") == (backend == "triton")  # one launch for all
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x.double(), y, atol=1e-6, rtol=1e-6)


@both_backends
def test_groups_of_other_rates_are_clipped_together(backend, device):
    shapes = [(4, 5), (7,)]
    ours, theirs = (
        [torch.nn.Parameter(x.to(dtype)) for x in draw(3, device, shapes)[0]]
        for dtype in (torch.float32, torch.float64)
    )
    made = [
        [{"params": of[:1], "lr": 0.1}, {"params": of[1:], "lr": 0.01}] for of in (ours, theirs)
    ]
    optimizer, reference = AdamW(made[0], max_norm=0.5), torch.optim.AdamW(made[1])
    for x, y, g in zip(ours, theirs, draw(4, device, shapes)[1], strict=True):
        x.grad, y.grad = g, g.double()
    with launch.backend(backend):
        optimizer.step()
    norm = torch.nn.utils.clip_grad_norm_(theirs, 0.5)
    reference.step()
    assert optimizer.gradient_norm.item() == pytest.approx(norm.item(), rel=1e-6)
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x.double(), y, atol=1e-6, rtol=1e-6)


@both_backends
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_saved_state_resumes_bit_for_bit(backend, dtype, device):
    """PyTorch would cast the moments to the parameters' dtype on loading."""

    def train(parameter, optimizer, steps):
        for step in steps:
            parameter.grad = draw(20 + step, device, [(50,)])[1][0].to(dtype)
            optimizer.step()

    def fresh():
        parameter = torch.nn.Parameter(draw(5, device, [(50,)])[0][0].to(dtype))
        return parameter, AdamW([parameter], lr=0.1)

    with launch.backend(backend):
        straight, optimizer = fresh()
        train(straight, optimizer, range(6))
        first, optimizer = fresh()
        train(first, optimizer, range(3))
        second, resumed = fresh()
        second.data.copy_(first.data)
        resumed.load_state_dict(optimizer.state_dict())
        assert resumed.state[second]["exp_avg"].dtype == torch.float32
        train(second, resumed, range(3, 6))
    assert torch.equal(second, straight)


def test_the_state_goes_to_pytorch_and_back(device):
    parameter = torch.nn.Parameter(torch.ones(5, device=device))
    optimizer = AdamW([parameter], lr=0.1)
    parameter.grad = torch.arange(5.0, device=device)
    optimizer.step()
    state = optimizer.state_dict()
    assert set(state["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}
    theirs = torch.optim.AdamW([torch.nn.Parameter(parameter.detach().clone())], lr=0.1)
    theirs.load_state_dict({**theirs.state_dict(), "state": state["state"]})
    again = AdamW([parameter], lr=0.1)
    again.load_state_dict(theirs.state_dict())
    for name in ("step", "exp_avg", "exp_avg_sq"):
        assert torch.equal(again.state[parameter][name], state["state"][0][name])


@both_backends
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_goes_on_like_the_original(copied, backend, device):
    """Deep copies and pickles had forgotten max_norm and epsilon: a bug report."""
    parameter = torch.nn.Parameter(torch.ones(5, device=device))
    optimizer = AdamW([parameter], lr=0.1, max_norm=0.5, epsilon="tensorflow")
    with launch.backend(backend):
        parameter.grad = torch.arange(5.0, device=device)
        optimizer.step()
        twin, again = copied((parameter, optimizer))
        for _ in range(2):
            for moved, mover in ((parameter, optimizer), (twin, again)):
                moved.grad = torch.arange(5.0, device=device)  # a CPU's step clips it in place
                mover.step()
            assert torch.equal(twin, parameter)
            assert torch.equal(again.gradient_norm, optimizer.gradient_norm)


def test_two_optimizers_share_nothing_of_a_state_that_both_load(device):
    parameters = [torch.nn.Parameter(torch.ones(5, device=device)) for _ in range(3)]
    first, second, third = (AdamW([parameter], lr=0.1) for parameter in parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    first.step()
    state = first.state_dict()
    second.load_state_dict(state)
    third.load_state_dict(state)
    second.step()
    steps = [o.state[p]["step"] for o, p in zip((first, second, third), parameters, strict=True)]
    assert steps == [1, 2, 1]


@both_backends
def test_steps_are_counted_in_float32_whatever_the_default(backend, device):
    """bfloat16 holds 256, and 256 + 1 is 256 there."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        with launch.backend(backend):
            parameter = torch.nn.Parameter(torch.ones(5, device=device))
            optimizer = AdamW([parameter], lr=0.1)
            parameter.grad = torch.ones_like(parameter)
            optimizer.step()
            state = optimizer.state_dict()
            state["state"][0]["step"] = torch.tensor(256.0)  # as an older version stored it
            optimizer.load_state_dict(state)
            for _ in range(2):
                optimizer.step()
        step = optimizer.state[parameter]["step"]
        assert step.dtype == torch.float32 and step == 258
        assert optimizer.gradient_norm.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_parameters_without_a_gradient_stay_and_closures_run(device):
    moved, still = (torch.nn.Parameter(torch.ones(3, device=device)) for _ in range(2))
    optimizer = AdamW([moved, still], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (moved**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3
    assert (moved != 1).all() and (still == 1).all() and still not in optimizer.state
    assert AdamW([still]).step() is None


@both_backends
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_gradient_that_is_not_finite_is_named_and_nothing_changes(backend, value, device):
    lists = draw(6, device)
    lists[1][3][7] = value
    before = clones(lists)
    with (
        launch.backend(backend),
        checking_finite(True),
        pytest.raises(ValueError, match=r"gradients\[3\]: expected finite numbers, got 1 that"),
    ):
        adamw_(*lists, step=1, lr=0.1, max_norm=1.0)
    for xs, olds in zip((lists[0], *lists[2:]), (before[0], *before[2:]), strict=True):
        assert all(map(torch.equal, xs, olds))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 3e38])
@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_where_nobody_asks_the_kernel_skips_the_step(value, max_norm, device):
    """A GPU's way; 3e38 is finite, but its square is not."""
    lists = draw(7, device)
    lists[1][3][7] = value
    before = clones(lists)
    with launch.backend("triton"), checking_finite(False):
        norm = adamw_(*lists, step=1, lr=0.1, max_norm=max_norm)
        new = adamw(*lists, step=1, lr=0.1, max_norm=max_norm)
    assert not norm.isfinite()
    for xs, news, olds in zip((lists[0], *lists[2:]), new, (before[0], *before[2:]), strict=False):
        assert all(map(torch.equal, xs, olds)) and all(map(torch.equal, news, olds))
    if value != 3e38:
        with pytest.raises(ValueError, match=r"gradients\[3\]"):
            core.expect_finite_norm(norm, lists[1])


@both_backends
def test_views_are_written_and_nothing_beside_them(backend, device):
    memory = [torch.full((10, 14), torch.nan, device=device) for _ in range(4)]
    views = [m[1:8, 2:11].T for m in memory]
    for view, (x,) in zip(views, draw(8, device, [(9, 7)]), strict=True):
        view.copy_(x)
    truth = expected([[v] for v in views], step=2, lr=0.1)
    with launch.backend(backend):
        norm = adamw_(*([v] for v in views), step=2, lr=0.1)
    assert_close(([views[0]], [views[2]], [views[3]], norm), truth)
    assert all(m.isnan().sum() == m.numel() - 63 for m in memory)


def test_mixed_dtypes_take_a_launch_for_each_pair(device):
    lists = draw(9, device, [(5,), (6,), (7,), (8,)])
    lists[0][1], lists[1][1] = lists[0][1].bfloat16(), lists[1][1].bfloat16()
    lists[1][2] = lists[1][2].half()
    with launch.backend("triton"), launch.recording() as log:
        actual = adamw(*lists, step=1, lr=0.1, max_norm=1.0)
    assert [entry.kernel for entry in log].count("adamw_kernel") == 3
    assert_close(actual, expected(lists, step=1, lr=0.1, max_norm=1.0))


@pytest.mark.parametrize("offset", [0, 1])
def test_addresses_need_no_alignment(offset, device):
    lists = [[x[offset:]] for (x,) in draw(10, device, [(BLOCK + 6,)])]
    truth = expected(lists, step=2, lr=0.1)
    with launch.backend("triton"):
        assert_close(adamw(*lists, step=2, lr=0.1), truth)


@both_backends
def test_norms_of_many_blocks_and_of_nothing(backend, device):
    sizes = [1 + (i * 997) % (3 * BLOCK) for i in range(7)]
    gradients = [torch.full((n,), 0.5 + i, device=device) for i, n in enumerate(sizes)]
    with launch.backend(backend):
        norm = global_norm(gradients)
        assert global_norm([]) == 0 and global_norm([torch.empty(0, device=device)]) == 0
    truth = math.sqrt(sum(n * (0.5 + i) ** 2 for i, n in enumerate(sizes)))
    assert norm.item() == pytest.approx(truth, rel=1e-6)


def test_more_blocks_than_the_norm_reads_at_a_time(device):
    """That takes 4096 tensors or 16 million numbers; a mutant that forgot the first survived."""
    partial, norm = torch.arange(1.0, 12.0, device=device), torch.empty((), device=device)
    launch.launch(gradient_norm_kernel, (1,), partial, norm, 11, BLOCK=4)
    assert norm.item() == pytest.approx(math.sqrt(66))


@both_backends
def test_no_tensors_and_empty_tensors_launch_nothing(backend, device):
    empty = draw(0, device, [(0,), (3, 0)])
    with launch.backend(backend), launch.recording() as log:
        assert adamw([], [], [], [], step=1, lr=0.1)[:3] == ([], [], [])
        assert adamw_([], [], [], [], step=1, lr=0.1) == 0
        assert adamw(*empty, step=1, lr=0.1, max_norm=1.0).gradient_norm == 0
    assert not log


def test_bad_arguments_are_named(device):
    lists = draw(11, device, [(4,), (4,)])
    with launch.backend("triton"):
        halved = [*lists[:2], [x.half() for x in lists[2]], lists[3]]
        with pytest.raises(ValueError, match=r"first_moments\[0\]: expected dtype float32"):
            adamw(*halved, step=1, lr=0.1)
        twice = [[lists[0][0]] * 2, *lists[1:]]
        with pytest.raises(ValueError, match=r"parameters\[1\]: expected memory of its own"):
            adamw_(*twice, step=1, lr=0.1)
        with pytest.raises(ValueError, match="step: expected an integer of at least 1, got 0"):
            adamw(*lists, step=0, lr=0.1)
        with pytest.raises(TypeError, match="unexpected keyword argument 'weigth_decay'"):
            adamw_(*lists, step=1, lr=0.1, weigth_decay=0.1)
    elsewhere = [lists[0], [x.to("meta") for x in lists[1]], *lists[2:]]
    refused = pytest.raises(ValueError, match=r"gradients\[0\]: expected device .* got device meta")
    with launch.backend("eager"), refused:
        adamw(*elsewhere, step=1, lr=0.1)
    with pytest.raises(ValueError, match="lr: expected a finite number of at least 0, got -1"):
        AdamW(lists[0], lr=-1.0)
