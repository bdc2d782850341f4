"""Operators for one GPU."""

from .argmax import argmax
from .attention import attention
from .count import count
from .dropout import seeded_dropout
from .gelu import gelu
from .matmul import matmul
from .optimizer import FusedSGD
from .pool import MaxPool
from .prefix import prefix_sum
from .quantize import quantize
from .rms_norm import FastRMSNorm, rms_norm
from .rope import rotate
from .softmax import softmax
from .transpose import transpose

__all__ = [
    "FastRMSNorm", "FusedSGD", "MaxPool", "argmax", "attention", "count", "gelu", "matmul",
    "prefix_sum", "quantize", "rms_norm", "rotate", "seeded_dropout", "softmax", "transpose",
]  # fmt: skip
