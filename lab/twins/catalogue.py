"""The list of twins. Everything else in lab/ and benchmarks/ walks it."""

from .attention.attention import attention
from .attention.decode_attention import decode_attention
from .attention.qkv_attention import qkv_attention
from .attention.qkv_projection import qkv_projection
from .language.cross_entropy import cross_entropy
from .language.director_scores import director_scores
from .language.sampling import sampling
from .layers.embedding import embedding
from .layers.gelu import gelu
from .layers.layer_norm import layer_norm
from .layers.linear import linear
from .layers.softmax import softmax
from .model.decoder_block import decoder_block
from .optimizer.adamw import adamw
from .optimizer.ema import ema
from .rlhf.exact_kl import exact_kl
from .rlhf.gae import gae
from .rlhf.kl import kl
from .rlhf.linear_ppo_loss import linear_ppo_loss
from .rlhf.ppo_loss import ppo_loss
from .rlhf.reward_loss import reward_loss
from .rlhf.token_rewards import token_rewards
from .rlhf.whiten import whiten
from .twin import Twin

TWINS: dict[str, Twin] = {
    twin.name: twin
    for twin in (
        softmax, layer_norm, gelu, linear, embedding,
        attention, decode_attention, qkv_projection, qkv_attention,
        cross_entropy, director_scores, sampling,
        adamw, ema,
        reward_loss, kl, exact_kl, token_rewards, gae, whiten, ppo_loss, linear_ppo_loss,
        decoder_block,
    )
}  # fmt: skip
