"""Pictures of a run: learning curves, and reward against the distance from where PPO began."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from ...records import write_whole
from ..training.run import Statistics, read_log
from .best_of_n import FILE

CURVE = "plots/over_optimisation.png"
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
    return saved(figure, folder / "plots/learning.png")


def graded(folder: Path) -> list[Statistics]:
    """Return what the evaluations of a PPO run measured.

    Parameters
    ----------
    folder : pathlib.Path
        Of the run.

    Returns
    -------
    list of dict
        The step, and each statistic of the evaluation after it; empty if none was graded.
    """
    return [
        {name: value for name, value in record.items() if name.startswith(("step", "validation_"))}
        for record in read_log(folder)
        if "validation_gold" in record
    ]


def over_optimisation(runs: Mapping[str, Sequence[Statistics]], path: Path) -> Path | None:
    """Draw proxy and gold reward over √KL, with Gao et al.'s fit (arXiv 2210.10760).

    Parameters
    ----------
    runs : mapping of str to list of dict
        By the name of each run, what `graded` returns of it; rewards are shown as gains over a
        run's first evaluation.
    path : pathlib.Path
        Of the picture.

    Returns
    -------
    pathlib.Path or None
        The path; None if no run has two graded evaluations.
    """
    runs = {name: records for name, records in runs.items() if len(records) > 1}
    if not runs:
        return None
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2))
    for axis, key, title in zip(
        axes,
        ("validation_score", "validation_gold"),
        ("proxy: the reward model's score", "gold: what is truly wanted"),
        strict=True,
    ):
        distances, gains = [], []
        for name, records in runs.items():
            reward = np.array([record[key] for record in records])
            distances.append(np.sqrt([record["validation_kl"] for record in records]))
            gains.append(reward - reward[0])
            axis.plot(distances[-1], gains[-1], "o", markersize=4, label=name)
        _draw_fit(axis, np.concatenate(distances), np.concatenate(gains))
        axis.set_title(f"{title}, gained", fontsize=9)
        axis.set_xlabel("√KL from where PPO began", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=7)
    return saved(figure, path)


def _draw_fit(axis: plt.Axes, distance: np.ndarray, gain: np.ndarray) -> None:
    """Add the fitted curve, and a line where it peaks if that is in sight."""
    fit = fitted(distance, gain)
    if fit is None:
        return
    alpha, beta = fit
    d = np.linspace(1e-3, distance.max(), 100)
    label = f"d ({alpha:.2g} − {beta:.2g} log d)"
    axis.plot(d, d * (alpha - beta * np.log(d)), "-", color="black", linewidth=1, label=label)
    peak = np.exp(alpha / beta - 1) if beta > 0 else np.inf
    if peak < distance.max():
        axis.axvline(peak, color="grey", linewidth=1, linestyle=":", label=f"peak {peak:.2g}")


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
        alpha, beta = fitted_best_of_n(distance, reward - reward[0])
        d = np.linspace(0, distance.max(), 100)
        label = f"d ({alpha:.2g} − {beta:.2g} d)"
        axis.plot(d, reward[0] + d * (alpha - beta * d), "-", linewidth=1, label=label)
        if beta > 0 and alpha / (2 * beta) < distance.max():
            axis.axvline(alpha / (2 * beta), linestyle=":", color="grey", label="its peak")
        axis.set_title(f"{name} of best-of-n", fontsize=9)
        axis.set_xticks(distance, [str(record["n"]) for record in found])
        axis.set_xlabel("n, at √KL = √(ln n − (n − 1)/n)", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=7)
    return saved(figure, folder / "plots/best_of_n.png")


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


def saved(figure: plt.Figure, path: Path) -> Path:
    """Write a picture whole, and forget the figure.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : pathlib.Path
        Whose folder is made if it is not there.

    Returns
    -------
    pathlib.Path
        The same.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    try:
        write_whole(path, lambda place: figure.savefig(place, dpi=130))
    finally:
        plt.close(figure)
    return path
