"""gae: advantages, from the last token to the first.

delta[t] = reward[t] + gamma * value[t + 1] - value[t], and behind the last token the value is 0;
advantage[t] = delta[t] + gamma * lambda * advantage[t + 1]. Each answer has its own length;
behind it advantages are 0. One program walks over one answer.
"""

import torch
import triton
import triton.language as tl


@triton.jit
def gae_kernel(reward_ptr, value_ptr, length_ptr, advantage_ptr, n_tokens, gamma, lam):
    row = tl.program_id(0)
    length = tl.load(length_ptr + row)
    advantage = 0.0
    next_value = 0.0
    for step in range(0, n_tokens):
        t = n_tokens - 1 - step
        at = row * n_tokens + t
        # hole 1: `advantage` and `next_value` after token t, which counts only if t < length
        inside = t < length
        value = tl.load(value_ptr + at)
        delta = tl.load(reward_ptr + at) + gamma * next_value - value
        advantage = tl.where(inside, delta + gamma * lam * advantage, 0.0)
        next_value = tl.where(inside, value, 0.0)
        # end
        tl.store(advantage_ptr + at, advantage)


def solve(reward: torch.Tensor, value: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """Give the advantages, [n_answers, n_tokens], with gamma 0.9 and lambda 0.8."""
    n_answers, n_tokens = reward.shape
    advantage = torch.empty_like(reward)
    gae_kernel[(n_answers,)](reward, value, length, advantage, n_tokens, 0.9, 0.8)
    return advantage


# --- The grader's part: a student does not see it. ---
from typing import Any

from ..exercise import Exercise, Mistake, Tensors, Wrong


def _draw(case: tuple[int, int], seeded: Any) -> Tensors:
    reward, value = torch.randn(2, *case, generator=seeded, dtype=torch.float64)
    length = torch.randint(1, case[1], (case[0],), generator=seeded)
    length[0] = case[1]
    return {"reward": reward, "value": value, "length": length}


def _gae(
    reward: torch.Tensor, value: torch.Tensor, length: torch.Tensor,
    *, gamma: float = 0.9, lam: float = 0.8, ends: bool = True, beyond: bool = False,
) -> torch.Tensor:  # fmt: skip
    advantages = torch.zeros_like(reward)
    for row in range(len(reward)):
        n = int(length[row]) if ends else reward.shape[1]
        advantage = torch.zeros((), dtype=reward.dtype)
        for t in reversed(range(n)):
            is_last = t + 1 == (reward.shape[1] if beyond else n)
            following = 0.0 if is_last else value[row, t + 1]
            advantage = reward[row, t] + gamma * following - value[row, t] + gamma * lam * advantage
            advantages[row, t] = advantage
    return advantages


EXERCISE = Exercise(
    level=3,
    draw=_draw,
    cases=((2, 4), (3, 9)),
    reference=_gae,
    results=("advantage",),
    hints=(
        "The loop runs backwards: what comes later is known already.",
        "Tokens behind an answer's length are padding: nothing of them may reach the answer.",
        "When the loop steps into the answer, advantage and next_value must both be 0.",
    ),
    mistakes=(
        Mistake(
            "padding behind the answer takes part: `length` is not looked at",
            lambda **t: _gae(**t, ends=False),
        ),
        Mistake(
            "the last token counts the value of padding: behind an answer's end the value is 0",
            lambda **t: _gae(**t, beyond=True),
        ),
        Mistake("lambda is missing", lambda **t: _gae(**t, lam=1.0)),
        Mistake("gamma is missing", lambda **t: _gae(**t, gamma=1.0)),
        Mistake(
            "these are the deltas alone: later ones are not added", lambda **t: _gae(**t, lam=0.0)
        ),
    ),
    wrong=(
        Wrong({"inside = t < length": "inside = t < n_tokens"}, "is not looked at"),
        Wrong(
            {"next_value = tl.where(inside, value, 0.0)": "next_value = value"}, "value of padding"
        ),
        Wrong({"gamma * lam * advantage": "gamma * advantage"}, "lambda is missing"),
        Wrong({"delta + gamma * lam * advantage": "delta"}, "the deltas alone"),
        Wrong({"inside = t < length": "inside = t <= length"}, "wrote it at line"),
    ),
    dtypes=("float32",),
)
