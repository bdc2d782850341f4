"""A project as others write them: run as it is, without a driver, and nothing false is found."""

import shutil
from pathlib import Path

import corpus
import pytest

from gptwin.kernels.common import launch

pytestmark = pytest.mark.skipif(
    not launch.INTERPRETED, reason="the sanitizer watches Triton's interpreter"
)

KERNELS = {
    "_attn_fwd", "_rms_norm_backward_kernel", "_rms_norm_forward_kernel", "argmax_kernel",
    "count_kernel", "dropout_kernel", "forward_kernel", "gelu_kernel", "matmul_kernel",
    "prefix_kernel", "quantize_kernel", "rope_kernel", "sgd_kernel", "softmax_kernel",
    "transpose_kernel",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of checkouts, elsewhere than gptwin."""
    shutil.copytree(corpus.HERE / "project", tmp_path / "project")
    return tmp_path


def test_a_suite_runs_unchanged(folder: Path) -> None:
    ((project, command),) = corpus.commands_of(folder)
    run = corpus.run_command(folder, project, command)
    assert run.ended == "ok" and not run.findings and run.driver_lines == 0, run.output
    assert set(run.kernels) == KERNELS and run.launches >= len(KERNELS)


def test_a_script_runs_unchanged_and_a_fault_in_it_is_found(folder: Path) -> None:
    (folder / "commands.txt").write_text("project: python examples/softmax_speed.py\n")
    ((project, command),) = corpus.commands_of(folder)
    kernel = folder / project / "fastops/softmax.py"
    kernel.write_text(kernel.read_text().replace(', other=-float("inf"))', ")"))
    run = corpus.run_command(folder, project, command)
    (finding,) = run.findings
    assert run.kernels == ["softmax_kernel"] and run.ended == "not ok"
    assert finding["kind"] == "undefined lane" and finding["tensor"] == "output_ptr"
    assert finding["rank"] == "wrong even with zeros"
