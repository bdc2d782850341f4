"""The backend as Triton sees it: TTIR by Triton's own passes, then this folder's stages."""

import dataclasses
import functools
import hashlib
import re
from pathlib import Path
from typing import Any

from . import machine
from .backend import FrontEnd, make_ttir, options_class
from .instructions.signs import mark_signed
from .kernel import generate


@dataclasses.dataclass(frozen=True)
class Settings:
    """How kernels are compiled: part of the key of Triton's cache.

    Attributes
    ----------
    checked : bool
        Report accesses beyond a tensor, and do not make them.
    quick : bool
        Compile fast to slow code, which takes all values of its arguments: for what runs once.
    ordered : bool
        Read all of a tile before any of it is written, also through another argument.
    """

    checked: bool = True
    quick: bool = False
    ordered: bool = False


settings = Settings()


CPUOptions = options_class(
    "CPUOptions", "cpu", checked=True, quick=False, ordered=False,
    supported_fp8_dtypes=("fp8e5", "fp8e4nv", "fp8e5b16", "fp8e4b8"),
)  # fmt: skip


class CPUBackend(FrontEnd):
    """Compiles for the machine that it runs on."""

    name = "cpu"
    binary_ext = "obj"

    def hash(self) -> str:
        """Change whenever the machine code would: Triton's cache on disk is keyed by it."""
        return f"{_hash_of_sources()}-{machine.describe()}"

    def parse_options(self, opts: dict[str, Any]) -> Any:
        """Make options of what a launch gave."""
        names = {field.name for field in dataclasses.fields(CPUOptions)}
        known = {name: v for name, v in opts.items() if name in names and v is not None}
        # Pipelines and warps make no difference here; tl.device_assert is compiled in.
        fixed = {"num_warps": 4, "num_stages": 1, "debug": True, "sanitize_overflow": False}
        fixed |= {"max_num_imprecise_acc_default": 0}  # float8 products are summed in float32
        fixed = {name: v for name, v in fixed.items() if name in names}
        return CPUOptions(**known | fixed | dataclasses.asdict(settings))

    def load_dialects(self, ctx: Any) -> None:
        """Add no dialect; let the front end say which integers are signed."""
        mark_signed()

    def add_stages(self, stages: dict[str, Any], options: Any, language: Any = None) -> None:
        """Name the steps of compilation; Triton keeps what each makes."""
        stages["ttir"] = functools.partial(make_ttir, combine=True, move=True)
        stages["llir"] = lambda module, metadata: _make_llvm(module, metadata, options)
        stages["obj"] = lambda text, metadata: machine.compile_object(text, quick=options.quick)


@functools.cache
def _hash_of_sources() -> str:
    sources = b"".join(p.read_bytes() for p in sorted(Path(__file__).parent.rglob("*.py")))
    return hashlib.sha256(sources).hexdigest()


def _lines_in(text: str) -> dict[str, list[int]]:
    """List the lines of Python, by file, that a module's operations stand for."""
    lines: dict[str, set[int]] = {}
    for file, line in re.findall(r'loc\("([^"]+)":(\d+)', text):
        lines.setdefault(file, set()).add(int(line))
    return {file: sorted(numbers) for file, numbers in lines.items()}


def _make_llvm(module: Any, metadata: dict[str, Any], options: Any) -> str:
    text = str(module)
    metadata["lines"] = _lines_in(text)
    code = generate(
        text, checked=options.checked, vectors=not options.quick, ordered=options.ordered
    )
    metadata["arena_bytes"] = code.arena_bytes
    metadata["sites"] = code.sites
    metadata["library"] = code.library
    metadata["together"] = code.together
    metadata["apart"] = code.apart
    metadata["exact"] = code.exact
    return code.text
