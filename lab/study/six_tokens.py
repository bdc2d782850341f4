"""One answer of six tokens, every number of PPO beside it, and sliders for β, γ, λ and ε.

The page computes in JavaScript. What the reference (core/rlhf) computes at the sliders' first
places is embedded, and the page compares: `data-agrees` says whether all of it is equal.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ...core.rlhf.gae import gae
from ...core.rlhf.ppo_loss import ppo_loss_forward
from ...core.rlhf.token_rewards import token_rewards

WORDS = ("The", "answer", "is", "forty", "two", "<end>")
OLD = np.log([[0.50, 0.40, 0.60, 0.30, 0.80, 0.90]])  # when the answer was drawn
REFERENCE = np.log([[0.50, 0.50, 0.70, 0.20, 0.60, 0.90]])
NEW = np.log([[0.40, 0.55, 0.60, 0.40, 0.85, 0.90]])  # after some steps
VALUES = np.array([[0.20, 0.25, 0.30, 0.10, 0.60, 0.80]])
SCORE = np.array([1.0])
FIRST = {"beta": 0.1, "gamma": 1.0, "lam": 0.95, "eps": 0.2}
SCRIPT = Path(__file__).parent / "static/six_tokens.js"


def expected() -> dict[str, list[float]]:
    """Compute each row of the table with the reference, at the sliders' first places.

    Returns
    -------
    dict
        Each row's six numbers.
    """
    mask = np.ones_like(OLD, dtype=bool)
    rewards = token_rewards(OLD, REFERENCE, SCORE, mask, beta=FIRST["beta"])
    advantages, returns = gae(rewards, VALUES, mask, gamma=FIRST["gamma"], lam=FIRST["lam"])
    losses = []
    for t in range(len(WORDS)):  # each token's loss is the mean over a mask of it alone
        alone = np.zeros_like(mask)
        alone[0, t] = True
        results, _ = ppo_loss_forward(
            NEW, OLD, advantages, VALUES, VALUES, returns, np.zeros_like(OLD), alone,
            clip=FIRST["eps"],
        )  # fmt: skip
        losses.append(float(results.policy_loss))
    return {
        "reward": rewards[0].tolist(),
        "advantage": advantages[0].tolist(),
        "return": returns[0].tolist(),
        "loss": losses,
    }


def figure() -> str:
    """Give the figure as HTML.

    Returns
    -------
    str
    """
    data: dict[str, Any] = {
        "words": WORDS,
        "old": OLD[0].tolist(),
        "reference": REFERENCE[0].tolist(),
        "new": NEW[0].tolist(),
        "values": VALUES[0].tolist(),
        "score": float(SCORE[0]),
        "first": FIRST,
        "expected": expected(),
    }
    script = SCRIPT.read_text(encoding="utf-8").replace("/* DATA */ null", json.dumps(data))
    return f'<div id="figure-six-tokens" class="six-tokens"></div>\n<script>{script}</script>'
