"""AdamW in Triton: a function, the same in place, and PyTorch's optimizer around it.

Mathematics: core/optimizer/adamw.py. Kernels, tiling, memory and precision:
kernels/optimizer/adamw_update.py. On the CPU, in place, PyTorch's own fused kernel takes the step
where the four lists are contiguous and share a dtype.

A gradient norm that is not finite. Where kernels/common/finite.py says that values are looked at
(on the CPU by default), it is an error that names the first gradient at fault, and nothing is
changed. On a GPU asking would wait for the device: there the kernel leaves parameters and moments
as they are, on the device, by itself (as eager does where it is told not to look). The training
loop sees the norm that is returned, which it logs anyway, and calls `expect_finite_norm(norm,
gradients)` to stop by name. Beyond 1.8e19 a norm's square overflows float32: on Triton that counts
as not finite.

Deterministic.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from ...core.checks import refuse
from ...core.optimizer.adamw import (
    AdamWResults,
    check_adamw,
    clip_scale,
    coefficients,
    decay_of_each,
    expect_finite_norm,
)
from ..common.finite import checks_finite
from ..common.launch import runs_on_triton
from .adamw_update import Groups, launch_norm, launch_update
from .sharded import is_sharded, norm_over_ranks, own_parts
from .tensor_table import expect_own_memory, write_back

Tensors = Sequence[torch.Tensor]
LISTS = ("parameters", "gradients", "first_moments", "second_moments")
MOMENTS = ("exp_avg", "exp_avg_sq")
DEFAULTS: dict[str, Any] = {
    "betas": (0.9, 0.999),
    "eps": 1e-8,
    "weight_decay": 0.0,
    "max_norm": None,
    "epsilon": "pytorch",
}


def adamw(
    parameters: Tensors,
    gradients: Tensors,
    first_moments: Tensors,
    second_moments: Tensors,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float | Sequence[float] = 0.0,
    max_norm: float | None = None,
    epsilon: str = "pytorch",
) -> AdamWResults:
    """Compute one step of AdamW; the twin of `gptwin.core.optimizer.adamw.adamw`.

    For training, `adamw_` does the same in place, and `AdamW` wraps it.

    Parameters
    ----------
    parameters, gradients : list of torch.Tensor
        float32, float16 or bfloat16, any mixture and any strides (a strided tensor is copied).
    first_moments, second_moments : list of torch.Tensor
        float32, whatever the parameters; zeros before the first step.
    step : int
        Which update this is, 1 for the first.
    lr, betas, eps, weight_decay, max_norm, epsilon
        As in the reference.

    Returns
    -------
    AdamWResults
        New tensors, contiguous, without a gradient, and the gradients' norm before clipping,
        float32. If that is not finite and nobody asked (a GPU), the tensors are as they were.

    Raises
    ------
    ValueError
        If the lists do not match, an option, a dtype or a device is wrong, or, where that is
        checked, a gradient is not finite.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    lists = (parameters, gradients, first_moments, second_moments)
    options: dict[str, Any] = {
        "step": step, "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
        "max_norm": max_norm, "epsilon": epsilon,
    }  # fmt: skip
    if not _runs_on_triton("adamw", lists, options):
        return adamw_eager(*lists, **options)
    old = [[t.detach().contiguous() for t in tensors] for tensors in lists]
    new = [[torch.empty_like(t) for t in tensors] for tensors in (old[0], old[2], old[3])]
    norm = _run(old, new, None, **options)
    return AdamWResults(new[0], new[1], new[2], norm)


