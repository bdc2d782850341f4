"""Every operation for PyTorch's tensors: Triton's kernels on CUDA, eager PyTorch on a CPU.

`gptwin.reference` holds the same operations under the same names, in NumPy. Each can be
differentiated, but for `sampling` and `decode_attention`, which only look, and `adamw` and `ema`,
which return what a step makes of their arguments. `GPTWIN_BACKEND=triton` or `eager` forces one;
with `TRITON_INTERPRET=1` the kernels run on a CPU, too.

Beside them: `token_log_probs` (of given tokens, the logits never held), `AdamW` (an optimizer in
place), `backend` (forces one for a while), `batch_invariant` (a row has the same bits in every
batch), `recording` (what was launched), `checking_finite` (whether the RLHF objective refuses NaN
and infinities, which costs a GPU time).
"""

from .kernels.attention.attention import attention
from .kernels.attention.decode_attention import decode_attention
from .kernels.attention.qkv_attention import qkv_attention
from .kernels.attention.qkv_projection import qkv_projection
from .kernels.common.finite import checking_finite
from .kernels.common.launch import backend, batch_invariant, recording
from .kernels.language.cross_entropy import cross_entropy, token_log_probs
from .kernels.language.director_scores import director_scores
from .kernels.language.sampling import sampling
from .kernels.layers.embedding import embedding
from .kernels.layers.gelu import gelu
from .kernels.layers.layer_norm import layer_norm
from .kernels.layers.linear import linear
from .kernels.layers.softmax import softmax
from .kernels.model.decoder_block import decoder_block
from .kernels.optimizer.adamw import AdamW, adamw
from .kernels.optimizer.ema import ema
from .kernels.rlhf.exact_kl import exact_kl
from .kernels.rlhf.gae import gae
from .kernels.rlhf.kl import kl
from .kernels.rlhf.linear_ppo_loss import linear_ppo_loss
from .kernels.rlhf.ppo_loss import ppo_loss
from .kernels.rlhf.reward_loss import reward_loss
from .kernels.rlhf.token_rewards import token_rewards
from .kernels.rlhf.whiten import whiten

__all__ = [
    "AdamW",
    "adamw",
    "attention",
    "backend",
    "batch_invariant",
    "checking_finite",
    "cross_entropy",
    "decode_attention",
    "decoder_block",
    "director_scores",
    "ema",
    "embedding",
    "exact_kl",
    "gae",
    "gelu",
    "kl",
    "layer_norm",
    "linear",
    "linear_ppo_loss",
    "ppo_loss",
    "qkv_attention",
    "qkv_projection",
    "recording",
    "reward_loss",
    "sampling",
    "softmax",
    "token_log_probs",
    "token_rewards",
    "whiten",
]
