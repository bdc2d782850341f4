"""Faults as public projects had them: each is found where it is, and its mended form is clean."""

from pathlib import Path

import corpus
import pytest

from gptwin.kernels.common import launch

HERE = [path for path in corpus.BROKEN if path.is_relative_to(corpus.HERE)]

pytestmark = pytest.mark.skipif(
    not launch.INTERPRETED, reason="the sanitizer watches Triton's interpreter"
)


@pytest.mark.parametrize("path", HERE, ids=lambda path: path.stem)
def test_the_fault_is_found_and_its_mended_form_is_clean(path: Path) -> None:
    pair = corpus.try_both(path)
    assert pair.found == pair.planted, "\n".join(map(str, pair.broken.violations))
    assert pair.broken.kernels == {"broken_kernel"}
    assert not pair.mended.violations, "\n".join(map(str, pair.mended.violations))
    assert "fixed_kernel" in pair.mended.kernels and pair.mended.n_accesses


def test_there_are_enough() -> None:
    assert len(corpus.BROKEN) >= 40
    assert len({path.stem for path in corpus.BROKEN}) == len(corpus.BROKEN)
