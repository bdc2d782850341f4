"""The sizes that are measured: those of the twins' entries, and more that only benchmarks run.

What stands in an entry's `shapes` is compiled for four architectures in the tests; what stands here
is not. Every size is one that people run: GPT-2 from 124M to 1558M in training, a layer of GPT-3
13B, long contexts, and RLHF's rollouts (512 sequences) and updates (64 a minibatch).
"""

from typing import Any

from ....lab.twins.twin import Case, Twin

# d_model, heads of 64
GPT2 = {"355M": (1024, 16), "774M": (1280, 20), "1558M": (1600, 25)}
GPT3_13B = {"d_model": 5120, "heads": 40, "d_head": 128}

_TRAINING: dict[str, dict[str, Case]] = {
    "attention": {
        f"gpt2-{name} training": {
            "batch": 8, "head": heads, "queries": 1024, "d_head": 64, "causal": True,
        }
        for name, (_, heads) in GPT2.items()
    },
    "qkv_attention": {
        f"gpt2-{name} training": {
            "batch": 8, "time": 1024, "d_model": width, "n_kv_head": heads, "d_head": 64,
            "bias": True, "norm": True,
        }
        for name, (width, heads) in GPT2.items()
    },
    "qkv_projection": {
        f"gpt2-{name} training": {
            "batch": 8, "time": 1024, "d_model": width, "n_kv_head": heads, "d_head": 64,
            "bias": True, "norm": True,
        }
        for name, (width, heads) in GPT2.items()
    },
    "layer_norm": {
        f"gpt2-{name} training": {"shape": [8, 1024, width], "residual": True}
        for name, (width, _) in GPT2.items()
    },
    "linear": {
        f"gpt2-{name} mlp up": {
            "rows": 8192, "d_in": width, "d_out": 4 * width, "bias": True, "activation": "gelu",
        }
        for name, (width, _) in GPT2.items()
    },
    "gelu": {
        f"gpt2-{name} training": {"shape": [8, 1024, 4 * width]}
        for name, (width, _) in GPT2.items()
    },
    "decoder_block": {
        f"gpt2-{name} block": {
            "batch": 8, "time": 1024, "d_model": width, "n_head": heads, "d_head": 64,
        }
        for name, (width, heads) in GPT2.items()
    },
    "embedding": {
        f"gpt2-{name} training": {
            "shape": [8, 1024], "vocab": 50257, "n_ctx": 1024, "d_model": width,
        }
        for name, (width, _) in GPT2.items()
    },
    "cross_entropy": {
        f"gpt2-{name} training": {"tokens": 8192, "d_model": width, "vocab": 50257, "tied": True}
        for name, (width, _) in GPT2.items()
    },
    "adamw": {
        # The twelve blocks' matrices of one kind in one tensor: the entry takes four.
        "gpt2 124M, all matrices": {
            "shapes": [[50257, 768], [12 * 768, 2304], [12 * 768, 768], [12 * 768, 2 * 3072]],
        },
    },
}  # fmt: skip

_MORE: dict[str, dict[str, Case]] = {
    "attention": {
        f"{length // 1024}k, d_head {width}{', causal' if causal else ''}": {
            "batch": 16384 // length, "head": 2048 // width, "queries": length, "d_head": width,
            "causal": causal,
        }
        for length in (1024, 2048, 4096, 8192)
        for width in (64, 128)
        for causal in (False, True)
    } | {"16k, d_head 128": {"batch": 1, "head": 16, "queries": 16384, "d_head": 128}},
    "qkv_attention": {
        "gpt3-13b layer": {
            "batch": 1, "time": 2048, "d_model": GPT3_13B["d_model"],
            "n_kv_head": GPT3_13B["heads"], "d_head": GPT3_13B["d_head"], "bias": True,
            "norm": True,
        },
    },
    "decoder_block": {
        "gpt3-13b layer": {
            "batch": 1, "time": 2048, "d_model": GPT3_13B["d_model"],
            "n_head": GPT3_13B["heads"], "d_head": GPT3_13B["d_head"],
        },
    },
    "layer_norm": {"gpt3-13b layer": {"shape": [2, 2048, 5120], "residual": True}},
    "linear": {
        "gpt3-13b mlp up": {
            "rows": 4096, "d_in": 5120, "d_out": 20480, "bias": True, "activation": "gelu",
        },
    },
    "decode_attention": {
        "gpt2 rollout": {
            "batch": 64, "kv_head": 12, "group": 1, "n_query": 1, "capacity": 1024, "d_head": 64,
        },
        "16k, one prompt": {
            "batch": 1, "kv_head": 16, "group": 1, "n_query": 1, "capacity": 16384, "d_head": 128,
        },
    },
    "softmax": {
        f"{mib} MiB": {"shape": [mib * 512, 1024]} for mib in (1, 4, 16, 64)
    },
    "kl": {"minibatch": {"shape": [64, 1024]}},
    "token_rewards": {"minibatch": {"shape": [64, 1024], "missing_end": "replace"}},
    "gae": {"minibatch": {"shape": [64, 1024]}},
    "sampling": {"gpt2 rollout, 64": {"rows": 64, "vocab": 50257}},
}  # fmt: skip


def is_sweep(operation: str, shape: str) -> bool:
    """Say whether a size is one of attention's lengths, 1k to 16k."""
    return operation == "attention" and shape.partition(",")[0] in ("1k", "2k", "4k", "8k", "16k")


def shapes(twin: Twin) -> dict[str, Case]:
    """Return every size at which a twin is measured.

    Parameters
    ----------
    twin : Twin

    Returns
    -------
    dict of str to Case
        The entry's own first.
    """
    return twin.shapes | _TRAINING.get(twin.name, {}) | _MORE.get(twin.name, {})


# The most that is left of a number in a dry run. Widths of heads and of rows keep their kind.
TINY = 16
_TINY: dict[str, int] = {
    "batch": 2, "head": 4, "kv_head": 2, "n_kv_head": 2, "n_head": 2, "group": 2, "queries": 24,
    "time": 20, "n_query": 2, "capacity": 40, "vocab": 50, "documents": 5, "window": 8,
    "shape": 24, "shapes": 24, "n_ctx": 24,
}  # fmt: skip


def shrink(case: Case) -> Case:
    """Return a case of the same kind that the interpreter runs in no time.

    Parameters
    ----------
    case : Case

    Returns
    -------
    Case
        Flags as they were; numbers capped.
    """
    return {name: _capped(value, _TINY.get(name, TINY)) for name, value in case.items()}


def tiny_shapes(twin: Twin) -> dict[str, Case]:
    """Return each size of `shapes` shrunk, and one name alone for those that then are the same."""
    return {name: shrink(shapes(twin)[name]) for name in dict.fromkeys(stand_ins(twin).values())}


def stand_ins(twin: Twin) -> dict[str, str]:
    """Return, of each size of `shapes`, the name of the one that a dry run runs in its place.

    That is the first of those that are the same once they are shrunk.
    """
    small = {name: shrink(case) for name, case in shapes(twin).items()}
    return {
        name: next(first for first, other in small.items() if other == case)
        for name, case in small.items()
    }


def _capped(value: Any, most: int) -> Any:
    if isinstance(value, list):
        return [_capped(each, most) for each in value[:4]]
    if isinstance(value, dict):  # a tensor of a user's own case
        return {name: _capped(each, most) for name, each in value.items()}
    if isinstance(value, int) and not isinstance(value, bool):
        return min(value, most)
    return value
