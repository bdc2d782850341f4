"""Memory of Numbers: what was stored comes back, what nobody stored does not, nothing ends here."""

import numpy as np
import pytest
import torch

from gptwin.lab.prove.equal.algebra import functions as f
from gptwin.lab.prove.equal.algebra import number as n
from gptwin.lab.prove.equal.evaluation.host import Host
from gptwin.lab.prove.equal.evaluation.memory import Memory, OutOfBoundsError, addresses


@pytest.fixture
def memory() -> Memory:
    n.begin(0)
    return Memory()


def unknowns(*shape: int) -> n.Number:
    return n.variable(np.random.default_rng(2).normal(size=shape))


def held(memory: Memory, tensor: torch.Tensor, *shape: int) -> n.Number:
    number = unknowns(*shape)
    memory.write(tensor, number)
    return number


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_was_stored_comes_back(memory: Memory, dtype: torch.dtype) -> None:
    whole = torch.empty(6, 8, dtype=dtype)
    tensor = whole[1:5, 1::2]
    number = held(memory, tensor, 4, 4)
    assert not n.disagreements(memory.read(tensor), number).any()
    assert torch.allclose(tensor.double(), torch.from_numpy(number.x), rtol=1e-2)
    logs = f.log(abs(number))
    memory.write(tensor, logs)
    assert not n.disagreements(f.exp(memory.read(tensor)), abs(number)).any()
    memory.write(tensor, number)  # no logarithm stays behind
    assert not n.disagreements(f.exp(memory.read(tensor)), f.exp(number)).any()


def test_a_load_takes_constants_and_nothing_else_that_nobody_stored(memory: Memory) -> None:
    tensor = torch.tensor([0.0, 1.0, -1.0, float("inf"), -float("inf"), float("nan")])
    memory.know(tensor)
    read = memory.read(tensor)
    assert not n.disagreements(read, tensor.numpy().astype(float)).any()
    memory.know(strange := torch.tensor([0.5]))
    with pytest.raises(n.NotFollowedError, match=r"that no kernel stored: 0\.5"):
        memory.read(strange)


def test_what_was_overwritten_is_not_known(memory: Memory) -> None:
    tensor = torch.empty(4)
    held(memory, tensor, 4)
    tensor[2] = 7.0
    with pytest.raises(n.NotFollowedError, match="that no kernel stored: 7"):
        memory.read(tensor)
    tensor[2] = 0.0
    assert memory.read(tensor).p[2] == 0


@pytest.mark.parametrize("offset", [-4, -400, 64, 16384, 2, -(10**12)])
@pytest.mark.parametrize("access", ["load", "store"])
@pytest.mark.parametrize("kind", ["integers", "numbers"])
def test_an_address_in_no_tensor_is_an_error(
    memory: Memory, offset: int, access: str, kind: str
) -> None:
    tensor = torch.zeros(16, dtype=torch.float32 if kind == "numbers" else torch.int32)
    memory.know(tensor)
    at = addresses(tensor)[:3].copy()
    at[1] = tensor.data_ptr() + offset
    with pytest.raises(OutOfBoundsError, match=f"x: {access}"):
        if kind == "integers" and access == "load":
            memory.load(at, np.int32, "x: load")
        elif kind == "integers":
            memory.store(at, np.arange(3, dtype=np.int32), "x: store")
        elif access == "load":
            memory.load_numbers(at, "f32", "x: load")
        else:
            memory.store_numbers(at, unknowns(3), "f32", "x: store")
    assert not tensor.any()


def test_the_last_element_is_inside_and_half_of_one_behind_it_is_not(memory: Memory) -> None:
    tensor = torch.zeros(4, dtype=torch.int16)
    memory.know(tensor)
    last = np.array([tensor.data_ptr() + 6])
    memory.store(last, np.array([5], np.int16))
    assert tensor.tolist() == [0, 0, 0, 5]
    with pytest.raises(OutOfBoundsError):
        memory.load(last - 2, np.int64)
    with pytest.raises(OutOfBoundsError):
        memory.load(last, np.int32)


def test_lanes_may_lie_in_several_tensors(memory: Memory) -> None:
    tensors = [torch.empty(4), torch.empty(5)]
    numbers = [held(memory, t, len(t)) for t in tensors]
    at = np.concatenate([addresses(t) for t in tensors])[::-1].copy()
    read = memory.load_numbers(at)
    assert not n.disagreements(read[::-1], n.concatenate(numbers)).any()
    memory.store_numbers(at, n.concatenate(numbers))
    assert not n.disagreements(memory.read(tensors[0])[::-1], numbers[1][1:]).any()


def test_where_a_number_was_stored_is_known(memory: Memory) -> None:
    tensor = torch.empty(2)
    memory.know(tensor)
    memory.store_numbers(addresses(tensor)[:1], unknowns(1), "f32", "kernel.py:7: store")
    memory.store_numbers(addresses(tensor)[1:], unknowns(1), "f32", "kernel.py:9: store")
    assert memory.stored_by(addresses(tensor)[1:], "f32") == "kernel.py:9"


# --- PyTorch's own operations ---------------------------------------------------------------------

