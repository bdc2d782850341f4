"""Each file of a run damaged in turn: going on leaves what an undisturbed run leaves.

Or it says in one line what is wrong, and loses nothing.

`python tests/rl/test_damage.py DIRECTORY` does so with every file of a whole run, and of runs that
were killed in each stage; the suite does it with a few files of each kind.
"""

import json
import re
import shutil
import sys
from pathlib import Path

import chain
import pytest

from gptwin.rl.chat import Chat
from gptwin.rl.formats import checkpoint
from gptwin.rl.pipeline import STAGES
from gptwin.rl.stages.scorer import SCORER
from gptwin.rl.training.inputs import ENDED
from gptwin.rl.training.lock import LOCK
from gptwin.rl.training.run import CHECKPOINTS, LOG


def flip(path):
    """Change one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "a byte": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "removed": Path.unlink,
}


def files(run):
    """Return what a run left, by name: its bytes, but where they tell the time or the place."""
    found = {}
    for path in sorted(p for p in run.rglob("*") if p.is_file()):
        name = path.relative_to(run).as_posix()
        varies = name.endswith((LOG, ENDED, checkpoint.STATE, checkpoint.SUMS, LOCK))
        found[name] = b"" if varies else re.sub(rb'(directory|data) = ".*"', b"", path.read_bytes())
    return found


def differing(run, whole):
    """Return what is not as in the whole run, its logs but for the clock."""
    found = files(run)
    names = [name for name, data in files(whole).items() if found.get(name) != data]
    logs = [s for s in STAGES if chain.left(run / s)[2] != chain.left(whole / s)[2]]
    return names + [f"{stage}/{LOG}" for stage in logs]


def going_on(run, whole, said, damaged):
    """Go on with a run of which a file is damaged; return in a word what came of it.

    `said` returns the lines that were printed since it was called last.
    """
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != LOCK}
    said()
    code = chain.in_a_process(run, "all", True)
    lines = [line for line in said() if not line.startswith("Note")]
    told = len(lines) == 1 and Path(damaged).name in lines[0]
    if code == 0:
        others = differing(run, whole)
        if not others:
            return "as undisturbed"
        if others == [damaged] and CHECKPOINTS in Path(damaged).parts:
            return "stays damaged, not needed"  # of a stage that has ended, or an older one
        # A log that is gone cannot be written again.
        return "told, log begun anew" if told and others == [damaged] else f"FAULT: {others}"
    lost = [str(p) for p, data in before.items() if not p.exists() or p.read_bytes() != data]
    if code == 2 and told and not lost:
        return "one line, nothing lost"
    return f"FAULT: exit {code}, said {lines}, lost {lost}"


@pytest.fixture
def said(capfd):
    return lambda: capfd.readouterr().err.splitlines()


def test_what_is_damaged_is_written_again(whole, tmp_path, said):
    """A file of each kind, in each way, all at once; what is not needed to go on does not stop."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    harmed = {
        "tokenizer/merges.txt": "emptied",
        "pretrain/settings.toml": "cut",
        "pretrain/model/model.safetensors": "a byte",
        "pretrain/plots/learning.png": "a byte",
        "sft/ended.json": "a byte",
        "reward/scorer.safetensors": "cut",
        "ppo/ema/config.json": "removed",
        "ppo/best_of_n.json": "emptied",
    }
    for name, kind in harmed.items():
        DAMAGE[kind](run / name)
    assert chain.in_a_process(run, "all", True) == 0
    assert differing(run, whole) == []
    named = [line for line in said() if line.startswith("Warning")]
    told = [name for name in harmed if any(f"run/{name} is damaged" in line for line in named)]
    assert told == [n for n in harmed if not n.startswith(("tokenizer", "sft"))]


@pytest.mark.parametrize("kind", ["a byte", "emptied"])
def test_a_damaged_log_of_a_stage_that_has_ended_is_named(whole, tmp_path, said, kind):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    DAMAGE[kind](run / "sft" / LOG)
    assert going_on(run, whole, said, f"sft/{LOG}") == "one line, nothing lost"


def test_without_checkpoints_a_stage_rests_if_what_is_needed_is_whole(whole, tmp_path, said):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for stage in STAGES:
        shutil.rmtree(run / stage / CHECKPOINTS)
    flip(run / "sft/plots/learning.png")
    assert chain.in_a_process(run, "all", True) == 0
    (line,) = said()
    assert line.endswith("sft/plots/learning.png is damaged, and there is no checkpoint")
    flip(run / "sft/model/model.safetensors")
    before = files(run)
    assert chain.in_a_process(run, "all", True) == 2
    assert "sft/model/model.safetensors: expected the file that sft left" in said()[-1]
    assert files(run) == before


def test_a_damaged_model_does_not_chat(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run, ignore=shutil.ignore_patterns(CHECKPOINTS))
    assert Chat(str(run), max_new_tokens=2, best_of=2).say("Hi") is not None
    flip(run / "ppo/ema/model.safetensors")
    flip(run / "reward" / SCORER)
    Chat(str(run), max_new_tokens=2)  # neither is what speaks
    with pytest.raises(ValueError, match=r"reward/scorer.safetensors: expected the file that rew"):
        Chat(str(run), max_new_tokens=2, best_of=2)
    flip(run / "ppo/model/model.safetensors")
    with pytest.raises(ValueError, match=r"ppo/model/model.safetensors: expected the file that p"):
        Chat(str(run))


def main(scratch):
    """Damage every file, of a whole run and of one killed in each stage; print what came of it."""
    whole, run = scratch / "whole", scratch / "run"
    said = chain.listening(scratch / "said")
    assert chain.in_a_process(whole, "all") == 0
    runs = {"ended": whole}
    for stage in STAGES:
        runs[stage] = scratch / f"killed-{stage}"
        for part in ("tokenizer", *STAGES[: STAGES.index(stage)]) if stage != "pretrain" else ():
            shutil.copytree(whole / part, runs[stage] / part)
        chain.in_a_process(runs[stage], stage, False, chain.Killing(scratch / "seen", 39))
    for name, begun in runs.items():
        for file in sorted(p.relative_to(begun) for p in begun.rglob("*") if p.is_file()):
            if name != "ended" and file.parts[0] not in (name, "tokenizer"):
                continue
            came = {}
            for kind, harm in DAMAGE.items():
                shutil.rmtree(run, ignore_errors=True)
                shutil.copytree(begun, run)
                harm(run / file)
                came[kind] = going_on(run, whole, said, file.as_posix())
            print(json.dumps({"run": name, "file": file.as_posix()} | came), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
