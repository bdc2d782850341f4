"""The house rules: what may import what, what is packaged, and what every file keeps to."""

import ast
import configparser
import functools
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import gptwin

ROOT = Path(__file__).resolve().parent.parent

# Who may import whom: below each room stands a list of what lies directly below it; what lies below
# that may be imported, too. "core" is what stands in core/ itself.
ROOMS: dict[str, tuple[str, ...]] = {
    "records": (),
    "core": ("records",),
    "core/layers": ("core",),
    "core/attention": ("core/layers",),
    "core/language": ("core/attention",),
    "core/optimizer": ("core/language",),
    "core/model": ("core/optimizer",),
    "core/rlhf": ("core/optimizer",),
    "core/dialogue": ("core/rlhf",),
    "reference": ("core/model", "core/dialogue"),
    # Every room of kernels knows the whole specification.
    "kernels/interpreter/common": ("core/model", "core/dialogue"),
    "kernels/interpreter/libdevice": (),
    "kernels/interpreter/numbers": ("kernels/interpreter/common", "kernels/interpreter/libdevice"),
    "kernels/interpreter/language": ("kernels/interpreter/common", "kernels/interpreter/libdevice"),
    "kernels/interpreter/programs": ("kernels/interpreter/common",),
    "kernels/interpreter": (
        "kernels/interpreter/numbers",
        "kernels/interpreter/language",
        "kernels/interpreter/programs",
    ),
    "kernels/native/instructions": (),
    "kernels/native/machine": (),
    "kernels/native/loops": ("kernels/native/instructions", "kernels/native/machine"),
    "kernels/native": ("kernels/native/loops",),
    "kernels/common": ("kernels/interpreter", "kernels/native"),
    "kernels/layers": ("kernels/common",),
    "kernels/hopper": ("kernels/common",),
    "kernels/attention": ("kernels/layers", "kernels/hopper"),
    "kernels/language": ("kernels/layers",),
    "kernels/optimizer": ("kernels/attention", "kernels/language"),
    "kernels/rlhf": ("kernels/attention", "kernels/language"),
    "kernels/model": ("kernels/attention", "kernels/language"),
    "kernels/cpu": ("kernels/optimizer", "kernels/rlhf", "kernels/model"),
    "kernels": ("kernels/cpu",),
    "ops": ("kernels",),
    "lab": ("kernels",),
    # What a twin is stands below the twins, the list of them above.
    "lab/twins": ("lab",),
    "lab/twins/layers": ("lab/twins",),
    "lab/twins/attention": ("lab/twins/layers",),
    "lab/twins/language": ("lab/twins/layers",),
    "lab/twins/optimizer": ("lab/twins/attention", "lab/twins/language"),
    "lab/twins/rlhf": ("lab/twins/attention", "lab/twins/language"),
    "lab/twins/model": ("lab/twins/attention", "lab/twins/language"),
    "lab/twins/catalogue": ("lab/twins/optimizer", "lab/twins/rlhf", "lab/twins/model"),
    "lab/twins/find": ("lab/twins/catalogue",),
    "lab/verify": ("lab/twins/find",),
    "lab/pretend": ("lab",),
    "lab/sanitize": ("lab/verify", "lab/pretend"),
    "lab/own": ("lab/sanitize",),
    "lab/prove/equal/algebra": (),
    "lab/prove/equal/evaluation": ("lab/prove/equal/algebra", "lab"),
    "lab/prove/equal": ("lab/prove/equal/evaluation", "lab/own"),
    "lab/prove/safe/symbolic": ("lab/own",),
    "lab/prove/safe/launches": ("lab/prove/safe/symbolic",),
    "lab/prove/safe/asked": ("lab/prove/safe/launches",),
    "lab/prove/safe": ("lab/prove/safe/asked",),
    "lab/prove": ("lab/prove/equal", "lab/prove/safe"),
    "lab/study": ("lab/exercises", "lab/trace", "lab/inspect"),
    "lab/mutate": ("lab/prove",),
    "lab/exercises/exercise": ("lab",),
    "lab/exercises/tiles": ("lab/exercises/exercise",),
    "lab/exercises/rows": ("lab/exercises/exercise",),
    "lab/exercises/products": ("lab/exercises/exercise",),
    "lab/exercises/training": ("lab/exercises/exercise",),
    "lab/exercises/faults": ("lab/exercises/exercise",),
    "lab/exercises": (
        "lab/sanitize",
        *(f"lab/exercises/{chapter}" for chapter in ("tiles", "rows", "products", "training")),
        "lab/exercises/faults",
    ),
    "lab/trace": ("lab/sanitize",),
    "lab/inspect": ("lab/twins/find",),
    "lab/gluon/machine": (),
    "lab/gluon/language": ("lab/gluon/machine",),
    "lab/gluon": ("lab/gluon/language", "lab/sanitize"),
    "lab/predict": ("lab/inspect",),
    "lab/report": ("lab/verify", "lab/predict"),
    "rl/bounds": ("kernels",),
    "rl/configuration": ("rl/bounds",),
    "rl/ranks": ("kernels",),
    "rl/formats": ("rl/ranks",),
    "rl/data": ("rl/configuration", "rl/formats"),
    "rl/training": ("rl/configuration", "rl/formats"),
    "rl/stages": ("rl/data", "rl/training"),
    "rl/continuation": ("rl/stages",),
    "rl/judging": ("rl/stages",),
    "rl/evaluation": ("rl/judging",),
    "rl/corpus": ("rl/evaluation",),
    "rl/finetuning": ("rl/evaluation",),
    "rl/run_folder": ("rl/training",),
    "rl/run_data": ("rl/run_folder", "rl/corpus"),
    "rl/run_models": ("rl/run_data",),
    "rl/pipeline": ("rl/run_models", "rl/judging"),
    "rl/chat": ("rl/judging",),
    "rl/prompting": ("rl/judging",),
    "rl/studies": ("rl/pipeline", "rl/chat", "rl/finetuning", "rl/prompting"),
    "rl/studies/gpt": ("rl/studies",),
    "rl/agents/world": ("rl/pipeline", "rl/chat", "rl/prompting"),
    "rl/agents/interface": ("rl/agents/world",),
    "rl/agents/run": ("rl/agents/world",),
    "rl/agents/base": ("rl/agents/interface", "rl/agents/run"),
    "rl/agents/lamda": ("rl/agents/base",),
    "rl/agents/sparrow": ("rl/agents/base",),
    "rl/agents/hh": ("rl/agents/base",),
    "rl/agents/blenderbot": ("rl/agents/base",),
    "rl/agents": tuple(f"rl/agents/{name}" for name in ("lamda", "sparrow", "hh", "blenderbot")),
    "rl/studies/agents": ("rl/studies", "rl/agents"),
    "rl/command": ("rl/studies", "rl/continuation", "rl/studies/gpt", "rl/studies/agents"),
    "rl": ("rl/command",),
    "benchmarks/baselines": ("kernels",),
    "benchmarks": ("benchmarks/baselines", "lab/twins/find"),
    "benchmarks/cpu": ("benchmarks",),
    "benchmarks/ppo": ("benchmarks/cpu",),
    "benchmarks/gpu/operations": ("benchmarks",),
    "benchmarks/gpu/end_to_end": ("benchmarks/gpu/operations",),
    "benchmarks/gpu/shown": ("benchmarks/gpu/operations",),
    "benchmarks/gpu": ("benchmarks/gpu/end_to_end", "benchmarks/gpu/shown", "lab/inspect"),
    "cli_agents": ("rl",),
    "cli_bench": ("rl", "benchmarks/ppo", "benchmarks/gpu", "lab/inspect", "lab/predict"),
    "cli_corpus": ("rl",),
    "cli_backend": ("kernels",),
    "cli_study": ("lab/study", "cli_backend"),
    "cli_training": ("rl",),
    "cli": (
        "cli_agents", "cli_backend", "cli_bench", "cli_corpus", "cli_study", "cli_training",
        "reference", "ops", "lab/own", "lab/gluon", "lab/mutate", "lab/trace", "lab/report", "rl",
        "benchmarks/ppo", "benchmarks/gpu",
    ),
    "__main__": ("cli",),
}  # fmt: skip

