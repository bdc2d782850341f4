"""Refusal of what is unlike the prompts that are known, by the model's state at their end.

The score is core/dialogue/outliers.py's relative Mahalanobis distance of the final hidden state
where the assistant is about to speak (Bai et al., arXiv 2204.05862, section 5.4). Above what all
but a small share of known prompts have, the agent refuses without generating anything.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ....core.dialogue.outliers import Gaussian, exposed, fit_gaussian, relative_mahalanobis
from ....kernels.model.gpt import GPT
from ....records import write_whole

AT_ONCE = 128
RIDGE = 1e-4


@torch.no_grad()
def states(model: GPT, prompts: Sequence[list[int]], pad: int) -> np.ndarray:
    """Return the final hidden state at the last token of each prompt, [prompt, d_model].

    Parameters
    ----------
    model : GPT
        In evaluation mode.
    prompts : sequence of list of int
        Ids of each.
    pad : int
        Id of the padding token.

    Returns
    -------
    numpy.ndarray [prompt, d_model]
        float64.
    """
    found = []
    for start in range(0, len(prompts), AT_ONCE):
        part = prompts[start : start + AT_ONCE]
        time = max(map(len, part))
        tokens = torch.tensor([row + [pad] * (time - len(row)) for row in part])
        hidden = model(tokens.to(model.wte.weight.device))
        last = torch.tensor([len(row) - 1 for row in part])
        found.append(hidden[torch.arange(len(part)), last].double().cpu().numpy())
    return np.concatenate(found)


@dataclasses.dataclass(frozen=True)
class Detector:
    """What known prompts look like, and from where on a prompt is refused.

    Attributes
    ----------
    known : Gaussian
        Of known prompts' states.
    threshold : float
        Scores above it are refused.
    outliers : numpy.ndarray [outlier, d_model] or None
        A few states that are to be refused, if any were shown.
    """

    known: Gaussian
    threshold: float
    outliers: np.ndarray | None = None

    def score(self, x: np.ndarray) -> np.ndarray:
        """Return how strange each state is, [...]."""
        if self.outliers is not None:
            return exposed(x, self.known, self.outliers)
        return relative_mahalanobis(x, self.known)

    def save(self, file: Path) -> None:
        """Write it as JSON."""
        shown = None if self.outliers is None else self.outliers.tolist()
        said = {
            "mean": self.known.mean.tolist(), "covariance": self.known.covariance.tolist(),
            "threshold": self.threshold, "outliers": shown,
        }  # fmt: skip
        write_whole(file, json.dumps(said) + "\n")


def load_detector(file: Path) -> Detector:
    """Read what `Detector.save` wrote."""
    said = json.loads(file.read_text(encoding="utf-8"))
    known = Gaussian(np.array(said["mean"]), np.array(said["covariance"]))
    shown = None if said["outliers"] is None else np.array(said["outliers"])
    return Detector(known, said["threshold"], shown)


def fit_detector(
    known: np.ndarray, refused: float, outliers: np.ndarray | None = None, ridge: float = RIDGE
) -> Detector:
    """Fit a detector, and its threshold on half of the known states.

    Parameters
    ----------
    known : numpy.ndarray [state, d_model]
        Of prompts that are to be answered. The Gaussian is fitted to one half of them, and the
        threshold to the other: of its own states a Gaussian thinks too well.
    refused : float
        The share of known prompts that may be refused, from 0 to 1.
    outliers : numpy.ndarray [outlier, d_model], optional
        States of a few prompts that are to be refused.
    ridge : float
        As in `fit_gaussian`.

    Returns
    -------
    Detector
    """
    blind = Detector(fit_gaussian(known[::2], ridge), 0.0, outliers)
    threshold = float(np.quantile(blind.score(known[1::2]), 1 - refused))
    return dataclasses.replace(blind, threshold=threshold)
