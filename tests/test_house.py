"""The house rules: what may import what, what is packaged, and what every file keeps to."""

import ast
import configparser
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import gptwin

ROOT = Path(__file__).resolve().parent.parent

# records <- core <- kernels <- (rl, lab, benchmarks) <- cli: a file imports from its own folder and
# from floors below. The root's __init__ is below everything: importing any file runs it first. The
# two doors stand each above its own floor.
FLOOR = {"__init__": 0, "records": 1, "core": 2, "kernels": 3, "rl": 4, "lab": 4, "benchmarks": 4}
FLOOR |= {"reference": FLOOR["core"] + 0.5, "ops": FLOOR["kernels"] + 0.5}
TOP_FLOOR = 5  # cli, __main__ and any other file in the root

# Made by tools, or no part of the package.
NOT_OURS = {"__pycache__", "build", "shared"}


def our_files(suffix: str = "") -> list[Path]:
    """List the files of the checkout, relative to its root, without what tools put there."""
    found = []
    folders = [ROOT]
    while folders:
        for path in sorted(folders.pop().iterdir()):
            hidden = path.name.startswith(".") and path.name != ".ci"
            if hidden or path.name in NOT_OURS or path.name.endswith(".egg-info"):
                continue
            if path.is_dir() and not path.is_symlink():
                folders.append(path)
            elif path.name.endswith(suffix):
                found.append(path.relative_to(ROOT))
    return found


PACKAGED = [path for path in our_files(".py") if path.parts[0] not in ("tests", ".ci")]


