"""The GPT models: embeddings, decoder blocks, a final norm, and the token table again.

    x = wte[tokens] + wpe[positions]                      [batch, time, d_model]
    x = block_l(x) for every layer l
    hidden = ln_f(x)                                      GPT-1, post-LN, has no final norm
    logits = hidden wteᵀ                                  [batch, time, vocab_size]

GPT-1 (Radford et al. 2018), GPT-2 (Radford et al. 2019) and GPT-3 (Brown et al. 2020, arXiv
2005.14165) are this with other sizes: see `presets`. With ``causal=False`` the same code is an
encoder, the contrast: there every position sees every other.

A model is a dict from name to array, as in `parameters`. The loss is computed straight from hidden
states, by `cross_entropy`. The token table is used twice, and its gradient is the sum of both uses.

Sequences of unequal length are padded on the left: `key_start` says where each begins. Padding is
seen by nobody, and positions count from there, so that it changes nothing but the shape.
"""

from typing import Any, NamedTuple

import numpy as np

from ..checks import expect_integers, expect_shape, refuse, signed
from ..language.cross_entropy import cross_entropy_backward, cross_entropy_forward
from ..layers.embedding import embedding_backward, embedding_forward
from ..layers.layer_norm import layer_norm_backward
from ..layers.linear import linear_backward, linear_forward
from ..operation import at_least_float32, value_of
from ..optimizer.adamw import adamw
from .branches import norm_forward
from .decoder_block import decoder_block_backward, decoder_block_forward
from .parameters import (
    Parameters,
    block_names,
    block_parameters,
    check_parameters,
    output_matrix,
)
from .presets import GPTConfig

Saved = tuple[Any, ...]


@at_least_float32
def gpt_forward(
    parameters: Parameters,
    tokens: np.ndarray,
    config: GPTConfig,
    *,
    key_start: np.ndarray | None = None,
    positions: np.ndarray | None = None,
    cu_seqlens: np.ndarray | None = None,
) -> tuple[np.ndarray, Saved]:
    """Compute the logits of every position.

    Parameters
    ----------
    parameters : dict of str to numpy.ndarray
        Named and shaped as `parameter_shapes` says.
    tokens : numpy.ndarray of int [batch, time]
        Ids from 0 to vocab_size − 1; at most n_ctx of them in a row.
    config : GPTConfig
    key_start : numpy.ndarray of int [batch], optional
        Tokens before it are left padding.
    positions : numpy.ndarray of int [batch, time], optional
        Rows of the position table; counted from the sequence's first token if left out.
    cu_seqlens : numpy.ndarray of int [n_documents + 1], optional
        Boundaries of documents packed on the time axis, as in `attention`.

    Returns
    -------
    logits : numpy.ndarray [batch, time, vocab_size]
        Row t scores the token that follows tokens[:, t].
    saved : tuple
        For `gpt_backward`.

    Raises
    ------
    ValueError
        If a parameter, a token or an option is wrong.
    """
    hidden, hidden_saved = hidden_forward(
        parameters, tokens, config,
        key_start=key_start, positions=positions, cu_seqlens=cu_seqlens,
    )  # fmt: skip
    logits, head_saved = linear_forward(hidden, output_matrix(parameters))
    return logits, (hidden_saved, head_saved)


gpt = value_of(gpt_forward)


@at_least_float32
def gpt_backward(saved: Saved, d_logits: np.ndarray) -> Parameters:
    """Carry the gradient from the logits back to every parameter.

    Parameters
    ----------
    saved : tuple
        From `gpt_forward`.
    d_logits : numpy.ndarray [batch, time, vocab_size]
        Gradient of the loss with respect to the logits.

    Returns
    -------
    dict of str to numpy.ndarray
        A gradient for each parameter, shaped like it.
    """
    hidden_saved, head_saved = saved
    d_hidden, d_output_matrix, _, _ = linear_backward(head_saved, d_logits)
    return hidden_backward(hidden_saved, d_hidden, d_output_matrix)


class TrainState(NamedTuple):
    """What AdamW remembers between steps.

    Attributes
    ----------
    step : int
        Updates so far.
    first_moments, second_moments : dict of str to numpy.ndarray
        Shaped like the parameters.
    """

    step: int
    first_moments: Parameters
    second_moments: Parameters