# The files of a folder, beside its __init__.
MOST_FILES = 12

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


def room_of(parts: Sequence[str]) -> str:
    """Name the room of a file or module, given as its path's parts without a suffix."""
    for n in (4, 3, 2, 1):
        if "/".join(parts[:n]) in ROOMS:
            return "/".join(parts[:n])
    return "__init__"  # a name that the root itself defines


@functools.cache  # there are more ways down than rooms by thousands
def below(room: str) -> frozenset[str]:
    """List the rooms that a room may import, itself among them."""
    return frozenset({room}).union(*(below(under) for under in ROOMS[room]))


def may_import(importer: Path, name: str) -> bool:
    """Say whether a file may import `name`, such as ``gptwin.core.layers.softmax.softmax``."""
    package, *parts = name.split(".")
    there = room_of(parts)
    if package != "gptwin" or there == "__init__":
        return True
    return there in below(room_of(importer.with_suffix("").parts))


# The root's __init__ is below everything, since importing any file runs it first: what it imports
# when it is run is tested in test_front_door.py.
@pytest.mark.parametrize("path", [p for p in PACKAGED if str(p) != "__init__.py"], ids=str)
def test_no_file_imports_upward(path: Path) -> None:
    faults = [
        f"{path}:{line}: imports {name}"
        for line, name in imports(path)
        if not may_import(path, name)
    ]
    assert not faults, "not from a room below (ROOMS):\n" + "\n".join(faults)


