"""How much of what: a weighted mixture of texts, and how often each is read.

    [books]                       a TOML file, a table for each set
    path = "books"                a file of texts, or a folder of them, from the TOML file's place
    weight = 0.3                  its share of the tokens that are drawn; or, for all sets,
    epochs = 2                    how often it is read, from which the weights follow

With n_i tokens in set i, weights w_i that sum to 1, and T tokens drawn in all,

    tokens of set i   T·w_i            epochs   e_i = T·w_i / n_i

Weights are normalised, and the plan says what they summed to: GPT-3's table 2.2 sums to 101, and
its printed epochs do not follow from its printed weights (19B tokens at 22% of 300B make 3.47
epochs; it says 2.9). A weight of 0 leaves a set out. Which window is drawn when: draws.py.

Source: Brown et al. 2020 (arXiv 2005.14165), section 2.2 and table 2.2, appendix A.
"""

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...core.checks import expect_positive, refuse
from ..data.records import DataFile, Text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEXTS = (".jsonl", ".jsonl.gz", ".txt")


@dataclasses.dataclass(frozen=True)
class Set:
    """A set of texts as the file names it; it has a weight, or a number of epochs."""

    name: str
    path: Path
    weight: float | None
    epochs: float | None


def is_mixture(data: str) -> bool:
    """Say whether a setting names a mixture, and not a file of texts."""
    return data.endswith(".toml")


class Planned(NamedTuple):
    """What a run draws from one set.

    Attributes
    ----------
    name : str
    size : int
        Tokens that there are.
    weight : float
        Share of the run, normalised.
    tokens : float
        Drawn in the run.
    epochs : float
        How often each token is read.
    """

    name: str
    size: int
    weight: float
    tokens: float
    epochs: float


def read_mixture(path: str | Path) -> list[Set]:
    """Read which sets a mixture has.

    Parameters
    ----------
    path : str or pathlib.Path
        A TOML file.

    Returns
    -------
    list of Set
        In the file's order.

    Raises
    ------
    ValueError
        If it cannot be read, a table has other entries, weights and epochs are mixed, or a path
        leads nowhere.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        refuse(str(path), "a file that can be read", error.strerror or str(error), "a wrong path")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        refuse(str(path), "TOML with a table for each set", str(error))
    sets = []
    for name, table in tables.items():
        try:
            sets.append(_set(name, table, path.parent))
        except ValueError as error:
            raise ValueError(f"{path}: [{name}] {error}") from None
    if not sets:
        refuse(str(path), "a set at least", "none", "an empty file")
    if len({s.weight is None for s in sets}) > 1:
        refuse(str(path), "a weight for every set, or epochs for every set", "both",
               "they say the same in two ways")  # fmt: skip
    return sets


def _set(name: str, table: Any, folder: Path) -> Set:
    entries = set(table) if isinstance(table, dict) else set()
    if "path" not in entries or len(entries & {"weight", "epochs"}) != 1 or len(entries) != 2:
        got = ", ".join(sorted(entries)) or repr(table)
        refuse("entries", "path, and weight or epochs", got)
    (kind,) = entries - {"path"}
    amount = table[kind]
    if not isinstance(amount, int | float) or not (math.isfinite(amount) and amount >= 0):
        refuse(kind, "a finite number, at least 0", repr(amount))
    place = folder / str(table["path"])
    if not place.exists():
        refuse("path", "a file of texts, or a folder of them", f"{place}, where nothing is")
    weight, epochs = (float(amount) if kind == k else None for k in ("weight", "epochs"))
    return Set(name, place, weight, epochs)


def read_texts(path: Path) -> list[str]:
    """Read the texts of a set.

    Parameters
    ----------
    path : pathlib.Path
        A file of JSON lines with `text`, plain or gzip; a .txt, which is one text; or a folder, of
        which all such files are read, in the order of their names.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If there is none, or a line is bad.
    """
    texts: list[str] = []
    for file in files_of(path):
        if file.name.endswith(".txt"):
            texts.append(_plain(file))
        else:
            texts += [r.text for r in DataFile(file, Text) if isinstance(r, Text)]
    texts = [text for text in texts if text.strip()]
    if not texts:
        refuse(str(path), f"texts, in files that end in {', '.join(TEXTS)}", "none")
    return texts


def files_of(path: Path) -> list[Path]:
    """Return the file, or of a folder those below it that may hold texts, by their names."""
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith(TEXTS))


def _plain(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        refuse(str(file), "text in UTF-8", str(error), "another encoding: convert the file")
    except OSError as error:
        refuse(str(file), "a file that can be read", error.strerror or str(error))


def plan_sets(sets: Sequence[Set], sizes: Mapping[str, int], tokens: float) -> list[Planned]:
    """Say how much of each set of a file a run reads, as `plan` does."""
    weights = {s.name: s.weight for s in sets if s.weight is not None}
    if weights:
        return plan(sizes, tokens, weights=weights)
    epochs = {s.name: s.epochs for s in sets if s.epochs is not None}
    return plan(sizes, tokens, epochs=epochs)


def plan(
    sizes: Mapping[str, int],
    tokens: float,
    *,
    weights: Mapping[str, float] | None = None,
    epochs: Mapping[str, float] | None = None,
) -> list[Planned]:
    """Say how much of each set a run reads.

    Parameters
    ----------
    sizes : mapping of str to int
        Tokens of each set.
    tokens : float
        That the run draws in all.
    weights, epochs : mapping of str to float
        One of the two, for each set. Epochs of a run of another length are scaled to this one's.

    Returns
    -------
    list of Planned
        Without the sets of weight 0.

    Raises
    ------
    ValueError
        If a number is negative, all are 0, or a set is empty.
    """
    expect_positive("tokens", tokens)
    given = weights if epochs is None else {n: e * sizes[n] for n, e in epochs.items()}
    if given is None or (weights is not None and epochs is not None):
        refuse("weights, epochs", "one of the two", "both or neither")
    for name, weight in given.items():
        if not (math.isfinite(weight) and weight >= 0):
            refuse(f"weight of {name}", "a finite number, at least 0", repr(weight))
    total = sum(given.values())
    if not total:
        refuse("weights", "one above 0", "all 0", "no set is left to draw from")
    planned = []
    for name, weight in given.items():
        if not weight:
            continue
        if sizes[name] < 1:
            refuse(name, "a token at least", "an empty set")
        drawn = tokens * weight / total
        planned.append(Planned(name, sizes[name], weight / total, drawn, drawn / sizes[name]))
    return planned


def described(planned: Sequence[Planned], sets: Sequence[Set] = ()) -> str:
    """Return the plan as a table, to be read before a run.

    Parameters
    ----------
    planned : sequence of Planned
    sets : sequence of Set
        What the file said, whose weights need not have summed to 1.

    Returns
    -------
    str
    """
    weights = [s.weight for s in sets if s.weight is not None]
    width = max(len("set"), *(len(p.name) for p in planned))
    lines = [f"{'set':<{width}}  {'tokens there':>13}  weight  {'tokens drawn':>13}  epochs"]
    for p in planned:
        drawn = f"{p.weight:>6.1%}  {round(p.tokens):>13,}  {p.epochs:>6.2f}"
        lines.append(f"{p.name:<{width}}  {p.size:>13,}  {drawn}")
    if weights and not math.isclose(sum(weights), 1, rel_tol=1e-9):
        lines.append(f"The weights summed to {sum(weights):g}, and were divided by it.")
    return "\n".join(lines)
