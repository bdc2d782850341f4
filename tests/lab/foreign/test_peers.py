"""What other people's sanitizers made of the broken kernels: how outcomes are read and counted."""

import shutil

import corpus
import peers
import pytest

ROWS = [
    {"peer": "ttsem", "broken": broken, "mended": mended, "cpu_seconds": [0.25, seconds]}
    for broken, mended, seconds in (
        ("reported", "silent", 0.25),
        ("NaN", "reported", 0.75),
        ("silent", "failed", None),
        ("killed", "silent", None),
    )
]


@pytest.mark.parametrize(
    ("peer", "ended", "said", "outcome"),
    [
        ("ttsem", "failed", "a line\noob_read: 1 launch(es)\nkernel", "reported"),
        ("ttsem", "failed", "unsupported: 1 launch(es)", "failed"),
        ("tilelens", "failed", "\x1b[1m ILLEGAL MEMORY ACCESS DETECTED", "reported"),
        ("tilelens", "silent", "", "silent"),
        ("gptwin", "silent", "4 accesses of 2 launches, seed 0, 1 s: 1 finding\n", "reported"),
        ("gptwin", "silent", "nothing found", "silent"),
        ("interpreter", "failed", "ILLEGAL MEMORY ACCESS DETECTED", "failed"),
    ],
)
def test_a_report_is_told_from_what_else_ends_a_program(peer, ended, said, outcome):
    assert peers.outcome_of(peer, ended, said) == outcome


def test_a_row_counts_what_each_peer_did() -> None:
    row = peers.table(ROWS, {"ttsem": {"ttsem": "0.1.0"}}).splitlines()[2]
    assert row == "| ttsem 0.1.0 | 1 of 4 | 1 | 1 | 1 / 1 | 0.25 (0.75) |"


@pytest.mark.parametrize(
    ("name", "command"),
    [("tilelens", "tile-sanitizer"), ("triton-viz", "triton-sanitizer"), ("ttsem", "ttsem")],
)
def test_a_peer_that_is_installed_finds_a_missing_mask(name: str, command: str) -> None:
    if (path := shutil.which(command)) is None:
        pytest.skip(f"{name} is not installed")
    words = path if name != "ttsem" else f"{path.rpartition('/')[0]}/python -m ttsem.sanitize"
    kernel = next(path for path in corpus.BROKEN if path.stem == "missing_mask")
    (row,) = peers.run_peer(peers.Peer.parse(f"{name}={words}"), [kernel])
    assert (row["broken"], row["mended"]) == ("reported", "silent")
