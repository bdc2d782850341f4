"""What the twins of a rollout draw alike: shapes, masks, log-probabilities."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from ....core.rlhf import kl as core_kl
from ..twin import Case, Draw

# None, some, most and all of a batch are response tokens.
shares = st.sampled_from([0.0, 0.3, 0.8, 1.0])
estimators = st.sampled_from(core_kl.ESTIMATORS)
ROLLOUT = [512, 1024]


def batches(*times: tuple[int, int]) -> st.SearchStrategy[list[int]]:
    """Draw [batch, time], each range of times as likely."""
    time = st.one_of(*(st.integers(low, high) for low, high in times))
    return st.tuples(st.integers(0, 4), time).map(list)


def log_probs(case: Case, draw: Draw) -> tuple[Any, Any]:
    """Return a policy's log-probabilities and those of a reference near it."""
    shape = case["shape"]
    # float32 knows the ratio of both best near 0, where tokens are certain.
    reference = draw.normal(*shape, mean=-3.0, std=1.0)
    if case.get("certain"):
        reference = reference * 0.001
    return reference + draw.normal(*shape, std=case.get("gap", 1.0)), reference


def real_log_probs(a: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return both log-probabilities of the text's bytes, and the second half as the response."""
    both = []
    for logits in (a["up"], 0.8 * a["up"] + 0.2):
        shifted = logits - logits.max(axis=-1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        both.append(np.take_along_axis(log_p, a["tokens"][..., None], axis=-1)[..., 0])
    return *both, np.arange(a["tokens"].shape[1])[None] >= a["tokens"].shape[1] // 2
