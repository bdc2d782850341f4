"""The list of twins. Everything else in lab/ and benchmarks/ walks it."""

from .attention import TWINS as ATTENTION
from .block import TWINS as BLOCK
from .decoding import TWINS as DECODING
from .embedding import TWINS as EMBEDDING
from .layers import TWINS as LAYERS
from .ppo import TWINS as PPO
from .preferences import TWINS as PREFERENCES
from .qkv import TWINS as QKV
from .rollout import TWINS as ROLLOUT
from .sampling import TWINS as SAMPLING
from .training import TWINS as TRAINING
from .twin import Twin

TWINS: dict[str, Twin] = {
    twin.name: twin
    for twin in (
        *LAYERS,
        *ATTENTION,
        *BLOCK,
        *DECODING,
        *EMBEDDING,
        *PPO,
        *PREFERENCES,
        *QKV,
        *ROLLOUT,
        *SAMPLING,
        *TRAINING,
    )
}
