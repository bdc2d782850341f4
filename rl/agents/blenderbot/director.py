"""DIRECTOR: a GPT with a second head that says of every word whether it would be a good one.

    hidden ─┬─ W  ─► g   how the text goes on
            └─ W_c ─► c   whether word j would be part of a good answer
    spoken: log_softmax(g + γ·log σ(c))          core/dialogue/director.py

Two forms of the second head: "linear", a matrix of its own (it starts at 0, where every word is as
good as another and the guide says nothing), and "shared", c = a·g + b of the generator's own
logits, with (a, b) = (1, 0) at the start: two numbers in all.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ....core.checks import refuse
from ....core.dialogue.director import UNLABELLED
from ....core.language.director_scores import expect_guide
from ....core.model.presets import GPTConfig
from ....kernels.cpu import speed_up
from ....kernels.language.director_scores import director_scores
from ....kernels.model.gpt import GPT
from ...stages.generation import LogitsHook

__all__ = ["HEADS", "UNLABELLED", "Director", "guided_logits", "load_director", "save_director"]
HEADS = ("linear", "shared")
FILE = "director.safetensors"


def guided_logits(g: torch.Tensor, c: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return z = g + γ·log σ(c), [..., vocab], in float32 at least."""
    exact = torch.promote_types(g.dtype, torch.float32)
    return g.to(exact) + gamma * torch.nn.functional.logsigmoid(c.to(exact))


class Director(torch.nn.Module):
    """A generator and the classifier that guides it.

    Parameters
    ----------
    trunk : GPT
        Taken as it is, not copied.
    head : str
        "linear" or "shared".
    """

    def __init__(self, trunk: GPT, head: str = "linear") -> None:
        super().__init__()
        if head not in HEADS:
            refuse("head", f"one of {', '.join(HEADS)}", repr(head))
        self.trunk, self.head = trunk, head
        device = trunk.wte.weight.device
        if head == "linear":
            # As a token table lies in memory: kernels read its columns as whole rows.
            shape = (trunk.config.vocab_size, trunk.config.d_model)
            self.weight = torch.nn.Parameter(torch.zeros(shape, device=device))
        else:
            self.scale = torch.nn.Parameter(torch.ones((), device=device))
            self.shift = torch.nn.Parameter(torch.zeros((), device=device))

    def class_logits(self, hidden: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        """Score every word as part of a good answer.

        Parameters
        ----------
        hidden : torch.Tensor [..., d_model]
        g : torch.Tensor [..., vocab]
            The generator's logits of these states.

        Returns
        -------
        torch.Tensor [..., vocab]
        """
        if self.head == "linear":
            return hidden @ self.weight.to(hidden.dtype).T
        return self.scale * g + self.shift

    def hook(self, gamma: float) -> LogitsHook:
        """Return what guides `generate`.

        Parameters
        ----------
        gamma : float
            γ_infer, at least 0.

        Returns
        -------
        callable
            `(states, logits) -> logits`, with −γ·log(1 + e^(−c)) added.
        """
        expect_guide("gamma", gamma)

        def guide(states: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            return guided_logits(logits, self.class_logits(states, logits), gamma)

        return guide

    def log_probs(
        self, hidden: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor, gamma: float
    ) -> torch.Tensor:
        """Score tokens as they would be spoken, the vocabulary's logits never held by the kernels.

        Parameters
        ----------
        hidden : torch.Tensor [token, d_model]
        targets : torch.Tensor of int [token]
        mask : torch.Tensor of bool [token]
        gamma : float

        Returns
        -------
        torch.Tensor [token]
            0 where masked.
        """
        matrix = self.trunk.output_matrix()
        if self.head == "shared":  # c = a·g + b is no product of the states by a matrix alone
            g = self.trunk.logits(hidden)
            z = guided_logits(g, self.class_logits(hidden, g), gamma)
            wanted = torch.where(mask, targets, 0)[:, None]
            return torch.where(mask, z.log_softmax(-1).gather(-1, wanted)[:, 0], 0.0)
        class_matrix = self.weight.to(hidden.dtype).T
        return director_scores(hidden, matrix, class_matrix, targets, mask, gamma=gamma).log_prob


def save_director(folder: Path, director: Director) -> None:
    """Write both heads and the trunk into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: x.contiguous() for name, x in director.state_dict().items()}
    save_file(state, folder / FILE, {"head": director.head})


def load_director(folder: Path, config: GPTConfig, head: str) -> Director:
    """Read what `save_director` wrote, in evaluation mode.

    Parameters
    ----------
    folder : pathlib.Path
    config : GPTConfig
        Of the trunk.
    head : str
        As it was trained.

    Returns
    -------
    Director
    """
    director = Director(speed_up(GPT(config)), head)
    director.load_state_dict(load_file(folder / FILE))
    return director.requires_grad_(False).eval()
