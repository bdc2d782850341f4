"""Pictures of a run: learning curves, and reward against the distance from where PPO began."""

import json
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from .best_of_n import FILE
from .run import read_log

# What the picture of each stage shows, where its log has it.
CURVES = {
    "pretrain": ("loss", "validation_loss", "gradient_norm", "lr"),
    "sft": ("loss", "validation_loss", "gradient_norm", "lr"),
    "reward": ("loss", "validation_loss", "accuracy", "validation_accuracy"),
    "ppo": ("score", "kl", "entropy", "approx_kl", "policy_clip_fraction", "explained_variance"),
}


def learning_curves(folder: Path) -> Path | None:
    """Draw a stage's statistics over its steps.

    Parameters
    ----------
    folder : pathlib.Path
        Of the stage's run.

    Returns
    -------
    pathlib.Path or None
        plots/learning.png in it; None if there is no log.
    """
    log = read_log(folder)
    names = [n for n in CURVES.get(folder.name, ()) if any(n in record for record in log)]
    if not names:
        return None
    figure, axes = plt.subplots(1, len(names), figsize=(3.2 * len(names), 2.6), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        points = [(record["step"], record[name]) for record in log if name in record]
        axis.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else "")
        axis.set_title(name.replace("_", " "), fontsize=9)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=7)
    return _saved(figure, folder / "plots/learning.png")


def over_optimisation(folder: Path) -> Path | None:
    """Draw proxy and gold reward over √KL, with Gao et al.'s fit (arXiv 2210.10760).

    Parameters
    ----------
    folder : pathlib.Path
        Of a PPO run whose evaluations were graded.

    Returns
    -------
    pathlib.Path or None
        plots/over_optimisation.png in it; None if no evaluation was graded.
    """
    log = [record for record in read_log(folder) if "validation_gold" in record]
    if len(log) < 2:
        return None
    distance = np.sqrt(np.maximum([record["kl"] for record in log], 0.0))
    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    for axis, name, title in zip(
        axes,
        ("validation_score", "validation_gold"),
        ("proxy: the reward model's score", "gold: what is truly wanted"),
        strict=True,
    ):
        reward = np.array([record[name] for record in log])
        axis.plot(distance, reward, "o", markersize=4)
        fit = fitted(distance, reward - reward[0])
        if fit is not None:
            d = np.linspace(1e-3, distance.max(), 100)
            axis.plot(d, reward[0] + d * (fit[0] - fit[1] * np.log(d)), "-", label="d(α − β log d)")
            axis.legend(fontsize=7)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("√KL from where PPO began", fontsize=8)
        axis.tick_params(labelsize=7)
    return _saved(figure, folder / "plots/over_optimisation.png")


def fitted(distance: np.ndarray, gain: np.ndarray) -> tuple[float, float] | None:
    """Fit gain = d(α − β log d) by least squares.

    Parameters
    ----------
    distance, gain : numpy.ndarray [point]
        √KL, and the reward gained.

    Returns
    -------
    (alpha, beta) : tuple of float, or None
        None with fewer than three points away from 0.
    """
    away = distance > 1e-3
    if away.sum() < 3:
        return None
    d = distance[away]
    (alpha, beta), *_ = np.linalg.lstsq(
        np.stack([d, -d * np.log(d)], axis=1), gain[away], rcond=None
    )
    return float(alpha), float(beta)


def best_of_n(folder: Path) -> Path | None:
    """Draw proxy and gold reward of best-of-n over √KL, with Gao et al.'s fit.

    Parameters
    ----------
    folder : pathlib.Path
        Of a PPO run that measured it (`ppo.best_of`).

    Returns
    -------
    pathlib.Path or None
        plots/best_of_n.png in it; None if it was not measured.
    """
    if not (folder / FILE).exists():
        return None
    found = json.loads((folder / FILE).read_text())
    distance = np.sqrt([record["kl"] for record in found])
    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    for axis, name in zip(axes, ("proxy", "gold"), strict=True):
        reward = np.array([record[name] for record in found])
        axis.plot(distance, reward, "o", markersize=4)
        for x, y, record in zip(distance, reward, found, strict=True):
            axis.annotate(f" n = {record['n']}", (x, y), fontsize=7)
        alpha, beta = fitted_best_of_n(distance, reward - reward[0])
        d = np.linspace(0, distance.max(), 100)
        label = f"d ({alpha:.2g} − {beta:.2g} d)"
        axis.plot(d, reward[0] + d * (alpha - beta * d), "-", linewidth=1, label=label)
        if beta > 0 and alpha / (2 * beta) < distance.max():
            axis.axvline(alpha / (2 * beta), linestyle=":", color="grey", label="its peak")
        axis.set_title(f"{name} of best-of-n", fontsize=9)
        axis.set_xlabel("√(ln n − (n − 1)/n)", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=7)
    return _saved(figure, folder / "plots/best_of_n.png")


def fitted_best_of_n(distance: np.ndarray, gain: np.ndarray) -> tuple[float, float]:
    """Fit gain = d(α − βd) by least squares.

    Parameters
    ----------
    distance, gain : numpy.ndarray [point]
        √KL, and the reward gained over n = 1.

    Returns
    -------
    (alpha, beta) : tuple of float
    """
    basis = np.stack([distance, -(distance**2)], axis=1)
    (alpha, beta), *_ = np.linalg.lstsq(basis, gain, rcond=None)
    return float(alpha), float(beta)


def _saved(figure: plt.Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path