def init_state(parameters: Parameters) -> TrainState:
    """Return the state before the first step: moments of 0, in float32 or float64."""

    def zeros(p: np.ndarray) -> np.ndarray:
        return np.zeros(p.shape, np.promote_types(p.dtype, np.float32))

    first, second = ({name: zeros(p) for name, p in parameters.items()} for _ in range(2))
    return TrainState(0, first, second)


def train_step(
    parameters: Parameters,
    state: TrainState,
    tokens: np.ndarray,
    targets: np.ndarray,
    config: GPTConfig,
    *,
    lr: float,
    weight_decay: float = 0.0,
    **options: Any,
) -> tuple[np.ndarray, np.ndarray, Parameters, TrainState]:
    """Take one step of AdamW on the mean cross-entropy; nothing given is changed.

    Parameters
    ----------
    parameters, tokens, targets, config
        As in `loss_and_gradients`.
    state : TrainState
        From `init_state`, or the step before.
    lr : float
        Learning rate.
    weight_decay : float
        Of matrices; biases and norms are not decayed.
    **options
        `betas`, `eps`, `max_norm` and `epsilon`, as in `adamw`.

    Returns
    -------
    loss : numpy.ndarray []
        Before the step.
    gradient_norm : numpy.ndarray []
        Over all parameters, before clipping.
    parameters : dict of str to numpy.ndarray
        After the step.
    state : TrainState

    Raises
    ------
    ValueError
        As in `loss_and_gradients` and `adamw`.
    """
    loss, gradients = loss_and_gradients(parameters, tokens, targets, config)
    updated = adamw(
        *([each[name] for name in parameters] for each in (parameters, gradients, *state[1:])),
        step=state.step + 1,
        lr=lr,
        weight_decay=[weight_decay if p.ndim > 1 else 0.0 for p in parameters.values()],
        **options,
    )
    new, first, second = (dict(zip(parameters, each, strict=True)) for each in updated[:3])
    return loss, updated.gradient_norm, new, TrainState(state.step + 1, first, second)


@at_least_float32
def loss_and_gradients(
    parameters: Parameters,
    tokens: np.ndarray,
    targets: np.ndarray,
    config: GPTConfig,
    *,
    ignore_index: int = -100,
    **options: Any,
) -> tuple[np.ndarray, Parameters]:
    """Compute the mean cross-entropy of the targets and its gradient for every parameter.

    Parameters
    ----------
    parameters, tokens, config
        As in `gpt`.
    targets : numpy.ndarray of int [batch, time]
        The token that follows each token.
    ignore_index : int
        The target of a position that does not count.
    **options
        `key_start`, `positions` and `cu_seqlens`, as in `gpt`.

    Returns
    -------
    loss : numpy.ndarray []
        Mean over the positions that count, in nats; 0 if there are none.
    gradients : dict of str to numpy.ndarray
        Shaped like the parameters.

    Raises
    ------
    ValueError
        As in `gpt`, or if `targets` is not shaped like `tokens` or holds an id out of range.
    """
    hidden, saved = hidden_forward(parameters, tokens, config, **options)
    expect_shape("targets", targets, tokens.shape, "one target for each token")
    rows = hidden.reshape(-1, config.d_model)  # [batch, time, d_model] -> [token, d_model]
    (loss, _, _), loss_saved = cross_entropy_forward(
        rows, output_matrix(parameters), targets.reshape(-1), ignore_index=ignore_index
    )
    nothing = np.zeros(len(rows), loss.dtype)  # The log-probabilities and entropies are in no loss.
    d_rows, d_output_matrix = cross_entropy_backward(
        loss_saved, np.ones((), loss.dtype), nothing, nothing
    )
    return loss, hidden_backward(saved, d_rows.reshape(hidden.shape), d_output_matrix)


# --- the trunk: from tokens to hidden states -------------------------------------------------