FOLLOWED = {
    "sums": lambda a, b: (a * b + 2 * a).sum(dim=1),
    "means": lambda a, b: a.mean(0, keepdim=True) + b.var(1, keepdim=True),
    "quotients": lambda a, b: a / (b * b + 1) - b.reciprocal(),
    "in place": lambda a, b: a.clone().mul_(b).add_(a, alpha=3).div_(2),
    "moved": lambda a, b: torch.cat([a.T.contiguous(), b[:, :4].clone().flip(0)]).roll(1, 0),
    "chosen": lambda a, b: torch.where(a > b, a, b) + torch.maximum(a, b).clamp(-0.5, 0.5),
    "masked": lambda a, b: a.masked_fill(b > 0, 0.0) @ b.T,
    "rows by number": lambda a, b: torch.nn.functional.embedding(torch.tensor([1, 0, 1]), a),
    "exponentials": lambda a, b: torch.softmax(a, -1) * torch.log_softmax(b, 0).exp(),
    "a layer norm": lambda a, b: torch.nn.functional.layer_norm(a, (5,), b[0], b[1], 1e-5),
    "a group norm": lambda a, b: torch.nn.functional.group_norm(a[None], 2, b[0, :4], b[1, :4]),
    "variances": lambda a, b: a.var() + b.var(0, False) + a.var(0, correction=0),
    "put at indices": lambda a, b: (
        a.index_put((torch.tensor([2, 2]),), b[:2], accumulate=True)
        + b.index_put((torch.tensor([1, 3]), torch.tensor([0, 4])), a[0, :2])
    ),
    "what comes out": lambda a, b: torch.add(a, b, alpha=2.0, out=torch.zeros(4, 5)),
    "scaled products": lambda a, b: torch.addmm(a[:4, :4], a, b.t(), beta=0.5, alpha=2.0),
    "gates": lambda a, b: torch.nn.functional.silu(a) * torch.sigmoid(b) + torch.tanh(a),
    "gelu": lambda a, b: (
        torch.nn.functional.gelu(a) + torch.nn.functional.gelu(b, approximate="tanh")
    ),
    "a sum along": lambda a, b: a.cumsum(1) + torch.logsumexp(b, 1, keepdim=True),
    "written over": lambda a, b: torch.zeros_like(a).copy_(b).fill_(2.0) * a,
    "other dtypes": lambda a, b: a.double() * b.to(torch.float64).float(),
}


@pytest.mark.parametrize("what", FOLLOWED)
def test_host_operations_are_followed(memory: Memory, what: str) -> None:
    """What PyTorch computes of the shadows is what is kept, and it is not a constant."""
    a, b = torch.empty(4, 5), torch.empty(4, 5)
    plain = [torch.from_numpy(held(memory, t, 4, 5).x * s) for t, s in ((a, 1), (b, 1))]
    memory.write(b, memory.read(a) * 0 + n.variable(plain[1].numpy()[::-1].copy()))
    expected = FOLLOWED[what](plain[0], torch.from_numpy(plain[1].numpy()[::-1].copy()))
    with Host(memory) as host:
        result = FOLLOWED[what](a, b)
    read = memory.read(result)
    assert np.allclose(read.x, expected.double().numpy(), rtol=1e-5, atol=1e-6)
    assert read.p.any() and not host.not_followed


def test_gradients_are_followed(memory: Memory) -> None:
    a, b = torch.empty(4, 5), torch.empty(5, 3)
    left, right = held(memory, a, 4, 5), held(memory, b, 5, 3)
    with Host(memory):
        a.requires_grad_(), b.requires_grad_()
        loss = ((a @ b) ** 2).sum()
        d_a, d_b = torch.autograd.grad(loss, [a, b])
    product = left @ right * 2
    assert not n.disagreements(memory.read(d_a), product @ right.T).any()
    assert not n.disagreements(memory.read(d_b), left.T @ product).any()


def test_what_is_not_followed_is_named_and_forgotten(memory: Memory) -> None:
    tensor = torch.empty(4)
    held(memory, tensor, 4)
    with Host(memory) as host:
        sines = torch.special.bessel_j0(tensor)
        tensor.erfinv_()
    assert {"prims.bessel_j0", "prims.erf_inv"} <= set(host.not_followed)
    for unknown in (sines, tensor):
        with pytest.raises(n.NotFollowedError):
            memory.read(unknown)


def test_a_form_of_an_operation_that_its_rule_does_not_take(memory: Memory) -> None:
    """It is taken apart, as rounding to a decimal is, or not followed."""
    tensor = torch.empty(4)
    x = held(memory, tensor, 4).x
    with Host(memory) as host:
        rounded = tensor.round(decimals=1)
        most = tensor.scatter(0, torch.tensor([1]), 2.0, reduce="multiply")
    assert np.allclose(memory.read(rounded).x, x.round(1)) and host.not_followed == ["scatter"]
    with pytest.raises(n.NotFollowedError):
        memory.read(most)


def test_empty_memory_holds_nan_until_it_is_written(memory: Memory) -> None:
    with Host(memory):
        empty = torch.empty(3)
    assert np.isnan(memory.read(empty).x).all()


def test_random_numbers_are_unknowns(memory: Memory) -> None:
    with Host(memory):
        drawn = torch.randn(6)
    assert np.allclose(memory.read(drawn).x, drawn.numpy()) and (memory.read(drawn).p > 1).all()
