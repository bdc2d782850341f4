"""The curves of Sparrow's study: AUC by labels, violations by weight, and by round of probing."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

from ...judging.plots import saved

Rows = Sequence[dict[str, Any]]
# Which classifier is shown on which test: one that reads rules, and one that is asked "harmful?".
READ = (
    ("rules seen", "rules seen", "C0", "its rules, other words asked"),
    ("rules seen", "words seen", "C1", "words it knows, R1 alone"),
    ("rules seen", "words unseen", "C2", "words it never saw"),
    ("rules seen", "kinds unseen", "C3", "kinds of rules it never saw"),
)
ARMS = {"worst of four": "C3", "any probe": "C0", "worst of four and its twin": "C2"}
HARM = (
    ("house rules", "harm", "C0", "a rule at a time, the worst counts"),
    ("harmful?", "harm", "C3", '"harmful?"'),
)


def draw(rows: Rows, path: Path) -> Path:
    """Draw the curves.

    Parameters
    ----------
    rows : sequence of dict
        From `sparrow.run`, of any seeds.
    path : pathlib.Path
        Of the picture.

    Returns
    -------
    pathlib.Path
    """
    figure, grid = plt.subplots(2, 3, figsize=(13, 7.4))
    axes = grid.ravel()
    of = {name: [r for r in rows if r["part"] == name] for name in ("rules", "policies", "probing")}
    _areas(axes[0], of["rules"], READ, "6: reading a rule")
    _areas(axes[1], of["rules"], HARM, "6: does an answer break any rule?")
    _by_weight(axes[2], of["policies"])
    _by_round(axes[3], of["probing"], "violations", "8: violations, fresh probes")
    _by_round(axes[4], of["probing"], "violations_of_worst", "8: violations, worst of four")
    _by_round(axes[5], of["probing"], "refusals", "8: refusals of their benign twins")
    for axis in axes:
        axis.tick_params(labelsize=8)
        axis.legend(fontsize=7)
    return saved(figure, path)


def _seeds(rows: Rows) -> list[int]:
    return sorted({row["seed"] for row in rows})


def _lines(
    axis: Any, rows: Rows, x: str, share: Callable[[dict[str, Any]], tuple[float, Sequence[float]]],
    colour: str, label: str,
) -> None:  # fmt: skip
    """Draw a line and intervals for each seed."""
    for nth, seed in enumerate(_seeds(rows)):
        part = sorted((r for r in rows if r["seed"] == seed), key=lambda r: r[x])
        values = [share(r) for r in part]
        ys = [y for y, _ in values]
        below = [max(y - low, 0) for y, (low, _) in values]
        above = [max(high - y, 0) for y, (_, high) in values]
        axis.errorbar(
            [r[x] for r in part], ys, [below, above], color=colour, marker="o", markersize=3,
            linewidth=1, alpha=0.7, capsize=1.5, label=None if nth else label,
        )  # fmt: skip


def _areas(axis: Any, rows: Rows, shown: Sequence[tuple[str, str, str, str]], title: str) -> None:
    for arm, test, colour, label in shown:
        part = [r for r in rows if (r["arm"], r["test"]) == (arm, test)]
        _lines(axis, part, "labels", lambda r: (r["auc"], r["auc_interval"]), colour, label)
    axis.axhline(0.5, linestyle=":", color="grey", linewidth=1)
    labels = sorted({row["labels"] for row in rows})
    axis.set_xscale("log")
    axis.set_xticks(labels, [f"{n:,}" for n in labels])
    axis.minorticks_off()
    axis.set_ylim(0.35, 1.02)
    axis.set_xlabel("labels", fontsize=8)
    axis.set_ylabel("AUC (the program: 1)", fontsize=8)
    axis.set_title(title, fontsize=9)


def _share(key: str) -> Callable[[dict[str, Any]], tuple[float, Sequence[float]]]:
    def share(row: dict[str, Any]) -> tuple[float, Sequence[float]]:
        found = row[key]
        return found.get("share", found.get("accuracy")), found["interval"]

    return share


def _by_weight(axis: Any, rows: Rows) -> None:
    """Draw violations and refusals over the rules' weight; the base and the program as marks."""
    trained = [r for r in rows if r["arm"] in ("preference", "rules")]
    _lines(axis, trained, "weight", _share("violations"), "C3", "violations on probes")
    _lines(axis, trained, "weight", _share("refusals"), "C0", "refusals of benign questions")
    at_base = [r["violations"]["share"] for r in rows if r["arm"] == "base"]
    axis.axhline(
        sum(at_base) / max(len(at_base), 1), linestyle=":", color="C3", linewidth=1,
        label="violations of the base",
    )  # fmt: skip
    ceiling = [r for r in rows if r["arm"] == "program"]
    axis.plot(
        [r["weight"] for r in ceiling], [r["violations"]["share"] for r in ceiling], "x",
        color="black", label="the program's rules instead",
    )  # fmt: skip
    axis.set_xscale("symlog", linthresh=1)
    axis.set_ylim(-0.03, 1.03)
    axis.set_xlabel("w, weight of the rules in the reward", fontsize=8)
    axis.set_title("7: reinforcement learning", fontsize=9)


def _by_round(axis: Any, rows: Rows, key: str, title: str) -> None:
    for arm, colour in ARMS.items():
        part = [r for r in rows if r["arm"] == arm]
        _lines(axis, part, "round", _share(key), colour, f"trained on {arm}")
    axis.set_ylim(-0.03, 1.03)
    axis.set_xticks(sorted({row["round"] for row in rows}))
    axis.set_xlabel("round", fontsize=8)
    axis.set_title(title, fontsize=9)