def adamw_(
    parameters: Tensors,
    gradients: Tensors,
    first_moments: Tensors,
    second_moments: Tensors,
    *,
    step: int,
    lr: float,
    norm: torch.Tensor | None = None,
    **options: Any,
) -> torch.Tensor:
    """Take one step of AdamW in place.

    Parameters
    ----------
    parameters, first_moments, second_moments : list of torch.Tensor
        Written. As in `adamw`; no tensor twice. One that is not contiguous takes a copy there and
        back.
    gradients : list of torch.Tensor
        As in `adamw`; no tensor twice. On the CPU they are clipped afterwards, as
        torch.nn.utils.clip_grad_norm_ leaves them; on Triton they stay as they were.
    norm : torch.Tensor [], optional
        What to clip by instead of these gradients' norm, such as `global_norm` of more of them.

    Returns
    -------
    torch.Tensor []
        The norm before clipping, on the gradients' device.

    Raises
    ------
    ValueError
        As in `adamw`, or if two tensors start at the same memory.
    """
    lists = (parameters, gradients, first_moments, second_moments)
    everything = {"step": step, "lr": lr, **DEFAULTS, **options}
    on_triton = _runs_on_triton("adamw_", lists, everything)
    for name, tensors in zip(LISTS, lists, strict=True):
        expect_own_memory(name, tensors)
    with torch.no_grad():
        if not on_triton:
            return _eager_in_place(lists, norm, everything)
        old = [[t.detach().contiguous() for t in tensors] for tensors in lists]
        norm = _run(old, [old[0], old[2], old[3]], norm, **everything)
        for i in (0, 2, 3):
            write_back(lists[i], old[i])
    return norm


def global_norm(gradients: Tensors) -> torch.Tensor:
    """Return the 2-norm of all gradients together, as `adamw` does.

    Parameters
    ----------
    gradients : list of torch.Tensor

    Returns
    -------
    torch.Tensor []
        On their device; float32 (of float64 gradients float64). 0 if there are none.

    Raises
    ------
    ValueError
        If devices differ, or a dtype is none that the kernels have.
    RuntimeError
        If Triton was asked for and cannot run here.
    """
    named = {f"gradients[{i}]": gradient for i, gradient in enumerate(gradients)}
    with torch.no_grad():
        if any(map(is_sharded, gradients)):
            return norm_over_ranks(gradients, global_norm)
        if not named or not runs_on_triton("global_norm", **named):
            return _eager_norm(gradients)
        contiguous = [gradient.detach().contiguous() for gradient in gradients]
        norm = torch.zeros((), dtype=torch.float32, device=gradients[0].device)
        launch_norm(Groups([contiguous] * 4, [contiguous] * 3), norm)
    return norm


def _run(
    old: Sequence[Tensors],
    new: Sequence[Tensors],
    norm: torch.Tensor | None,
    weight_decay: float | Sequence[float],
    **options: Any,
) -> torch.Tensor:
    """Launch everything for checked, contiguous tensors."""
    groups = Groups(old, new, weight_decay)
    if norm is None:
        norm = torch.zeros((), dtype=torch.float32, device=old[0][0].device)
        launch_norm(groups, norm)
    if checks_finite(norm):
        expect_finite_norm(norm, old[1])
    launch_update(groups, norm, **options)
    return norm


def _runs_on_triton(operation: str, lists: Sequence[Tensors], options: dict[str, Any]) -> bool:
    """Check the arguments and choose the backend."""
    parameters, gradients, first, second = lists
    check_adamw(parameters, gradients, first, second, **options)
    if not parameters:
        return False
    # The first check makes no names, which would cost more: a CPU's training comes here each step.
    in_one_place = len({tensor.device for tensors in lists for tensor in tensors}) == 1
    if in_one_place and not runs_on_triton(operation, **{"parameters[0]": parameters[0]}):
        return False
    named = {
        f"{name}[{i}]": tensor
        for name, tensors in zip(LISTS, lists, strict=True)
        for i, tensor in enumerate(tensors)
    }
    if not runs_on_triton(operation, **named):
        return False
    for name, tensor in named.items():
        if "moments" in name and tensor.dtype != torch.float32:
            refuse(
                name,
                "dtype float32",
                f"dtype {tensor.dtype}",
                "moments made like half-precision parameters: small steps would be lost",
            )
    return True