def test_every_room_has_its_place_and_its_caption() -> None:
    """A room says what is inside, and what to read first or what may import it."""
    folders = {path.parent for path in PACKAGED if len(path.parts) > 1}
    assert {str(folder) for folder in folders} <= set(ROOMS), "list the room in ROOMS"
    for folder in folders:
        caption = ast.get_docstring(syntax(folder / "__init__.py")) or ""
        assert len(caption.splitlines()) >= 3, f"{folder}/__init__.py: say what is inside"


def test_no_folder_holds_more_than_a_dozen_files() -> None:
    """A reader takes in so many at a glance; more want rooms."""
    files = Counter(str(path.parent) for path in PACKAGED if path.name != "__init__.py")
    crowded = {folder: n for folder, n in files.items() if n > MOST_FILES}
    assert not crowded, f"divide into rooms, beside the __init__ more than {MOST_FILES}: {crowded}"


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
        ("core/layers/softmax.py", "gptwin.core.attention.attention.attention", False),
        ("core/layers/softmax.py", "gptwin.kernels.layers.softmax.softmax", False),
        ("core/layers/softmax.py", "gptwin.cli.app", False),
        ("core/layers/softmax.py", "gptwin.__version__", True),
        ("core/rlhf/ppo.py", "gptwin.core.language.sampling", True),
        ("core/rlhf/ppo.py", "gptwin.core.model.gpt", False),
        ("core/checks.py", "gptwin.core.layers.softmax", False),
        ("kernels/layers/softmax.py", "gptwin.core.layers.softmax.softmax", True),
        ("kernels/layers/softmax.py", "gptwin.lab.twins.catalogue.TWINS", False),
        ("kernels/model/gpt.py", "gptwin.kernels.cpu.mlp", False),
        ("kernels/language/sampling.py", "gptwin.kernels.attention.attention", False),
        ("kernels/interpreter/common/values.py", "gptwin.kernels.interpreter.numbers.casts", False),
        ("lab/twins/draw.py", "gptwin.lab.twins.catalogue.TWINS", False),
        ("lab/twins/rlhf/gae.py", "gptwin.lab.twins.twin.Twin", True),
        ("lab/verify/verify.py", "gptwin.kernels.layers.softmax.softmax", True),
        ("lab/verify/verify.py", "gptwin.lab.sanitize.shadow", False),
        ("lab/verify/verify.py", "gptwin.rl.stages.ppo.train", False),
        ("rl/data/sources.py", "gptwin.rl.stages.reward_model.Ranking", False),
        ("rl/command.py", "gptwin.rl.pipeline.train", True),
        ("benchmarks/timing.py", "gptwin.lab.twins.catalogue.TWINS", True),
        ("benchmarks/timing.py", "gptwin.lab.verify.verify", False),
        ("benchmarks/gpu/operations/cells.py", "gptwin.benchmarks.cpu.driver", False),
        ("cli.py", "gptwin.lab.verify.verify", True),
        ("__main__.py", "gptwin.cli.app", True),
        ("records.py", "gptwin.core.checks.refuse", False),
    ],
)
def test_the_floor_rule_itself(importer: str, name: str, allowed: bool) -> None:
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
