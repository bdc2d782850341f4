"""What is stored of a twin beside its verification: proofs, and what its tests would notice."""

from pathlib import Path
from typing import Any

from .. import store

LAB = Path(__file__).resolve().parents[1]
PROOFS = LAB / "prove/equal/results.jsonl"
MUTANTS = LAB / "mutate/results.jsonl"


def claims_of(name: str) -> list[str]:
    """Say in a sentence each what other instruments have stored of a twin.

    Parameters
    ----------
    name : str

    Returns
    -------
    list of str
        Empty where nothing was stored, as beside an installed gptwin.
    """
    proofs, mutants = _row(PROOFS, "name", name), _row(MUTANTS, "twin", name)
    return [*map(_proved, proofs), *map(_mutated, mutants)]


def _row(path: Path, key: str, name: str) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [row for row in store.read_rows(path)["rows"] if row[key] == name]


def _proved(row: dict[str, Any]) -> str:
    if not row["proved"]:
        return "Not proved equal to the reference."
    return (
        f"Proved equal to the reference on every real input of {row['cases']} runs' shapes "
        f"({row['elements']:,} elements; chance of error 2^{row['bound_log2']:.0f})."
    )


def _mutated(row: dict[str, Any]) -> str:
    counts = f"{len(row['survived'])} missed, {len(row['equivalent'])} equivalent"
    return f"Of {row['run']} mutants verify's checks killed {row['killed']}; {counts}."