def adamw_eager(
    parameters: Tensors,
    gradients: Tensors,
    first_moments: Tensors,
    second_moments: Tensors,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float | Sequence[float] = 0.0,
    max_norm: float | None = None,
    epsilon: str = "pytorch",
) -> AdamWResults:
    """Compute the same in plain PyTorch, for the CPU and as a yardstick."""
    known = coefficients(step, lr, betas, eps, epsilon)
    new: tuple[list[torch.Tensor], ...] = ([], [], [])
    with torch.no_grad():
        norm = _eager_norm(gradients)
        lists = (parameters, gradients, first_moments, second_moments)
        if not _takes_step(norm, gradients):
            kept, kept_first, kept_second = ([x.clone() for x in lists[i]] for i in (0, 2, 3))
            return AdamWResults(kept, kept_first, kept_second, norm)
        scale = clip_scale(float(norm), max_norm)
        decays = decay_of_each(weight_decay, len(parameters))
        for parameter, gradient, first, second, decay in zip(*lists, decays, strict=True):
            g = gradient.to(first.dtype) * scale
            m = torch.lerp(first, g, 1 - betas[0])
            v = second * betas[1] + g * g * (1 - betas[1])
            moved = parameter.to(first.dtype) * (1 - lr * decay)
            moved = moved - known.step_size * m / (v.sqrt() * known.root_correction + known.eps)
            for results, tensor in zip(new, (moved.to(parameter.dtype), m, v), strict=True):
                results.append(tensor)
    return AdamWResults(new[0], new[1], new[2], norm)


def _eager_norm(gradients: Tensors) -> torch.Tensor:
    """Return the 2-norm of all gradients, in float32 or float64."""
    exact = (torch.float32, torch.float64)
    wide = [g if g.dtype in exact else g.float() for g in gradients if g.numel()]
    if not wide:
        return torch.zeros((), dtype=torch.float32)
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(wide)))


def _takes_step(norm: torch.Tensor, gradients: Tensors) -> bool:
    """Refuse a norm that is not finite, or say so where values are not looked at."""
    if checks_finite(norm):
        expect_finite_norm(norm, gradients)
    return math.isfinite(norm)


def _eager_in_place(
    lists: Sequence[Tensors], norm: torch.Tensor | None, options: dict[str, Any]
) -> torch.Tensor:
    """Take the step with PyTorch's fused kernel if it can, else write `adamw_eager`'s back."""
    gradients = lists[1]
    norm = _eager_norm(gradients) if norm is None else norm
    if not _takes_step(norm, gradients):
        return norm
    scale = clip_scale(float(norm), options["max_norm"])
    # PyTorch's kernel walks through memory and ignores strides.
    everything = [x for xs in lists for x in xs]
    if len({x.dtype for x in everything}) > 1 or not all(x.is_contiguous() for x in everything):
        scaled = [g.to(m.dtype) * scale for g, m in zip(gradients, lists[2], strict=True)]
        new = adamw_eager(lists[0], scaled, *lists[2:], **options | {"max_norm": None})
        for tensors, results in zip((lists[0], *lists[2:]), new[:3], strict=True):
            for tensor, result in zip(tensors, results, strict=True):
                tensor.copy_(result)
        return norm
    known = coefficients(*(options[n] for n in ("step", "lr", "betas", "eps", "epsilon")))
    step = torch.tensor(float(options["step"]), dtype=torch.float32)
    # The kernel divides gradients by it and writes them back: clipping takes no pass of its own.
    divisor = None if scale == 1 else torch.tensor(1 / scale, dtype=norm.dtype)
    decays = decay_of_each(options["weight_decay"], len(gradients))
    for decay in dict.fromkeys(decays):
        here = [i for i, own in enumerate(decays) if own == decay]
        parameters, of_these, first, second = ([tensors[i] for i in here] for tensors in lists)
        torch._fused_adamw_(
            parameters,
            of_these,
            first,
            second,
            [],
            [step] * len(here),
            lr=options["lr"],
            beta1=options["betas"][0],
            beta2=options["betas"][1],
            weight_decay=decay,
            eps=known.eps,
            amsgrad=False,
            maximize=False,
            grad_scale=divisor,
        )
    return norm


