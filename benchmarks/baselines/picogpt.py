"""GPT-2 in a page of NumPy, the way picoGPT does it (github.com/jaymody/picoGPT).

One sequence at a time, one head at a time, and for every new token a full forward pass over all
tokens so far: no cache. Written from its description.

Its √(2/π) is a NumPy scalar, and under NumPy 2 that promotes a float32 model to float64 from the
first GELU on, weights included: several times slower. `generate` does it that way, as whoever runs
picoGPT today gets it; ``keep_float32=True`` leaves the slip out and shows the method alone.
"""

import math
from typing import Any

import numpy as np

Parameters = dict[str, np.ndarray]


def gelu(x: np.ndarray, root: Any) -> np.ndarray:
    """Apply GELU in its tanh form; `root` is √(2/π), in the type that x is promoted to."""
    return 0.5 * x * (1 + np.tanh(root * (x + 0.044715 * x**3)))


def softmax(x: np.ndarray) -> np.ndarray:
    """Normalise the last axis to probabilities."""
    exponents = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def layer_norm(x: np.ndarray, p: Parameters, name: str) -> np.ndarray:
    """Normalise each row."""
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return p[f"{name}.weight"] * (x - mean) / np.sqrt(variance + 1e-5) + p[f"{name}.bias"]


def linear(x: np.ndarray, p: Parameters, name: str) -> np.ndarray:
    """Project each row."""
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def attend(query: np.ndarray, key: np.ndarray, value: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Attend with one head, all [time, d_head]."""
    return softmax(query @ key.T / math.sqrt(query.shape[-1]) + mask) @ value


def attention(x: np.ndarray, p: Parameters, name: str, n_head: int) -> np.ndarray:
    """Attend with all heads, each position to those before it."""
    parts = np.split(linear(x, p, f"{name}.c_attn"), 3, axis=-1)
    heads = zip(*(np.split(part, n_head, axis=-1) for part in parts), strict=True)
    mask = (1 - np.tri(len(x), dtype=x.dtype)) * -1e10
    merged = np.hstack([attend(query, key, value, mask) for query, key, value in heads])
    return linear(merged, p, f"{name}.c_proj")


def block(x: np.ndarray, p: Parameters, name: str, n_head: int, root: Any) -> np.ndarray:
    """Run a pre-LN block on [time, d_model]."""
    x = x + attention(layer_norm(x, p, f"{name}.ln_1"), p, f"{name}.attn", n_head)
    hidden = gelu(linear(layer_norm(x, p, f"{name}.ln_2"), p, f"{name}.mlp.c_fc"), root)
    return x + linear(hidden, p, f"{name}.mlp.c_proj")


def gpt2(
    tokens: list[int], p: Parameters, n_layer: int, n_head: int, *, keep_float32: bool = False
) -> np.ndarray:
    """Return the logits [time, vocab_size] of all positions."""
    root = math.sqrt(2 / math.pi) if keep_float32 else np.sqrt(2 / np.pi)
    x = p["wte.weight"][tokens] + p["wpe.weight"][: len(tokens)]
    for layer in range(n_layer):
        x = block(x, p, f"h.{layer}", n_head, root)
    return layer_norm(x, p, "ln_f") @ p["wte.weight"].T


def generate(
    tokens: list[int],
    p: Parameters,
    n_layer: int,
    n_head: int,
    *,
    max_new_tokens: int,
    keep_float32: bool = False,
) -> list[int]:
    """Return the most likely next tokens, each from a forward pass over all before it."""
    tokens = list(tokens)
    for _ in range(max_new_tokens):
        logits = gpt2(tokens, p, n_layer, n_head, keep_float32=keep_float32)
        tokens.append(int(logits[-1].argmax()))
    return tokens[len(tokens) - max_new_tokens :]
