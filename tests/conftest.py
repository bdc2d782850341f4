"""What all tests share: where they run, how Hypothesis draws, and how the files are imported."""

import gc
import os
import sys
from importlib import metadata
from pathlib import Path

# What the tests import stays: to look through all of it for garbage, again and again, finds none.
gc.disable()

# `python -m pytest` puts the checkout itself on the path; transformers would then take kernels/ for
# Hugging Face's package of that name, and import it.
ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

IN_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if IN_WORKER:
    # pytest-xdist runs one process per core: more threads would only get in each other's way.
    # NumPy's libraries read this when they are loaded.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # A test that asks for more waits asleep: spinning, it would keep its own threads from a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch
from hypothesis import HealthCheck, settings

# Triton decides when a kernel is decorated, so this comes before any test imports one.
NATIVE = os.environ.get("GPTWIN_TESTS_ON") == "native"
if not torch.cuda.is_available() and not NATIVE:
    os.environ["TRITON_INTERPRET"] = "1"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED or NATIVE else "cuda"
if NATIVE:
    from gptwin.kernels import native

    native.activate()

if IN_WORKER:
    torch.set_num_threads(1)

# No deadline: a kernel's first example compiles it. Random at home, so that every run may find
# something new; in CI the same examples each time, so that a failure is the change's own.
slow = [HealthCheck.too_slow]
settings.register_profile("default", deadline=None, print_blob=True, suppress_health_check=slow)
settings.register_profile(
    "ci", settings.get_profile("default"), derandomize=True, database=None, print_blob=True
)
settings.load_profile("ci" if os.environ.get("CI") else "default")


class RootIsNoTestPackage:
    """Keep pytest from importing the checkout as a package named after its folder.

    The root has an `__init__.py`, since it is the package gptwin. pytest would take it for a
    package of tests and import it again, as `main` or whatever the checkout is called.
    """

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Dir | None:
        if path == parent.config.rootpath:
            return pytest.Dir.from_parent(parent, path=path)
        return None


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(RootIsNoTestPackage())


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_report_header() -> str:
    how = "Triton's interpreter" if INTERPRETED else torch.cuda.get_device_name()
    versions = [f"{name} {metadata.version(name)}" for name in ("numpy", "torch", "triton")]
    return f"kernels run on: {how}; {', '.join(versions)}"


@pytest.fixture(scope="session")
def device() -> str:
    """Where the tensors of a test go: "cuda", or "cpu" if the kernels are interpreted."""
    return DEVICE
