"""One optimizer step, alike in every stage: add the ranks' gradients, clip, AdamW."""

import math
from typing import Any, Protocol

import torch

from ...kernels.optimizer.adamw import AdamW
from ...kernels.optimizer.sharded import own_parts
from ..ranks.group import Group


class OptimizerSettings(Protocol):
    """What a stage's settings say of its optimizer."""

    @property
    def lr(self) -> float:
        """Peak learning rate."""

    @property
    def betas(self) -> tuple[float, float]:
        """Decay of the two moments."""

    @property
    def eps(self) -> float:
        """Added to the root of the second moment."""

    @property
    def weight_decay(self) -> float:
        """Decoupled decay; of matrices alone."""

    @property
    def clip(self) -> float:
        """Global norm that gradients are clipped to."""


class Update:
    """AdamW over a module's parameters, with the ranks' gradients added first.

    Parameters
    ----------
    module : torch.nn.Module
        Its trainable parameters are updated in place. Matrices decay; norms and biases do not.
    settings : OptimizerSettings
        The stage's.
    group : Group
        The ranks.
    """

    def __init__(self, module: torch.nn.Module, settings: OptimizerSettings, group: Group) -> None:
        self.group = group
        self.named = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.parameters = list(self.named.values())
        matrices = [p for p in self.parameters if p.ndim >= 2]
        others = [p for p in self.parameters if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = AdamW(
            groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, max_norm=settings.clip
        )
        if group.sharded:
            self.optimizer.make_moments()

    def apply(self, lr: float) -> float:
        """Take one step, and forget the gradients.

        Parameters
        ----------
        lr : float
            This step's learning rate.

        Returns
        -------
        float
            The gradients' global norm before clipping.

        Raises
        ------
        FloatingPointError
            If it is not finite; names the first gradient at fault.
        """
        self.group.sum_gradients(self.parameters)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = lr
        try:
            self.optimizer.step()
        except ValueError:  # on a CPU it looks at what it is given
            self._expect_finite()
            raise
        norm = self.optimizer.gradient_norm
        found = 0.0 if norm is None else norm.item()
        if not math.isfinite(found):
            self._expect_finite()
            raise FloatingPointError(f"the gradients' norm is {found}: their squares overflow")
        self.optimizer.zero_grad(set_to_none=True)
        return found

    def _expect_finite(self) -> None:
        for name, parameter in self.named.items():
            if parameter.grad is None:
                continue
            (gradient,) = own_parts([parameter.grad])
            bad = ~gradient.isfinite()
            if bad.any():
                first = bad.nonzero()[0].tolist()
                raise FloatingPointError(
                    f"the gradient of {name}: {int(bad.sum())} of {bad.numel()} numbers are not "
                    f"finite, the first at {first}: {gradient[tuple(first)].item()} (likely cause: "
                    "a learning rate that is too high)"
                )

    def state_dict(self) -> dict[str, Any]:
        """Return the moments and the step count."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        self.optimizer.load_state_dict(state)
