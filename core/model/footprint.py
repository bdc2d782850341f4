"""What a model takes of a machine's memory: in training, and as a cache of keys and values."""

from typing import NamedTuple

from .presets import GPTConfig, parameter_count


def kv_cache_bytes(
    config: GPTConfig, batch: int = 1, time: int | None = None, *, itemsize: int = 2
) -> int:
    """Count the bytes that the keys and values of a batch take: 2·L·batch·T·A numbers.

    Parameters
    ----------
    config : GPTConfig
    batch : int
        Sequences.
    time : int, optional
        Positions held; the whole context if left out.
    itemsize : int
        Bytes per number: 2 for bfloat16, 4 for float32.

    Returns
    -------
    int
    """
    time = config.n_ctx if time is None else time
    return 2 * config.n_layer * batch * time * config.d_attention * itemsize


class TrainingMemory(NamedTuple):
    """Bytes that training takes, by what they hold."""

    parameters: int
    gradients: int
    moments: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """Their sum."""
        return sum(self)


def training_memory(
    config: GPTConfig,
    batch: int = 1,
    time: int | None = None,
    *,
    itemsize: int = 4,
    moment_itemsize: int = 4,
    fused_loss: bool = True,
) -> TrainingMemory:
    """Estimate the bytes that a training step holds at once, when its forward pass has ended.

    Parameters, gradients and AdamW's two moments are exact. Per token a block keeps for its
    backward pass: both norms' normalised rows and results (4C), queries, keys, values and their
    output (4A), one log-sum-exp per head, and GELU's input and output (8C): together

        12·C + 4·A + n_head

    numbers, and no T² of them, since attention is computed again from its log-sum-exp. To these
    come the final norm's rows and result (2C), and, unless the loss is fused, the logits (V).

    Parameters
    ----------
    config : GPTConfig
    batch : int
        Sequences.
    time : int, optional
        Tokens of each; the whole context if left out.
    itemsize : int
        Bytes per parameter, gradient and activation.
    moment_itemsize : int
        Bytes per moment.
    fused_loss : bool
        Whether hidden states go to the loss without logits in memory.

    Returns
    -------
    TrainingMemory
    """
    tokens = batch * (config.n_ctx if time is None else time)
    n = parameter_count(config)
    c, a = config.d_model, config.d_attention
    per_token = config.n_layer * (12 * c + 4 * a + config.n_head)
    if config.final_norm:
        per_token += 2 * c
    return TrainingMemory(
        parameters=n * itemsize,
        gradients=n * itemsize,
        moments=2 * n * moment_itemsize,
        activations=tokens * per_token * itemsize,
        logits=0 if fused_loss else tokens * config.vocab_size * itemsize,
    )
