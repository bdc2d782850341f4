"""Generation: one token after another, with a cache of keys and values.

A position's keys and values never change once computed, for it sees nothing that comes after it.
So a new token costs one row through every matrix, and attention of one query to the cache:

    prefill   all tokens of the prompts at once      [batch, time] -> logits of the last
    decode    one new token of each sequence         [batch, 1]    -> logits

Both are `extend`: the same blocks, reading what came before from the cache. Without a cache every
token would cost a forward pass over all before it.

Prompts of unequal length are padded on the left, so that all end, and go on, at the same position:

    · · a b c | d e          key_start = 2: positions count from a, and padding is seen by nobody
    a b c d e | f g          key_start = 0
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..attention.decode_attention import decode_attention
from ..checks import expect_positive, refuse
from ..language.sampling import sampling
from ..layers.embedding import embedding
from ..layers.linear import linear
from ..operation import at_least_float32
from .decoder_block import run_block
from .gpt import final_norm
from .parameters import (
    Parameters,
    block_parameters,
    check_parameters,
    output_matrix,
)
from .presets import GPTConfig


class KVCache:
    """Keys and values of every layer, and how much of them is filled.

    Parameters
    ----------
    config : GPTConfig
    key_start : numpy.ndarray of int [batch]
        Padding before each sequence.
    capacity : int
        Positions that there is room for.
    dtype : NumPy dtype
        The model's; float32 for a model that is stored in float16.

    Attributes
    ----------
    keys, values : numpy.ndarray [layer, batch, head, capacity, d_head]
    length : int
        Positions filled, padding included.
    """

    def __init__(self, config: GPTConfig, key_start: np.ndarray, capacity: int, dtype: Any) -> None:
        shape = (config.n_layer, len(key_start), config.n_head, capacity, config.d_head)
        dtype = np.promote_types(dtype, np.float32)
        self.keys, self.values = np.zeros(shape, dtype), np.zeros(shape, dtype)
        self.key_start, self.length = key_start, 0

    def attend(
        self, layer: int, window: int | None, query: np.ndarray, key: np.ndarray, value: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Add new keys and values behind those of a layer, and let their queries see all.

        `length` stays: it is the same for all layers, and whoever runs them moves it on.
        """
        end = self.length + key.shape[2]
        self.keys[layer][:, :, self.length : end] = key
        self.values[layer][:, :, self.length : end] = value
        return decode_attention(
            query, self.keys[layer][:, :, :end], self.values[layer][:, :, :end],
            np.full(len(query), end), window=window, key_start=self.key_start,
        )  # fmt: skip


@at_least_float32
def extend(
    parameters: Parameters, tokens: np.ndarray, config: GPTConfig, cache: KVCache
) -> np.ndarray:
    """Run new tokens behind those in the cache, and add them to it.

    Parameters
    ----------
    parameters : dict of str to numpy.ndarray
        The model, checked.
    tokens : numpy.ndarray of int [batch, new]
        They follow what the cache holds.
    config : GPTConfig
    cache : KVCache
        Changed.

    Returns
    -------
    numpy.ndarray [batch, vocab_size]
        The logits of the last position: they score the token that follows.

    Raises
    ------
    ValueError
        If an id is out of range.
    """
    index = cache.length + np.arange(tokens.shape[1])
    positions = np.maximum(index - cache.key_start[:, None], 0)  # [batch, new]; 0 for padding
    x = embedding(tokens, parameters["wte.weight"], parameters["wpe.weight"], positions=positions)
    for layer in range(config.n_layer):

        def attend(*qkv: np.ndarray, layer: int = layer) -> tuple[Any, None]:
            return cache.attend(layer, config.window(layer), *qkv), None

        x, _ = run_block(
            x, block_parameters(parameters, layer), attend, config.n_head, config.norm, config.eps
        )
    cache.length += tokens.shape[1]
    last, _ = final_norm(parameters, x[:, -1], config)  # [batch, d_model]
    return linear(last, output_matrix(parameters))


@at_least_float32
def generate(
    parameters: Parameters,
    config: GPTConfig,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_tokens: Sequence[int] = (),
    seed: int = 0,
) -> list[list[int]]:
    """Continue every prompt.

    Parameters
    ----------
    parameters : dict of str to numpy.ndarray
        The model.
    config : GPTConfig
    prompts : sequence of sequences of int
        At least one token each; lengths may differ.
    max_new_tokens : int
        The most to add to each.
    temperature, top_k, top_p
        As in `sampling`; a temperature of 0 takes the most likely token.
    stop_tokens : sequence of int
        A sequence ends after the first of these, which is still returned.
    seed : int
        Of `sampling`, whose counter is (row, step).

    Returns
    -------
    list of lists of int
        The new tokens of each prompt.

    Raises
    ------
    ValueError
        If a prompt is empty, or with what is to come does not fit into the context; and as in
        `gpt` and `sampling`.
    """
    check_parameters(parameters, config)
    tokens, key_start = pad_left(prompts)
    check_generate(tokens, config, max_new_tokens)
    dtype = parameters["wte.weight"].dtype
    cache = KVCache(config, key_start, tokens.shape[1] + max_new_tokens, dtype)
    new = np.zeros((len(tokens), 0), dtype=np.int64)
    ended = np.zeros(len(tokens), dtype=bool)
    while new.shape[1] < max_new_tokens and not ended.all():
        logits = extend(parameters, tokens, config, cache)
        chosen, _ = sampling(
            logits, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed,
            step=new.shape[1],
        )  # fmt: skip
        tokens = chosen[:, None]
        new = np.concatenate([new, tokens], axis=1)  # [batch, step + 1]
        ended = ended | np.isin(chosen, list(stop_tokens))
    return [until_stop(row, stop_tokens) for row in new.tolist()]


def until_stop(tokens: list[int], stop_tokens: Sequence[int]) -> list[int]:
    """Cut a sequence behind its first stop token: batchmates may have gone on longer."""
    for i, token in enumerate(tokens):
        if token in stop_tokens:
            return tokens[: i + 1]
    return tokens


def pad_left(prompts: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Lay prompts of unequal length side by side so that they end together.

    Parameters
    ----------
    prompts : sequence of sequences of int
        At least one token each.

    Returns
    -------
    tokens : numpy.ndarray of int [batch, time]
        Padded with token 0, which nobody sees.
    key_start : numpy.ndarray of int [batch]
        Padding before each.

    Raises
    ------
    ValueError
        If a prompt is empty.
    """
    lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
    for i in np.flatnonzero(lengths == 0)[:1]:
        refuse(f"prompts[{i}]", "at least one token", "none", "begin with <|endoftext|>")
    time = int(lengths.max(initial=0))
    tokens = np.zeros((len(lengths), time), dtype=np.int64)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[time - len(prompt) :] = prompt
    return tokens, time - lengths


def check_generate(tokens: Any, config: GPTConfig, max_new_tokens: int) -> None:
    """Refuse what does not fit into the context, and models that cannot generate."""
    if not config.causal:
        refuse("config", "a decoder", "causal=False", "an encoder: what it reads is not past")
    expect_positive("max_new_tokens", max_new_tokens)
    needed = tokens.shape[1] + max_new_tokens
    if needed > config.n_ctx:
        refuse(
            "max_new_tokens",
            f"at most n_ctx = {config.n_ctx} less the longest prompt, {tokens.shape[1]}",
            str(max_new_tokens),
            "a prompt that must be cut on its left",
        )