def syntax(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and absolute name of all that a file of the package imports, at any depth."""
    package = ["gptwin", *path.parent.parts]
    tree = syntax(path)
    if path == Path("__init__.py"):  # what it says to type checkers alone; test_front_door.py
        tree.body = [node for node in tree.body if not is_for_type_checkers(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # One dot is the file's own package, each further dot the one above.
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            # `from . import x` may name a module: only the longer name tells which.
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def is_for_type_checkers(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def may_import(importer: Path, name: str) -> bool:
    """Say whether a file may import `name`, such as ``gptwin.core.layers.softmax.softmax``."""
    parts = name.split(".")
    if parts[0] != "gptwin":
        return True
    here = importer.parts[0].removesuffix(".py")
    there = parts[1]
    if not (ROOT / there).is_dir() and not (ROOT / f"{there}.py").is_file():
        there = "__init__"  # a name that the root itself defines
    if here == "benchmarks" and there == "lab":
        return parts[2] == "twins"  # lab and benchmarks share the list of twins
    above, below = FLOOR.get(here, TOP_FLOOR), FLOOR.get(there, TOP_FLOOR)
    return below < above or there == here or below == above == TOP_FLOOR


@pytest.mark.parametrize("path", PACKAGED, ids=str)
def test_no_file_imports_upward(path: Path) -> None:
    faults = [
        f"{path}:{line}: imports {name}"
        for line, name in imports(path)
        if not may_import(path, name)
    ]
    assert not faults, "core <- kernels <- (rl, lab, benchmarks) <- cli:\n" + "\n".join(faults)


def test_records_needs_the_standard_library_alone() -> None:
    brought = {name.split(".")[0] for _, name in imports(Path("records.py"))}
    assert brought <= {"gptwin", *sys.stdlib_module_names}


def test_core_needs_numpy_alone() -> None:
    allowed = {"gptwin", "numpy", *sys.stdlib_module_names}
    faults = [
        f"{path}:{line}: imports {name}"
        for path in PACKAGED
        if path.parts[0] == "core"
        for line, name in imports(path)
        if name.split(".")[0] not in allowed
    ]
    assert not faults, "core imports NumPy and the standard library alone:\n" + "\n".join(faults)


@pytest.mark.parametrize("path", PACKAGED, ids=str)
def test_imports_inside_the_package_are_relative(path: Path) -> None:
    faults = [
        f"{path}:{node.lineno}"
        for node in ast.walk(syntax(path))
        if (isinstance(node, ast.ImportFrom) and not node.level and node.module)
        and node.module.split(".")[0] == "gptwin"
    ]
    assert not faults, "write `from ..core.x import y`:\n" + "\n".join(faults)


@pytest.mark.parametrize(
    ("importer", "name", "allowed"),
    [
        ("core/layers/softmax.py", "gptwin.core.checks.refuse", True),
        ("core/layers/softmax.py", "gptwin.kernels.layers.softmax.softmax", False),
        ("core/layers/softmax.py", "gptwin.cli.app", False),
        ("core/layers/softmax.py", "gptwin.__version__", True),
        ("rl/formats/weights.py", "gptwin.records.write_together", True),
        ("records.py", "gptwin.core.checks.refuse", False),
        ("records.py", "gptwin.cli.app", False),
        ("kernels/layers/softmax.py", "gptwin.core.layers.softmax.softmax", True),
        ("kernels/layers/softmax.py", "gptwin.lab.twins.catalogue.TWINS", False),
        ("lab/verify/verify.py", "gptwin.kernels.layers.softmax.softmax", True),
        ("lab/verify/verify.py", "gptwin.rl.stages.ppo.train", False),
        ("benchmarks/run.py", "gptwin.lab.twins.catalogue.TWINS", True),
        ("benchmarks/run.py", "gptwin.lab.verify.verify.verify", False),
        ("reference.py", "gptwin.core.layers.softmax.softmax", True),
        ("reference.py", "gptwin.kernels.layers.softmax.softmax", False),
        ("ops.py", "gptwin.kernels.layers.softmax.softmax", True),
        ("ops.py", "gptwin.rl.stages.generation.generate", False),
        ("kernels/layers/softmax.py", "gptwin.ops.gelu", False),
        ("cli.py", "gptwin.lab.verify.verify.verify", True),
        ("__main__.py", "gptwin.cli.app", True),
        ("__init__.py", "gptwin.core.layers.softmax.softmax", False),
    ],
)
def test_the_floor_rule_itself(
    importer: str, name: str, allowed: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for folder in ("core", "kernels", "lab", "rl", "benchmarks"):
        (tmp_path / folder).mkdir()
    for file in ("cli.py", "records.py", "reference.py", "ops.py"):
        (tmp_path / file).touch()
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert may_import(Path(importer), name) is allowed


def test_every_package_is_listed_in_setup_cfg() -> None:
    config = configparser.RawConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = config["options"]["packages"].split()
    on_disk = [
        ".".join(["gptwin", *path.parent.parts]) for path in PACKAGED if path.name == "__init__.py"
    ]
    assert sorted(listed) == sorted(on_disk), "[options] packages in setup.cfg: one per folder"


def test_every_python_file_is_in_a_package() -> None:
    faults = [str(path) for path in PACKAGED if not (ROOT / path.parent / "__init__.py").is_file()]
    assert not faults, f"an installed gptwin would lack {faults}: add an __init__.py"


def test_this_checkout_is_what_is_tested() -> None:
    tested = Path(gptwin.__file__).resolve().parent
    assert tested == ROOT, f"`import gptwin` brings {tested}, the tests are in {ROOT}"


def test_no_module_is_imported_twice() -> None:
    """A kernel imported as kernels.x and as gptwin.kernels.x would be two kernels."""
    names = defaultdict(list)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).suffix == ".py":
            names[Path(file).resolve()].append(name)

    faults = {}
    for path in PACKAGED:
        right = ".".join(["gptwin", *path.with_suffix("").parts]).removesuffix(".__init__")
        if set(names[ROOT / path]) - {right}:
            faults[str(path)] = names[ROOT / path]
    assert not faults, f"imported under another name than gptwin....: {faults}"


def test_version_is_a_release_number() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", gptwin.__version__)


def test_no_file_names_a_path_of_one_machine() -> None:
    # In two pieces, so that this file does not match.
    private = re.compile("(?<![\\w.])/(" + "wor" + "k|ho" + "me|ro" + "ot|Us" + "ers)/")
    faults = []
    for path in our_files():
        text = (ROOT / path).read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            if private.search(line):
                faults.append(f"{path}:{number}: {line.strip()}")
    assert not faults, "paths that exist on one machine alone:\n" + "\n".join(faults)


def operations_of(path: Path) -> Iterator[ast.FunctionDef]:
    """Yield what a file is named after: the operation, its forward and its backward pass."""
    operation = path.stem
    names = {operation, f"{operation}_forward", f"{operation}_backward"}
    for node in syntax(path).body:
        if isinstance(node, ast.FunctionDef) and node.name in names:
            yield node


@pytest.mark.parametrize(
    "path", [path for path in PACKAGED if path.parts[0] in ("core", "kernels")], ids=str
)
def test_operations_describe_their_parameters(path: Path) -> None:
    faults = []
    for function in operations_of(path):
        named = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
        takes = [argument.arg for argument in named]
        described = ast.get_docstring(function) or ""
        if not described or (takes and "Parameters\n----------" not in described):
            faults.append(f"{path}:{function.lineno}: {function.name}({', '.join(takes)})")
    assert not faults, "no numpydoc section Parameters:\n" + "\n".join(faults)
