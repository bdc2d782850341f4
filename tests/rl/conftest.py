"""Lets the tests of the pipeline import what lies beside this file: `tiny.py`, `chain.py`.

It gives them a run of the whole chain, too, which is made once.
"""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The folder of a run that nothing disturbed; other runs may lie beside it."""
    import chain

    directory = tmp_path_factory.mktemp("chain") / "whole"
    assert chain.in_a_process(directory, "all") == 0
    return directory
