"""Make `.venv`, the environment that every target of the Makefile runs in.

    python3 .ci/environment.py [--torch-index URL]     make it, unless it is there and up to date
    .venv/bin/python .ci/environment.py --add EXTRA... let pip install what extras still lack

A machine that trains models usually has PyTorch and Triton already, built for its own GPU, and
perhaps no network. So if the Python that runs this file has both, `.venv` borrows that Python's
packages, and pip is asked for what is missing alone; if nothing is missing, no network is needed.
Otherwise pip installs everything.

gptwin itself is not installed but linked: `.venv/checkout/gptwin` holds a link to each of the
package's files and folders, and `.venv/checkout` is on the import path. That takes no build step,
so no network either, and type checkers can follow it, which they cannot with setuptools' editable
installs. (One link to the repository would contain itself: a tool that follows links never ends.)

Only the standard library is imported: this runs before anything is installed.
"""

from __future__ import annotations

import argparse
import configparser
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PACKAGE = VENV / "checkout/gptwin"
RECORD = VENV / "gptwin.json"
CONSTRAINTS = ROOT / ".ci/constraints.txt"
OLDEST_PYTHON = (3, 10)
# What is worth borrowing a Python's packages for: large, and built for the machine.
HEAVY = ("torch", "triton")
PIP_FAILS = (
    "no network (with wheels that were carried: PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER make ...), a "
    "full disk, or no package for this Python on this machine; pip's own message is above"
)


