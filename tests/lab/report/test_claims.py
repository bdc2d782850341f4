"""What a twin's row claims is what is stored."""

import pytest

from gptwin.lab.report import claims
from gptwin.lab.store import read_rows

PROOFS = {row["name"]: row for row in read_rows(claims.PROOFS)["rows"]}
MUTANTS = {row["twin"]: row for row in read_rows(claims.MUTANTS)["rows"]}


def test_a_twin_claims_its_proof_and_its_mutants() -> None:
    proof, mutants = PROOFS["ppo_loss"], MUTANTS["ppo_loss"]
    proved, killed = claims.claims_of("ppo_loss")
    assert f"{proof['elements']:,} elements; chance of error 2^" in proved
    missed, equivalent = len(mutants["survived"]), len(mutants["equivalent"])
    assert killed == (
        f"Of {mutants['run']} mutants verify's checks killed {mutants['killed']}; "
        f"{missed} missed, {equivalent} equivalent."
    )
    assert mutants["killed"] + missed + equivalent == mutants["run"]
    assert claims.claims_of("no_twin") == []


def test_what_is_not_proved_is_not_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_row", lambda path, *_: [{"proved": path != claims.PROOFS}][:1])
    monkeypatch.setattr(claims, "_mutated", lambda row: "")
    assert claims.claims_of("gelu")[0] == "Not proved equal to the reference."
