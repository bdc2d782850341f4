"""The backend as Triton sees it: TTIR by Triton's own passes, then this folder's stages."""

import dataclasses
import functools
import hashlib
import re
from pathlib import Path
from typing import Any

from triton._C.libtriton import ir, passes
from triton.backends.compiler import BaseBackend, GPUTarget
from triton.backends.nvidia.compiler import CUDAOptions

from . import machine
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
    """

    checked: bool = True
    quick: bool = False


settings = Settings()


def _options() -> type:
    """Make the class of a kernel's options: what this version of Triton knows, and our settings."""
    ours = [
        ("warp_size", int, 1), ("backend_name", str, "cpu"), ("arch", str, "cpu"),
        ("extern_libs", tuple, ()), ("checked", bool, True), ("quick", bool, False),
        ("supported_fp8_dtypes", tuple, ("fp8e5", "fp8e4nv", "fp8e5b16", "fp8e4b8")),
    ]  # fmt: skip
    names = {name for name, _, _ in ours}
    theirs = [
        (f.name, f.type, None if f.default is dataclasses.MISSING else f.default)
        for f in dataclasses.fields(CUDAOptions)
        if f.name not in names
    ]
    return dataclasses.make_dataclass(
        "CPUOptions",
        [*ours, *theirs],
        frozen=True,
        namespace={"hash": lambda self: hashlib.sha256(repr(self).encode()).hexdigest()},
    )


CPUOptions = _options()


class CPUBackend(BaseBackend):
    """Compiles for the machine that it runs on."""

    binary_ext = "obj"
    supports_native_tensor_specialization = False

    @staticmethod
    def get_int_specialization(arg: Any, **kwargs: Any) -> str:
        """Compile nothing anew for multiples of 16: vectors need no alignment here."""
        return ""

    @staticmethod
    def get_tensor_specialization(arg: Any, **kwargs: Any) -> str:
        """Do likewise for addresses."""
        return ""

    @staticmethod
    def supports_target(target: GPUTarget) -> bool:
        """Say whether a target is this backend's."""
        return target.backend == "cpu"

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

    def pack_metadata(self, metadata: Any) -> tuple:
        """Give the launcher nothing that it has not."""
        return ()

    def get_codegen_implementation(self, options: Any) -> dict[str, Any]:
        """Say which sizes a product takes: any."""
        return {"min_dot_size": lambda lhs, rhs: (1, 1, 1)}

    def get_module_map(self) -> dict[str, Any]:
        """Say which functions `tl.extra.libdevice` holds: CUDA's, as `arithmetic` knows them."""
        from triton.language.extra.cuda import libdevice

        return {"triton.language.extra.libdevice": libdevice}

    def load_dialects(self, ctx: Any) -> None:
        """Add no dialect; let the front end say which integers are signed."""
        mark_signed()

    def add_stages(self, stages: dict[str, Any], options: Any, language: Any = None) -> None:
        """Name the steps of compilation; Triton keeps what each makes."""
        stages["ttir"] = _make_ttir
        stages["llir"] = lambda module, metadata: _make_llvm(module, metadata, options)
        stages["obj"] = lambda text, metadata: machine.compile_object(text, quick=options.quick)


@functools.cache
def _hash_of_sources() -> str:
    sources = b"".join(p.read_bytes() for p in sorted(Path(__file__).parent.rglob("*.py")))
    return hashlib.sha256(sources).hexdigest()


def _make_ttir(module: Any, metadata: dict[str, Any]) -> Any:
    """Run those of Triton's passes that need no GPU."""
    pm = ir.pass_manager(module.context)
    pm.enable_debug()
    passes.common.add_inliner(pm)
    passes.ttir.add_rewrite_tensor_descriptor_to_pointer(pm)
    passes.common.add_canonicalizer(pm)
    passes.ttir.add_combine(pm)
    passes.ttir.add_reorder_broadcast(pm)
    passes.common.add_cse(pm)
    passes.ttir.add_triton_licm(pm)
    passes.common.add_symbol_dce(pm)
    passes.ttir.add_loop_unroll(pm)
    pm.run(module, "make_ttir")
    metadata["shared"] = 0
    metadata["name"] = module.get_entry_func_name()
    return module


def _lines_in(text: str) -> dict[str, list[int]]:
    """List the lines of Python, by file, that a module's operations stand for."""
    lines: dict[str, set[int]] = {}
    for file, line in re.findall(r'loc\("([^"]+)":(\d+)', text):
        lines.setdefault(file, set()).add(int(line))
    return {file: sorted(numbers) for file, numbers in lines.items()}


def _make_llvm(module: Any, metadata: dict[str, Any], options: Any) -> str:
    text = str(module)
    metadata["lines"] = _lines_in(text)
    code = generate(text, checked=options.checked, vectors=not options.quick)
    metadata["arena_bytes"] = code.arena_bytes
    metadata["sites"] = code.sites
    metadata["library"] = code.library
    metadata["together"] = code.together
    metadata["exact"] = code.exact
    return code.text
