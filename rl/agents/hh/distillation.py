"""A prompt distilled into the model: the student says without it what the teacher says with it.

The divergence over the teacher's top tokens and a bucket is core/dialogue/distillation.py's, here
in PyTorch. The teacher answers prompts with the system's turn before them, and what it thought at
each token of its answers is stored once: k ids and log-probabilities, instead of a vocabulary. The
student reads the same answers after the prompt alone.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ....core.dialogue.distillation import (
    LOG_FLOOR,
    check_context_distillation,
    check_top,
)
from ....kernels.model.gpt import GPT
from ...bounds import ABOVE_0, COUNT, DECAYS, FROM_0, LIMIT, SHARE, setting
from ...data.batches import Shuffled
from ...data.dialogue import Message, Template
from ...data.tasks import Exercise
from ...ranks.group import ALONE
from ...stages.rollout import side_by_side
from ...training.run import Statistics
from ...training.schedule import cosine
from ...training.update import Update
from .comparisons import say

AT_ONCE = 64


def top_log_probs(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a teacher's k likeliest tokens and their log-probabilities, each [..., k].

    The twin of core's; of equal ones, too, the lowest id comes first.
    """
    check_top(logits, k)
    order = logits.sort(dim=-1, descending=True, stable=True)
    return order.indices[..., :k], order.values[..., :k] - logits.logsumexp(-1, keepdim=True)


def context_distillation(
    logits: torch.Tensor, top_ids: torch.Tensor, top_log_probs: torch.Tensor
) -> torch.Tensor:
    """Compute KL(teacher‖student) of each row over the top cells and the bucket.

    The twin of core's; autograd carries the gradient back.

    Parameters
    ----------
    logits : torch.Tensor [..., vocab]
        The student's.
    top_ids : torch.Tensor of int64 [..., k]
    top_log_probs : torch.Tensor [..., k]
        The teacher's.

    Returns
    -------
    torch.Tensor [...]
        In nats.
    """
    check_context_distillation(logits, top_ids.cpu(), top_log_probs.detach().cpu())
    teacher = top_log_probs.exp()
    rest = (1 - teacher.sum(-1, keepdim=True)).clamp(min=0)
    cells = torch.cat([teacher, rest], -1)  # [..., k + 1]
    others = logits.scatter(-1, top_ids, -torch.inf)
    # A row whose every token is on top, or impossible, has nothing to sum: its gradient is 0.
    empty = (others == -torch.inf).all(-1, keepdim=True)
    log_rest = torch.where(empty, 0.0, others).logsumexp(-1, keepdim=True)
    log_rest = torch.where(empty, -torch.inf, log_rest)
    log_student = torch.cat([logits.gather(-1, top_ids), log_rest], -1)
    log_student = log_student - logits.logsumexp(-1, keepdim=True)
    live = log_student >= LOG_FLOOR
    bounded = torch.where(live, log_student, LOG_FLOOR)
    return torch.special.xlogy(cells, cells).sum(-1) - (cells * bounded).sum(-1)


@dataclasses.dataclass(frozen=True)
class DistillationSettings:
    """How a prompt is distilled.

    Attributes
    ----------
    prompts, kept : int
        Prompts that the teacher answers; tokens stored of each position (Bai et al.: 50).
    epochs, batch, lr, warmup, final_lr, betas, eps, weight_decay, clip
        As in `SFTSettings`.
    """

    prompts: int = setting(2000, COUNT)
    kept: int = setting(50, COUNT, "HH A.1: the top 50")
    epochs: int = setting(4, COUNT)
    batch: int = setting(32, COUNT)
    lr: float = setting(1e-3, ABOVE_0)
    warmup: int = setting(10, FROM_0)
    final_lr: float = setting(0.1, SHARE)
    betas: tuple[float, float] = setting((0.9, 0.95), DECAYS)
    eps: float = setting(1e-8, ABOVE_0)
    weight_decay: float = setting(0.0, FROM_0)
    clip: float = setting(1.0, LIMIT)


class Stored(NamedTuple):
    """An answer of the teacher, and what it thought at each of its tokens.

    Attributes
    ----------
    prompt, response : list of int
        The prompt without the system's turn, and the answer.
    ids, log_probs : torch.Tensor [token, k]
        The likeliest tokens at each place.
    """

    prompt: list[int]
    response: list[int]
    ids: torch.Tensor
    log_probs: torch.Tensor


