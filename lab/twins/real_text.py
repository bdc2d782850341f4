"""Real input for the twins: what flows through a decoder block over real text.

Random normal numbers are kind to kernels. Text repeats: equal bytes give equal rows, scores tie,
and the norms see the same vector again and again. By default the text is the documentation that
ships with every Python (`pydoc_data.topics`), so nothing is downloaded.
"""

import functools
import math
from pathlib import Path

import numpy as np

from ...core.checks import refuse
from ...core.layers.layer_norm import layer_norm
from ...core.layers.softmax import softmax

TIME, D_MODEL, N_HEAD, N_BYTES = 48, 96, 4, 256


def read_text(path: str | None) -> bytes:
    """Return the bytes of a text file, at least `TIME`, or of the documentation of Python."""
    if path is None:
        from pydoc_data.topics import topics

        return "\n".join(topics[name] for name in sorted(topics)).encode()
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        refuse("text", "a file that can be read", f"{path}: {error.strerror}")
    if len(text) < TIME:
        refuse("text", f"a file of at least {TIME} bytes", f"{path} of {len(text)} bytes")
    return text


@functools.cache
def activations(path: str | None = None, seed: int = 0) -> dict[str, np.ndarray]:
    """Run one pre-norm decoder block in NumPy over a window of the text and keep everything.

    Weights are random (unit-variance activations); the tokens are the text's bytes. Returned are
    float64 arrays by name: `tokens` [1, time], `embedded` and the other residual states [1, time,
    d_model], `scores` [1, head, time, time] before scaling and `scale`, `up` [1, time, 4·d_model]
    before its GELU, and every weight.
    """
    text = read_text(path)
    rng = np.random.default_rng(seed)

    def weight(*shape: int) -> np.ndarray:
        return rng.normal(0, 1 / math.sqrt(shape[0]), shape)

    a: dict[str, np.ndarray] = {}
    start = int(rng.integers(0, len(text) - TIME + 1))
    a["tokens"] = np.frombuffer(text, np.uint8)[None, start : start + TIME].astype(np.int64)
    a["token_table"] = rng.normal(size=(N_BYTES, D_MODEL))
    a["position_table"] = rng.normal(size=(TIME, D_MODEL)) / 4
    a["embedded"] = a["token_table"][a["tokens"]] + a["position_table"]  # [1, time, d_model]

    a["norm_weight"], a["norm_bias"] = 1 + weight(D_MODEL), weight(D_MODEL)
    a["normed"] = _norm(a, "embedded")
    a["w_qkv"], a["b_qkv"] = weight(D_MODEL, 3 * D_MODEL), weight(3 * D_MODEL)
    qkv = a["normed"] @ a["w_qkv"] + a["b_qkv"]  # [1, time, 3 * d_model]
    # [1, time, 3 * d_model] -> 3 x [1, head, time, d_head]
    heads = qkv.reshape(1, TIME, 3, N_HEAD, D_MODEL // N_HEAD).transpose(2, 0, 3, 1, 4)
    a["query"], a["key"], a["value"] = heads
    a["scores"] = a["query"] @ a["key"].swapaxes(-1, -2)  # [1, head, time, time]
    a["scale"] = np.array(1 / math.sqrt(D_MODEL // N_HEAD))
    mixed = softmax(a["scores"], scale=a["scale"].item(), causal=True) @ a["value"]
    a["attended"] = mixed.swapaxes(1, 2).reshape(1, TIME, D_MODEL)

    a["w_out"], a["b_out"] = weight(D_MODEL, D_MODEL), weight(D_MODEL)
    a["projected"] = a["attended"] @ a["w_out"] + a["b_out"]
    a["residual"] = a["embedded"] + a["projected"]
    a["w_up"], a["b_up"] = weight(D_MODEL, 4 * D_MODEL), weight(4 * D_MODEL)
    a["up"] = _norm(a, "residual") @ a["w_up"] + a["b_up"]
    return a


def _norm(a: dict[str, np.ndarray], name: str) -> np.ndarray:
    y = layer_norm(a[name], a["norm_weight"], a["norm_bias"])
    assert isinstance(y, np.ndarray)  # It is a pair only with a residual.
    return y
