"""Ask both judges of each broken kernel of breaks.py, and store what they say in breaks.jsonl.

    python tests/lab/prove/equal/study.py equal     the proof, with kernels compiled
    python tests/lab/prove/equal/study.py verify    gptwin verify in float32, kernels interpreted
    python tests/lab/prove/equal/study.py table     what both have said, in Markdown

Each run goes on where the last one ended. `verify` runs what it runs of a twin in float32: corners
in every configuration, real text, NaN and infinity, five random cases.
"""

import importlib
import os
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STORED = HERE / "breaks.jsonl"


def load() -> dict[str, dict[str, Any]]:
    from gptwin.lab.store import read_rows

    rows = read_rows(STORED)["rows"] if STORED.exists() else []
    return {f"{row['twin']}: {row['what']}": row for row in rows}


def keep(one: Any, said: dict[str, Any]) -> None:
    from gptwin.lab.store import made_with, write_rows

    rows = load()
    key = f"{one.twin}: {one.what}"
    rows[key] = (
        {"twin": one.twin, "what": one.what, "changes": one.changes} | rows.get(key, {}) | said
    )
    write_rows(STORED, made_with(), list(rows.values()))
    print(key, said, flush=True)


def source_with(one: Any) -> tuple[Any, str]:
    module = importlib.import_module("gptwin.kernels." + one.file.replace("/", "."))
    source = Path(module.__file__ or "").read_text(encoding="utf-8")
    assert one.old in source, one.what
    return module, source.replace(one.old, one.new)


def by_proof(one: Any) -> dict[str, Any]:
    from gptwin.lab.prove.equal.edits import edited
    from gptwin.lab.prove.equal.preparation import prepared, twin_to_prove

    twin_to_prove(one.twin)
    module, source = source_with(one)
    started = time.process_time()
    with prepared(one.twin), edited(module.__name__, one.function, source):
        said, n_runs = proved_or_not(one.twin)
    return {"equal": said, "runs": n_runs, "equal_s": round(time.process_time() - started, 1)}


def proved_or_not(twin: str) -> tuple[str, int]:
    """Prove it at its corners, then with shadows moved, up to the first run that differs."""
    from gptwin.lab.prove.equal.proofs import Proof, run_unit, steered_units, units_of

    proof = Proof(twin, 1)
    for steered in (False, True):
        for unit in steered_units(proof) if steered else units_of(twin, 1):
            proof.outcomes += run_unit(unit)[1]
            if proof.failures:
                failure = proof.failures[0]
                differs = f"differs: {failure.differences[0]}" if failure.differences else ""
                return failure.error or differs, len(proof.outcomes)
    return "proved equal", len(proof.outcomes)


def by_verify(one: Any) -> dict[str, Any]:
    from gptwin.lab.mutate.install import install
    from gptwin.lab.mutate.mutants import Mutant
    from gptwin.lab.twins.catalogue import TWINS
    from gptwin.lab.verify import verify

    started = time.process_time()

    class Text(Mutant):
        """The edit, as the judge of mutants puts it in its place."""

        def apply(self, source: str) -> str:
            assert one.old in source
            return source.replace(one.old, one.new)

    assert TWINS
    source_with(one)
    install(Text(f"kernels/{one.file}.py", one.function, "", one.old, one.new, 0, (0, 0), True, ()))
    verify.SHRINK_SECONDS = 0  # whether it disagrees is all that is asked
    row = verify.verify_row(verify.Job(one.twin, "float32", 5, 0, None), "cpu", lambda: None)
    share = row.worst.share if row.passed and row.worst else None  # beyond the budget, else
    return {
        "verify": "passes" if row.passed else "fails",
        "share": share and round(share, 3),
        "verify_s": round(time.process_time() - started, 1),
    }


def table() -> str:
    """Write in Markdown what both have said."""
    lines = ["| twin | fault | `prove --equal` | `verify`, float32 |", "|---|---|---|---|"]
    for row in load().values():
        equal = "refuted" if row["equal"].startswith("differs") else row["equal"]
        used = "" if row["share"] is None else f", {row['share']:.0%} of its budget"
        lines.append(f"| {row['twin']} | {row['what']} | {equal} | {row['verify']}{used} |")
    return "\n".join(lines) + "\n"


def main(what: str) -> None:
    from breaks import BREAKS

    if what == "table":
        print(table())
        return
    for one in BREAKS:
        if what in load().get(f"{one.twin}: {one.what}", {}):
            continue
        if what == "equal":
            keep(one, by_proof(one))
            continue
        child = os.fork()  # the interpreter keeps the edit
        if child == 0:
            keep(one, by_verify(one))
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    if sys.argv[1] == "verify":
        os.environ["TRITON_INTERPRET"] = "1"
    else:
        os.environ.pop("TRITON_INTERPRET", None)
    main(sys.argv[1])