def prompted(exercise: Exercise, prompt: str) -> tuple[Message, ...]:
    """Put the system's turn before a conversation; what the system says there is kept after it."""
    said = [m.content for m in exercise.messages if m.role == "system"]
    others = [m for m in exercise.messages if m.role != "system"]
    return (Message("system", " ".join([prompt, *said])), *others)


@torch.no_grad()
def store(
    teacher: GPT,
    template: Template,
    prompt: str,
    exercises: Sequence[Exercise],
    kept: int,
    *,
    max_response: int,
    seed: int,
) -> list[Stored]:
    """Let the prompted teacher answer, and store what it thought.

    Parameters
    ----------
    teacher : GPT
        In evaluation mode.
    template : Template
    prompt : str
        The system's turn that is to be distilled.
    exercises : sequence of Exercise
    kept : int
        Tokens stored of each place.
    max_response, seed : int
        Of the answers.

    Returns
    -------
    list of Stored
        One for each exercise.
    """
    long = [template.prompt(prompted(e, prompt)) for e in exercises]
    answers = say(teacher, template, long, 1, max_response=max_response, seed=seed)
    responses = [said[0] for said in answers]
    found = []
    for start in range(0, len(exercises), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        logits, mask = response_logits(teacher, template, long[part], responses[part])
        ids, log_probs = top_log_probs(logits, kept)
        for i, exercise in enumerate(exercises[part]):
            row = mask[i]
            short = template.prompt(exercise.messages)
            found.append(Stored(short, responses[start + i], ids[i][row], log_probs[i][row]))
    return found


def response_logits(
    model: GPT, template: Template, prompts: Sequence[list[int]], responses: Sequence[list[int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits before each response token, [row, response, vocab], and which count."""
    batch = side_by_side(prompts, responses, template.pad, model.wte.weight.device)
    return model.logits(batch.states(model)).float(), batch.mask


class DistillationStage:
    """Teach a student what a prompted teacher thought. A `run.Stage`.

    Parameters
    ----------
    student : GPT
        Trained in place.
    template : Template
    stored, validation : sequence of Stored
    settings : DistillationSettings
    seed : int
    """

    name = "distilled"

    def __init__(
        self,
        student: GPT,
        template: Template,
        stored: Sequence[Stored],
        validation: Sequence[Stored],
        settings: DistillationSettings,
        seed: int,
    ) -> None:
        self.student, self.template, self.validation = student, template, validation
        self.settings = settings
        self.source = Shuffled(stored, settings.batch, seed, "distillation.batch")
        self.steps = settings.epochs * self.source.steps_per_epoch
        self.update = Update(student, settings, ALONE)

    def step(self, index: int) -> Statistics:
        """Lower the divergence of one batch; see `run.Stage`."""
        self.student.train()
        loss = divergence(self.student, self.template, self.source.batch(index)).mean()
        loss.backward()
        s = self.settings
        lr = cosine(index, self.steps, s.lr, s.warmup, s.final_lr)
        return {"loss": loss.item(), "gradient_norm": self.update.apply(lr), "lr": lr}

    @torch.no_grad()
    def evaluate(self) -> Statistics:
        """Measure the divergence a token on held-out answers; see `run.Stage`."""
        self.student.eval()
        parts = [
            divergence(self.student, self.template, self.validation[i : i + AT_ONCE])
            for i in range(0, len(self.validation), AT_ONCE)
        ]
        return {"kl": torch.cat(parts).mean().item()}

    def state_dict(self) -> dict[str, Any]:
        """Return weights and moments; see `run.Stage`."""
        return {"student": self.student.state_dict(), "optimizer": self.update.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state; see `run.Stage`."""
        self.student.load_state_dict(state["student"])
        self.update.load_state_dict(state["optimizer"])


def divergence(student: GPT, template: Template, stored: Sequence[Stored]) -> torch.Tensor:
    """Return KL(teacher‖student) of each token of some stored answers, [token]."""
    logits, mask = response_logits(
        student, template, [s.prompt for s in stored], [s.response for s in stored]
    )
    ids = torch.cat([s.ids for s in stored])  # the order of the mask's rows: row by row
    return context_distillation(logits[mask], ids, torch.cat([s.log_probs for s in stored]))
