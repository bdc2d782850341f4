"""Every operation in NumPy: what it means.

`gptwin.ops` holds the same operations under the same names, for PyTorch's tensors. With `<op>`
come, where it has them,

    result, saved = <op>_forward(…)         the value, and what its backward pass needs
    gradients     = <op>_backward(saved, …)     one for each argument, from those of the result

and, put together from them, a GPT: `gpt`, `generate`, and `train_step` with what it starts from.
Needs NumPy alone: PyTorch need not be installed.
"""

from .core.attention.attention import attention, attention_backward, attention_forward
from .core.attention.decode_attention import decode_attention, decode_attention_forward
from .core.attention.qkv_attention import (
    qkv_attention,
    qkv_attention_backward,
    qkv_attention_forward,
)
from .core.attention.qkv_projection import (
    qkv_projection,
    qkv_projection_backward,
    qkv_projection_forward,
)
from .core.language.cross_entropy import (
    cross_entropy,
    cross_entropy_backward,
    cross_entropy_forward,
)
from .core.language.director_scores import (
    director_scores,
    director_scores_backward,
    director_scores_forward,
)
from .core.language.sampling import sampling, sampling_forward
from .core.layers.embedding import embedding, embedding_backward, embedding_forward
from .core.layers.gelu import gelu, gelu_backward, gelu_forward
from .core.layers.layer_norm import layer_norm, layer_norm_backward, layer_norm_forward
from .core.layers.linear import linear, linear_backward, linear_forward
from .core.layers.softmax import softmax, softmax_backward, softmax_forward
from .core.model.decoder_block import (
    decoder_block,
    decoder_block_backward,
    decoder_block_forward,
)
from .core.model.generation import generate
from .core.model.gpt import gpt, gpt_backward, gpt_forward, init_state, train_step
from .core.model.parameters import init_parameters
from .core.optimizer.adamw import adamw
from .core.optimizer.ema import ema
from .core.rlhf.exact_kl import exact_kl, exact_kl_backward, exact_kl_forward
from .core.rlhf.gae import gae, gae_backward, gae_forward
from .core.rlhf.kl import kl, kl_backward, kl_forward
from .core.rlhf.linear_ppo_loss import (
    linear_ppo_loss,
    linear_ppo_loss_backward,
    linear_ppo_loss_forward,
)
from .core.rlhf.ppo_loss import ppo_loss, ppo_loss_backward, ppo_loss_forward
from .core.rlhf.reward_loss import reward_loss, reward_loss_backward, reward_loss_forward
from .core.rlhf.token_rewards import (
    token_rewards,
    token_rewards_backward,
    token_rewards_forward,
)
from .core.rlhf.whiten import whiten, whiten_backward, whiten_forward

__all__ = [
    "adamw",
    "attention", "attention_backward", "attention_forward",
    "cross_entropy", "cross_entropy_backward", "cross_entropy_forward",
    "decode_attention", "decode_attention_forward",
    "decoder_block", "decoder_block_backward", "decoder_block_forward",
    "director_scores", "director_scores_backward", "director_scores_forward",
    "ema",
    "embedding", "embedding_backward", "embedding_forward",
    "exact_kl", "exact_kl_backward", "exact_kl_forward",
    "gae", "gae_backward", "gae_forward",
    "gelu", "gelu_backward", "gelu_forward",
    "generate",
    "gpt", "gpt_backward", "gpt_forward",
    "init_parameters",
    "init_state",
    "kl", "kl_backward", "kl_forward",
    "layer_norm", "layer_norm_backward", "layer_norm_forward",
    "linear", "linear_backward", "linear_forward",
    "linear_ppo_loss", "linear_ppo_loss_backward", "linear_ppo_loss_forward",
    "ppo_loss", "ppo_loss_backward", "ppo_loss_forward",
    "qkv_attention", "qkv_attention_backward", "qkv_attention_forward",
    "qkv_projection", "qkv_projection_backward", "qkv_projection_forward",
    "reward_loss", "reward_loss_backward", "reward_loss_forward",
    "sampling", "sampling_forward",
    "softmax", "softmax_backward", "softmax_forward",
    "token_rewards", "token_rewards_backward", "token_rewards_forward",
    "train_step",
    "whiten", "whiten_backward", "whiten_forward",
]  # fmt: skip