def main() -> None:
    """Read the command line and do what it says."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--torch-index", metavar="URL", help="a further index, for PyTorch")
    arguments.add_argument("--add", metavar="EXTRA", nargs="+", help="install what extras need")
    chosen = arguments.parse_args()
    refuse_unsupported()
    if chosen.add:
        add(chosen.add)
        return
    # Two makes in one checkout: the second waits for the first, and then finds it done.
    with open(__file__) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        make(chosen.torch_index)


def refuse_unsupported() -> None:
    """Stop with one clear line on a system or Python that gptwin does not run on."""
    if sys.platform != "linux":
        stop(f"gptwin needs Linux, the one system Triton is built for; this is {sys.platform}")
    if sys.version_info < OLDEST_PYTHON:  # make may pass any Python
        oldest = ".".join(map(str, OLDEST_PYTHON))
        stop(
            f"gptwin needs Python {oldest} or newer; {describe_python()} is older. "
            "Name another: make PYTHON=python3.12 ..."
        )
    if find_spec("venv") is None:
        stop(f"{describe_python()} has no module venv ({venv_remedy()})")


def make(torch_index: str | None) -> None:
    """Make `.venv`, unless the one that is there was made from the same requirements.

    Parameters
    ----------
    torch_index : str, optional
        URL of a package index that pip looks at beside its own.
    """
    wanted = fingerprint()
    if VENV.exists():
        record = read_record()
        if record["fingerprint"] == wanted and (VENV / "bin/python").exists():
            link_parts(PACKAGE)
            return
        if Path(sys.prefix).resolve() == VENV:
            # It is activated, say: start again with the Python below, or we would remove our own.
            os.execv(record["made_with"], [record["made_with"], *sys.argv])
        shutil.rmtree(VENV)

    try:
        write_record(None)
        build(torch_index)
        write_record(wanted)
    except BaseException:
        shutil.rmtree(VENV, ignore_errors=True)
        raise


def build(torch_index: str | None) -> None:
    """Fill `.venv`.

    Parameters
    ----------
    torch_index : str, optional
        As in `make`.
    """
    missing = unmet(required("test"))
    borrow = not any(line.startswith(HEAVY) for line in missing)
    own_pip = find_spec("ensurepip") is not None
    if missing and not own_pip and find_spec("pip") is None:
        stop(f"{describe_python()} has neither ensurepip ({venv_remedy()}) nor pip")
    if not missing:
        say(f".venv uses the packages of {describe_python()}, which has all that is needed")
    elif borrow:
        say(f".venv uses the packages of {describe_python()}; pip adds {', '.join(missing)}")
    else:
        say(f".venv is made with {describe_python()}; pip fetches PyTorch: this takes minutes")

    without_pip = [] if missing and own_pip else ["--without-pip"]
    command(
        [sys.executable, "-m", "venv", *without_pip, str(VENV)],
        f"this Python's venv is not complete ({venv_remedy()}), or the disk is full",
    )
    link_checkout()
    if borrow:
        borrow_packages()
    if missing:
        index = ["--extra-index-url", torch_index] if torch_index else []
        # What is borrowed may be newer. And a machine without a network can be brought the little
        # that is missing, but not all that developers use.
        newest = [] if borrow else ["--constraint", str(CONSTRAINTS)]
        wanted = [line.partition(" (")[0] for line in missing] if borrow else required("dev")
        command([*pip_install(), *index, *newest, *wanted], PIP_FAILS)


def link_checkout() -> None:
    """Make `gptwin` importable in `.venv` under its name, whatever the checkout is called."""
    checkout = VENV / "checkout"
    (site_packages() / "gptwin.pth").write_text(f"{checkout}\n")
    link_parts(PACKAGE)
    script = VENV / "bin/gptwin"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(str(VENV / "bin/python"))} -m gptwin "$@"\n')
    script.chmod(0o755)


def link_parts(package: Path) -> None:
    """Link the package's files and folders as they are now: folders come and go with commits.

    Parameters
    ----------
    package : Path
        The folder to be filled with links; its name is the package's.
    """
    package.mkdir(parents=True, exist_ok=True)
    parts = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    parts |= {path.name for path in (*ROOT.glob("*.py"), ROOT / "py.typed")}
    for path in package.iterdir():
        if path.is_symlink() and path.name not in parts:  # Python keeps its __pycache__ there, too
            path.unlink()
    for name in parts:
        if not (package / name).is_symlink():
            (package / name).symlink_to(os.path.relpath(ROOT / name, package))


def borrow_packages() -> None:
    """Let `.venv` see the packages of the Python that runs this file.

    `python -m venv --system-site-packages` would not do: run inside an environment, it shows the
    packages of the Python below that environment. `site.addsitedir` also follows the .pth files
    of a folder, which is how an editable PyTorch is found.
    """
    folders = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    lines = [f"import site; site.addsitedir({folder!r})\n" for folder in folders]
    (site_packages() / "gptwin-borrowed.pth").write_text("".join(lines))


def site_packages() -> Path:
    """Return the folder of `.venv` that holds its packages."""
    base = str(VENV)
    # Named, because Debian's default scheme is another one.
    return Path(sysconfig.get_path("purelib", "posix_prefix", {"base": base, "platbase": base}))


def required(*extras: str) -> list[str]:
    """Return what gptwin needs with some of its extras, as written in setup.cfg.

    Parameters
    ----------
    *extras : str
        Names under [options.extras_require].

    Returns
    -------
    list of str
        Requirements such as ``"numpy>=2.0"``.
    """
    config = configparser.RawConfigParser()
    config.read(ROOT / "setup.cfg")

    def expand(text: str) -> list[str]:
        lines = [line for line in text.split("\n") if line and not line.startswith("#")]
        own = "gptwin["  # one extra includes another
        nested = [line[len(own) : -1] for line in lines if line.startswith(own)]
        plain = [line for line in lines if not line.startswith(own)]
        for name in nested:
            plain += expand(config["options.extras_require"][name])
        return plain

    wanted = [config["options"]["install_requires"], *(f"gptwin[{extra}]" for extra in extras)]
    return expand("\n".join(wanted))


def unmet(requirements: list[str]) -> list[str]:
    """Return those requirements that the running Python does not meet, with what it has instead.

    Parameters
    ----------
    requirements : list of str
        As `required` returns them.

    Returns
    -------
    list of str
        Such as ``"numpy>=2.0 (found 1.26.4)"``; empty if all are met.
    """
    from importlib import metadata  # not in the Pythons that are refused with a clear line

    try:
        from packaging.requirements import Requirement
    except ImportError:
        try:
            from pip._vendor.packaging.requirements import Requirement
        except ImportError:
            # pytest brings packaging along, so without it pytest at least is not there.
            return [f"{line} (not looked for)" for line in requirements]

    lacking = []
    for line in requirements:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate():
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            lacking.append(f"{line} (not found)")
        else:
            if not requirement.specifier.contains(version, prereleases=True):
                lacking.append(f"{line} (found {version})")
    return lacking


def pip_install() -> list[str]:
    """Return what installs into `.venv`: its own pip, or that of the Python it is made with.

    Python compiles what is imported, and keeps it. pip would compile every file of PyTorch and of
    all others, which takes as long as the rest of the installation.
    """
    python = str(VENV / "bin/python")
    pip = [python, "-m", "pip"]
    if not (site_packages() / "pip").is_dir():
        pip = [read_record()["made_with"], "-m", "pip", "--python", python]
    return [*pip, "install", "--quiet", "--no-compile", "--disable-pip-version-check"]


def add(extras: list[str]) -> None:
    """Install the packages of extras that the running Python, that of `.venv`, lacks.

    Parameters
    ----------
    extras : list of str
        Names under [options.extras_require].
    """
    if not unmet(required(*extras)):
        return
    command([*pip_install(), *required(*extras)], PIP_FAILS)


def fingerprint() -> str:
    """Return a hash of all that `.venv` depends on, the place of the checkout included."""
    parts = [Path(__file__).read_text(), CONSTRAINTS.read_text(), str(ROOT), *required("dev")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read_record() -> dict[str, str]:
    """Return what was noted in `.venv` when it was made.

    An environment without the note is not ours to remove: somebody else made it.
    """
    try:
        return json.loads(RECORD.read_text())
    except (OSError, ValueError):
        stop(f"{VENV} exists, but make did not make it: move it away, or remove it")


def write_record(made_from: str | None) -> None:
    """Note in `.venv` that it is ours, with what Python it is made and whether it is complete.

    Parameters
    ----------
    made_from : str or None
        The fingerprint of a complete environment, None while it is being made.
    """
    VENV.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps({"fingerprint": made_from, "made_with": sys.executable}))


def command(arguments: list[str], likely_cause: str) -> None:
    """Run a command; if it fails, stop and say what was tried.

    Parameters
    ----------
    arguments : list of str
        The command.
    likely_cause : str
        What to tell the user if it fails.
    """
    status = subprocess.run(arguments, check=False).returncode
    if status != 0:
        stop(
            f"exit status {status} from\n    {shlex.join(arguments)}\n"
            f"Likely cause: {likely_cause}. A half-made .venv is removed: "
            "the next make starts over."
        )


def describe_python() -> str:
    """Return the running Python's place and version, for messages."""
    return f"{sys.executable} (Python {sys.version.split()[0]})"


def venv_remedy() -> str:
    """Return what to do where Python comes without venv or ensurepip."""
    major, minor = sys.version_info[:2]
    return f"on Debian and Ubuntu: apt install python{major}.{minor}-venv"


def say(message: str) -> None:
    """Print one line of progress."""
    print(f"environment: {message}", flush=True)


def stop(message: str) -> NoReturn:
    """End the program with a message."""
    sys.exit(f"environment: {message}")


if __name__ == "__main__":
    main()