class AdamW(torch.optim.Optimizer):
    """PyTorch's optimizer interface around `adamw_`: one launch for all parameters.

    Its state is that of torch.optim.AdamW (`step`, `exp_avg`, `exp_avg_sq`; the moments float32
    whatever the parameters): checkpoints go from one to the other. Parameter groups may differ in
    weight decay at no cost; those that differ in lr, betas or eps take a launch each. The norm is
    that of all groups together.

    Parameters
    ----------
    params : iterable of torch.Tensor, or of dict
        Parameters, or groups of them.
    lr, betas, eps, weight_decay : float
        As in `adamw`; of each group.
    max_norm : float, optional
        Clip the gradients to this norm.
    epsilon : str
        "pytorch" or "tensorflow".

    Attributes
    ----------
    gradient_norm : torch.Tensor or None
        Of the last step, before clipping.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        max_norm: float | None = None,
        epsilon: str = "pytorch",
    ) -> None:
        check_adamw([], [], [], [], 1, lr, betas, eps, 0.0, max_norm, epsilon)
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        self.max_norm, self.epsilon = max_norm, epsilon
        self.gradient_norm: torch.Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds, which of PyTorch's own is not all."""
        own = {name: getattr(self, name) for name in ("max_norm", "epsilon", "gradient_norm")}
        return super().__getstate__() | own

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step with the gradients that are there.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss again.

        Returns
        -------
        object
            What the closure returned, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        launches = self._launches()
        gradients = [gradient for together in launches.values() for _, gradient, _ in together]
        # One launch computes the norm on its way, unless other ranks hold a part of it.
        sharded = any(map(is_sharded, gradients))
        norm = global_norm(gradients) if sharded or len(launches) > 1 else None
        for (step, lr, betas, eps), together in launches.items():
            parameters, of_these, decays = map(list, zip(*together, strict=True))
            states = [self.state[parameter] for parameter in parameters]
            first, second = ([state[name] for state in states] for name in MOMENTS)
            lists = (parameters, of_these, first, second)
            self.gradient_norm = adamw_(
                *(map(own_parts, lists) if sharded else lists),
                step=step, lr=lr, betas=betas, eps=eps, norm=norm, max_norm=self.max_norm,
                weight_decay=decays, epsilon=self.epsilon,
            )  # fmt: skip
            torch._foreach_add_([state["step"] for state in states], 1)
        return loss

    def _launches(self) -> dict[tuple[Any, ...], list[tuple[torch.Tensor, torch.Tensor, float]]]:
        """Sort parameters, their gradients and their decay by what a launch shares."""
        launches: dict[tuple[Any, ...], list[tuple[torch.Tensor, torch.Tensor, float]]] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self._state_of(parameter)
                step = int(state["step"]) + 1
                key = (step, group["lr"], tuple(group["betas"]), group["eps"])
                launches.setdefault(key, []).append(
                    (parameter, parameter.grad, group["weight_decay"])
                )
        return launches

    def _state_of(self, parameter: torch.Tensor) -> dict[str, Any]:
        """Return a parameter's moments and step count, made if they are not there yet."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0, dtype=torch.float32)  # bfloat16 stops at 256
            like = torch.promote_types(parameter.dtype, torch.float32)
            for name in MOMENTS:
                state[name] = torch.zeros_like(parameter, dtype=like)
        return state

    @torch.no_grad()
    def make_moments(self) -> None:
        """Make every parameter's moments now: a sharded checkpoint is read into what is there."""
        for group in self.param_groups:
            for parameter in group["params"]:
                self._state_of(parameter)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a copy of a state; PyTorch casts moments to parameters' dtypes and shares counts.

        Parameters
        ----------
        state_dict : dict
            From `state_dict`, here or of torch.optim.AdamW.
        """
        super().load_state_dict(state_dict)
        names = itertools.chain.from_iterable(g["params"] for g in state_dict["param_groups"])
        ours = itertools.chain.from_iterable(group["params"] for group in self.param_groups)
        for name, parameter in zip(names, ours, strict=True):
            if name not in state_dict["state"]:
                continue
            loaded, state = state_dict["state"][name], self.state[parameter]
            state["step"] = torch.tensor(float(loaded["step"]), dtype=torch.float32)
            for moment in MOMENTS:
                state[moment] = loaded[moment].to(
                    parameter.device, torch.promote_types(parameter.dtype, torch.float32), copy=True
                )
