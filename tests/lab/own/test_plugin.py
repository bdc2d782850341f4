"""The plugin of pytest, in suites of somebody else's."""

import importlib
import json
import subprocess
import sys

import pytest

from gptwin.kernels.common.launch import INTERPRETED

pytest_plugins = ["pytester"]
# What a suite within this process is the first to import is forgotten with it, and some of that
# can be imported only once.
for module in ("torch._dynamo", "gptwin.lab.own.check", "gptwin.lab.sanitize.program"):
    importlib.import_module(module)
pytestmark = pytest.mark.skipif(not INTERPRETED, reason="sized for the interpreter")

PLUGIN = ("-p", "no:gptwin", "-p", "gptwin.lab.own.plugin", "-p", "no:cacheprovider", "-p",
          "no:randomly")  # fmt: skip
KERNEL = """
import pytest, torch, triton, triton.language as tl

@triton.jit
def copy_kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at, tl.load(x_ptr + at, mask=at < n, other=0.0))

def copy(n):
    x = torch.randn(n, device="cuda")
    y = torch.empty(n, device="cuda")
    copy_kernel[(1,)](x, y, n, BLOCK=16)
    return y
"""
LINE = 6  # of the store


def run(pytester, tests, *arguments):
    pytester.makepyfile(test_it=KERNEL + tests)
    return pytester.runpytest_inprocess(*PLUGIN, *arguments)


def test_a_marked_test_fails_with_what_its_launches_do(pytester):
    done = run(
        pytester,
        "@pytest.mark.gptwin\ndef test_marked(): assert copy(13).is_cuda\n"
        "@pytest.mark.gptwin\ndef test_fine(): copy(16)\n"
        "@pytest.mark.gptwin(allow=['out of bounds'])\ndef test_allowed(): copy(13)\n"
        "@pytest.mark.gptwin\ndef test_nothing(): pass\n"
        "@pytest.mark.gptwin\ndef test_wrong(): copy(13); assert False, 'its own fault'\n",
        "--gptwin-sarif=found.sarif",
    )
    done.assert_outcomes(passed=3, failed=2)
    done.stdout.fnmatch_lines(
        [
            "*gptwin: 1 found in what this launches*",
            f"test_it.py:{LINE}: out of bounds: *",
            "*store y_ptr[[]13]; its elements are 0..12*",
            "*its own fault*",
            "*4 launches in 5 tests checked, 2 found*",
            "1 launched no Triton kernel, so nothing was checked: test_it.py::test_nothing",
        ]
    )
    (one,) = json.loads((pytester.path / "found.sarif").read_text())["runs"]
    (result,) = one["results"]  # found twice, at one line
    assert result["ruleId"] == "out-of-bounds" == one["tool"]["driver"]["rules"][0]["id"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "test_it.py"
    assert place["region"]["startLine"] == LINE


def test_the_option_takes_all_tests_and_settings_hold(pytester):
    pytester.makepyprojecttoml('[tool.gptwin]\nallow = ["out of bounds"]\n')
    done = run(pytester, "def test_plain(): copy(13)\n", "--gptwin")
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["*1 launches in 1 tests checked, 0 found*"])


def test_a_disagreement_is_shown_at_the_line_that_stored_it(pytester):
    done = run(
        pytester,
        "import gptwin\n"
        "def double(x):\n"
        "    y = torch.empty_like(x)\n"
        "    copy_kernel[(1,)](x, y, 16, BLOCK=16)\n"
        "    return y\n"
        "def test_it():\n"
        "    cases = [{'x': {'normal': [16]}}]\n"
        "    gptwin.check(double, lambda x: 2 * x, cases=cases, dtypes=['float32'], examples=1,\n"
        "                 layouts=['contiguous'])\n",
        "--gptwin-sarif=found.sarif",
    )
    done.assert_outcomes(failed=1)
    assert "verify_row" not in done.stdout.str() and "tests checked" not in done.stdout.str()
    (result,) = json.loads((pytester.path / "found.sarif").read_text())["runs"][0]["results"]
    assert result["ruleId"] == "disagreement"
    assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": LINE}


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ("config=3", "expected some of sanitize, configs, seed, allow, updates, got config"),
        ("configs=0", "configs: expected a number, at least 1, got 0"),
        ("configs=True", "configs: expected a number, at least 1, got True"),
        ("sanitize=1", "sanitize: expected True or False, got 1"),
        ("allow='race'", "allow: expected a list of kinds, got 'race'"),
        ("allow=['race']", "allow: expected some of out of bounds, *got 'race'"),
        ("3", "expected names, as in configs=3, got (3,)"),
    ],
)
def test_bad_marks_are_refused(pytester, mark, message):
    done = run(pytester, f"@pytest.mark.gptwin({mark})\ndef test_it(): pass\n")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"*test_it.py::test_it: @pytest.mark.gptwin: {message}*"])


def test_bad_settings_are_refused(pytester):
    pytester.makepyprojecttoml("[tool.gptwin]\nconfig = 3\n")
    done = run(pytester, "def test_it(): pass\n")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*tool.gptwin.config: expected one of twins, configs, allow*"])


def test_a_suite_without_marks_pays_nothing(tmp_path):
    """A Python of its own: this one has imported everything."""
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "def test_it():\n"
        "    assert not {'torch', 'triton', 'numpy', 'gptwin.kernels'} & set(sys.modules)\n"
        "    import os; assert os.environ.get('TRITON_INTERPRET') == 'as it was'\n"
    )
    code = (
        "import os, sys, pytest; os.environ['TRITON_INTERPRET'] = 'as it was'\n"
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-p', 'gptwin.lab.own.plugin']))"
    )
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
