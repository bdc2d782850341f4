"""The plugin of pytest: every launch of a marked test is checked, without a GPU.

    @pytest.mark.gptwin(sanitize=True, configs=3, allow=["atomic order"])

`--gptwin` takes all tests for marked ones; `--gptwin-sarif FILE` stores what was found for a code
host, which then shows it at the line. `--gptwin-native` checks less and is fast: kernels of all
tests are compiled for the CPU, and end at an access beyond a tensor. Nothing beyond pytest is
imported, and nothing is changed, where no test is marked.
"""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

MARK = "gptwin"


def _names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value)


# What a mark takes: in words, and as a test.
_TAKES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "sanitize": ("True or False", lambda value: isinstance(value, bool)),
    "configs": ("a number, at least 1", lambda value: type(value) is int and value > 0),
    "seed": ("a number, at least 0", lambda value: type(value) is int and value >= 0),
    "allow": ("a list of kinds", _names),
    "updates": ("a list of names", _names),
}
_TOLD = pytest.StashKey[dict[str, Any]]()
_GPUS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("gptwin", "gptwin: Triton kernels without a GPU")
    group.addoption(
        "--gptwin", action="store_true",
        help="check every launch of every test, in Triton's interpreter",
    )  # fmt: skip
    group.addoption(
        "--gptwin-native", action="store_true",
        help="run every test without a GPU: kernels are compiled for the CPU (needs llvmlite)",
    )  # fmt: skip
    group.addoption(
        "--gptwin-sarif", metavar="FILE", default=None,
        help="store what is found as SARIF, which code hosts show at the line",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and choose the interpreter before kernels are decorated."""
    config.addinivalue_line(
        "markers",
        f"{MARK}(sanitize=True, configs=3, allow=(), updates=(), seed=0): "
        "check every launch of a Triton kernel in this test",
    )
    settings = _settings(config)
    if config.getoption("--gptwin-native"):
        _run_natively(config)
        settings = None
    wanted = config.getoption("--gptwin") or (settings is not None and not _has_gpu())
    if wanted and "triton" not in sys.modules:
        os.environ.setdefault("TRITON_INTERPRET", "1")
    config.pluginmanager.register(Findings(config, settings), "gptwin-findings")


def _run_natively(config: pytest.Config) -> None:
    """Let "cuda" mean the CPU, and compile kernels for it, until the session ends."""
    from ...kernels import native

    if config.getoption("--gptwin"):
        raise pytest.UsageError("--gptwin-native: expected no --gptwin beside it: that interprets")
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise pytest.UsageError("--gptwin-native: expected TRITON_INTERPRET not to be set")
    if not native.available():
        raise pytest.UsageError("--gptwin-native: expected llvmlite: pip install llvmlite")
    from ..pretend.gpu import pretend_gpu

    stack = contextlib.ExitStack()
    stack.enter_context(pretend_gpu(compiled=True))
    config.add_cleanup(stack.close)


def _settings(config: pytest.Config) -> Any:
    """Read the project's [tool.gptwin]; None, and nothing is imported for it, if it has none."""
    folders = (config.rootpath, *config.rootpath.parents)
    file = next((f for f in (p / "pyproject.toml" for p in folders) if f.is_file()), None)
    if file is None or "tool.gptwin" not in file.read_text(encoding="utf-8", errors="replace"):
        return None
    from ..settings import read_settings

    try:
        return read_settings(config.rootpath)
    except ValueError as error:
        raise pytest.UsageError(f"gptwin: {error}") from None


def _has_gpu() -> bool:
    return any(os.path.exists(device) for device in _GPUS)


class Findings:
    """What one session of pytest found."""

    def __init__(self, config: pytest.Config, settings: Any) -> None:
        self.config, self.settings = config, settings
        self.found: list[dict[str, Any]] = []
        self.without_launch: list[str] = []
        self.compiled: list[str] = []
        self.n_tests = self.n_launches = 0

    # --- which tests, and how ---------------------------------------------------------------------

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Refuse marks that say something else than they may."""
        for item in items:
            for mark in item.iter_markers(MARK):
                _expect_mark(item, mark)

    def _asked(self, item: pytest.Item) -> dict[str, Any] | None:
        """Return what a test asks for; None if nothing."""
        marks = list(item.iter_markers(MARK))
        if not marks and not self.config.getoption("--gptwin"):
            return None
        asked: dict[str, Any] = {
            "sanitize": True, "seed": 0, "configs": 3, "allow": (), "updates": (),
        }  # fmt: skip
        if self.settings is not None:
            asked |= {"allow": self.settings.allow, "updates": self.settings.updates}
            asked["configs"] = self.settings.configs or asked["configs"]
        for mark in reversed(marks):  # the nearest one comes first
            asked |= mark.kwargs
        return asked if asked["sanitize"] else None

    # --- while a test runs ------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Let "cuda" mean the CPU for the test and its fixtures, and watch all that they launch."""
        asked = self._asked(item)
        with contextlib.ExitStack() as stack:
            if asked is not None and _interprets():
                from ..sanitize.program import watching

                how = {name: asked[name] for name in ("configs", "seed", "updates")}
                stack.enter_context(watching(**how))
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Check what fixtures launch."""
        with self._checking(item, "setup"):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Check what the test launches; it fails with what is found."""
        with self._checking(item, "call"):
            return (yield)

    @contextlib.contextmanager
    def _checking(self, item: pytest.Item, when: str) -> Iterator[None]:
        asked = self._asked(item)
        if asked is None:
            yield
            return
        told = item.stash.setdefault(_TOLD, {"found": [], "launches": 0})
        if not _interprets():
            told["compiled"] = True
            yield
            return
        from triton.runtime.errors import InterpreterError

        from ..sanitize.program import watching
        from .sarif import finding

        raised: BaseException | None = None
        with watching() as seen:  # within that of the whole test
            try:
                yield
            except BaseException as error:  # a failed assertion, an exit, what a kernel raised
                raised = error
        told["launches"] += seen.n_launches
        violations = [v for v in seen.violations if v.kind not in asked["allow"]]
        told["found"] += [finding(violation, item.nodeid) for violation in violations]
        if violations:
            n, text = len(violations), "\n\n".join(map(str, violations))
            if raised is None or isinstance(raised, InterpreterError):
                pytest.fail(f"gptwin: {n} found in what this launches\n\n{text}", pytrace=False)
            item.add_report_section(when, "gptwin", text)
        if raised is not None:
            raise raised

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Send what was found along with the report: another process may collect it."""
        report = yield
        told = item.stash.get(_TOLD, {})
        disagreements = getattr(call.excinfo.value, "findings", []) if call.excinfo else []
        if told or disagreements:
            report.gptwin = told | {  # type: ignore[attr-defined]
                "found": [*told.get("found", ()), *disagreements]
            }
        if told:
            del item.stash[_TOLD]
        return report

    # --- at the end -------------------------------------------------------------------------------

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect."""
        told = getattr(report, "gptwin", None)
        if told is None:
            return
        self.found += told["found"]
        self.n_launches += told.get("launches", 0)
        if report.when == "call" and "launches" in told:  # else it is a disagreement alone
            self.n_tests += 1
            if told.get("compiled"):
                self.compiled.append(report.nodeid)
            elif told.get("launches") == 0:
                self.without_launch.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Write the SARIF file; with pytest-xdist, in the process that collects alone."""
        file = self.config.getoption("--gptwin-sarif")
        if file and not hasattr(self.config, "workerinput"):
            from .sarif import write_sarif

            path = Path(self.config.invocation_params.dir, file)
            write_sarif(path, self.found, self.config.rootpath)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say how much was checked, and what was not."""
        if not self.n_tests:
            return
        terminalreporter.section("gptwin")
        terminalreporter.write_line(
            f"{self.n_launches} launches in {self.n_tests} tests checked, {len(self.found)} found"
        )
        for what, tests in (
            ("launched no Triton kernel, so nothing was checked", self.without_launch),
            ("ran compiled kernels, which cannot be watched (--gptwin interprets)", self.compiled),
        ):
            if tests:
                names = ", ".join(tests[:3]) + (" ..." if len(tests) > 3 else "")
                terminalreporter.write_line(f"{len(tests)} {what}: {names}")


def _expect_mark(item: pytest.Item, mark: pytest.Mark) -> None:
    place = f"{item.nodeid}: @pytest.mark.{MARK}"
    if mark.args:
        raise pytest.UsageError(f"{place}: expected names, as in configs=3, got {mark.args}")
    for name, value in mark.kwargs.items():
        if name not in _TAKES:
            known = ", ".join(_TAKES)
            raise pytest.UsageError(f"{place}: expected some of {known}, got {name}")
        wanted, fits = _TAKES[name]
        if not fits(value):
            raise pytest.UsageError(f"{place}: {name}: expected {wanted}, got {value!r}")
        if name == "allow":
            _expect_kinds(place, value)


def _expect_kinds(place: str, allow: Iterable[str]) -> None:
    from ..sanitize.violation import KINDS

    for kind in allow:
        if kind not in KINDS:
            known = ", ".join(KINDS)
            raise pytest.UsageError(f"{place}: allow: expected some of {known}, got {kind!r}")


def _interprets() -> bool:
    """Say whether kernels that are decorated now are interpreted."""
    return (
        os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton") is not None
    )