@at_least_float32
def hidden_forward(
    parameters: Parameters,
    tokens: np.ndarray,
    config: GPTConfig,
    *,
    key_start: np.ndarray | None = None,
    positions: np.ndarray | None = None,
    cu_seqlens: np.ndarray | None = None,
) -> tuple[np.ndarray, Saved]:
    """Compute the hidden states [batch, time, d_model] that the logits are read from."""
    check_parameters(parameters, config)
    check_tokens(tokens, config)
    if positions is None:
        positions = count_positions(*tokens.shape, key_start=key_start, cu_seqlens=cu_seqlens)
    x, embedding_saved = embedding_forward(
        tokens, parameters["wte.weight"], parameters["wpe.weight"], positions=positions
    )
    blocks_saved = []
    for layer in range(config.n_layer):
        x, block_saved = decoder_block_forward(
            x, *block_parameters(parameters, layer), n_head=config.n_head, norm=config.norm,
            causal=config.causal, window=config.window(layer), key_start=key_start,
            cu_seqlens=cu_seqlens, eps=config.eps,
        )  # fmt: skip
        blocks_saved.append(block_saved)
    hidden, final_saved = final_norm(parameters, x, config)
    return hidden, (parameters.keys(), embedding_saved, blocks_saved, final_saved)


@at_least_float32
def hidden_backward(
    saved: Saved, d_hidden: np.ndarray, d_output_matrix: np.ndarray | None = None
) -> Parameters:
    """Carry the gradient from the hidden states back to every parameter.

    `d_output_matrix` [d_model, vocab_size] is the gradient of `output_matrix`, if the hidden states
    went through it. The result has no ``lm_head.weight`` if nothing went through it.
    """
    names, embedding_saved, blocks_saved, final_saved = saved
    gradients: dict[str, Any] = {}
    d_x = d_hidden
    if final_saved is not None:
        d_x, *d_norm, _ = layer_norm_backward(final_saved, d_x)
        gradients |= zip(("ln_f.weight", "ln_f.bias"), d_norm, strict=True)
    for layer, block_saved in reversed(list(enumerate(blocks_saved))):
        d_x, *d_block = decoder_block_backward(block_saved, d_x)
        gradients |= zip(block_names(layer), d_block, strict=True)
    gradients |= zip(
        ("wte.weight", "wpe.weight"), embedding_backward(embedding_saved, d_x), strict=True
    )
    if d_output_matrix is not None and "lm_head.weight" in names:
        gradients["lm_head.weight"] = d_output_matrix.T
    elif d_output_matrix is not None:
        gradients["wte.weight"] = gradients["wte.weight"] + d_output_matrix.T  # It is used twice.
    # They come in the parameters' order, without the biases that the model has not.
    return {name: gradients[name] for name in names if name in gradients}


def final_norm(
    parameters: Parameters, x: np.ndarray, config: GPTConfig
) -> tuple[np.ndarray, Saved | None]:
    """Apply the norm after the last block, if the model has one."""
    if not config.final_norm:
        return x, None
    weight, bias = parameters["ln_f.weight"], parameters.get("ln_f.bias")
    return norm_forward(x, weight, bias, eps=config.eps)


def count_positions(
    batch: int,
    time: int,
    *,
    key_start: np.ndarray | None = None,
    cu_seqlens: np.ndarray | None = None,
) -> np.ndarray:
    """Count each token's position from the start of its sequence or document; 0 for padding."""
    index = np.arange(time)
    first = np.zeros((batch, 1), dtype=np.int64)
    if cu_seqlens is not None:
        document = np.searchsorted(cu_seqlens, index, side="right") - 1
        first = first + signed(np.asarray(cu_seqlens))[document]  # [batch, time]
    if key_start is not None:
        first = np.maximum(first, signed(key_start)[:, None])
    return np.maximum(index - first, 0)


def check_tokens(tokens: Any, config: GPTConfig) -> None:
    """Refuse tokens that are no batch of sequences, or sequences longer than the context.

    That every id is in the vocabulary is `embedding`'s to check.
    """
    if len(tokens.shape) != 2:
        refuse("tokens", "2 dimensions [batch, time]", f"shape {tuple(tokens.shape)}")
    expect_integers(tokens=tokens)
    if tokens.shape[1] > config.n_ctx:
        refuse(
            "tokens",
            f"at most n_ctx = {config.n_ctx} of them in a row",
            str(tokens.shape[1]),
            "a text longer than the context",
        )
