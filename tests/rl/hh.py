"""Rows in the format of Anthropic's HH: two transcripts that begin alike, one of them preferred."""

import json
from random import Random

TEXT = "how do I can you make a cake of the red car please tell me why it is so not now"
WORDS = TEXT.split()


def said(rng, n):
    return " ".join(rng.choice(WORDS) for _ in range(n))


def rows(n=200, seed=0):
    """Some of several turns, every 20th far too long, and the 7th broken."""
    rng = Random(seed)
    lines = []
    for i in range(1, n + 1):
        prompt = f"\n\nHuman: {said(rng, 90 if i % 20 == 0 else 4)}"
        for _ in range(rng.randrange(2)):
            prompt += f"\n\nAssistant: {said(rng, 3)}\n\nHuman: {said(rng, 3)}"
        pair = {
            name: f"{prompt}\n\nAssistant: {said(rng, 3)} {name}" for name in ("chosen", "rejected")
        }
        line = json.dumps(pair)
        lines.append(line[: len(line) // 2] if i == 7 else line)
    return "\n".join(lines) + "\n"
