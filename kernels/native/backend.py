"""Triton's front end with nothing behind it: a kernel's options, a backend, and the way to TTIR.

Three backends begin here. `compiler` goes on to machine code; lab/prove/equal evaluates TTIR over a
finite field, and lab/prove/safe reads it. None compiles a kernel anew for numbers that are a
multiple of 16. They differ in what they may lose of the kernel on the way: see `make_ttir`.
"""

import dataclasses
import hashlib
from typing import Any

from triton._C.libtriton import ir, passes
from triton.backends.compiler import BaseBackend, GPUTarget
from triton.backends.nvidia.compiler import CUDAOptions


def options_class(name: str, target: str, **ours: Any) -> type:
    """Make the class of a kernel's options: what this version of Triton knows, and some of our own.

    Parameters
    ----------
    name : str
        The class's.
    target : str
        The backend's.
    **ours
        Options and their defaults, which come before Triton's.

    Returns
    -------
    type
        A frozen dataclass with a method `hash`.
    """
    ours = {"warp_size": 1, "backend_name": target, "arch": target, "extern_libs": (), **ours}
    theirs = [
        (f.name, f.type, None if f.default is dataclasses.MISSING else f.default)
        for f in dataclasses.fields(CUDAOptions)
        if f.name not in ours
    ]
    return dataclasses.make_dataclass(
        name,
        [*((option, type(default), default) for option, default in ours.items()), *theirs],
        frozen=True,
        namespace={"hash": lambda self: hashlib.sha256(repr(self).encode()).hexdigest()},
    )


class FrontEnd(BaseBackend):
    """A backend up to TTIR; the target's name, options and stages are a subclass's."""

    name: str  # of the target
    supports_native_tensor_specialization = False

    @classmethod
    def supports_target(cls, target: GPUTarget) -> bool:
        """Say whether a target is this backend's."""
        return target.backend == cls.name

    @staticmethod
    def get_int_specialization(arg: Any, **kwargs: Any) -> str:
        """Compile nothing anew for multiples of 16: vectors need no alignment here."""
        return ""

    @staticmethod
    def get_tensor_specialization(arg: Any, **kwargs: Any) -> str:
        """Do likewise for addresses."""
        return ""

    def pack_metadata(self, metadata: Any) -> tuple:
        """Give the launcher nothing that it has not."""
        return ()

    def get_codegen_implementation(self, options: Any) -> dict[str, Any]:
        """Say which sizes a product takes: any."""
        return {"min_dot_size": lambda lhs, rhs: (1, 1, 1)}

    def get_module_map(self) -> dict[str, Any]:
        """Say which functions `tl.extra.libdevice` holds: CUDA's."""
        from triton.language.extra.cuda import libdevice

        return {"triton.language.extra.libdevice": libdevice}

    def load_dialects(self, ctx: Any) -> None:
        """Add no dialect."""


def make_ttir(module: Any, metadata: dict[str, Any], *, combine: bool, move: bool) -> Any:
    """Take calls and descriptors apart, by those of Triton's passes that need no GPU.

    Parameters
    ----------
    module : ir.module
        Changed.
    metadata : dict
        Gets the kernel's name.
    combine : bool
        Make one operation of several, such as of a load and what selects from it.
    move : bool
        Move what does not change out of loops, and so from under the condition that the loop has a
        turn; unroll the loops that ask for it.

    Returns
    -------
    ir.module
    """
    pm = ir.pass_manager(module.context)
    pm.enable_debug()
    passes.common.add_inliner(pm)
    passes.ttir.add_rewrite_tensor_descriptor_to_pointer(pm)
    passes.common.add_canonicalizer(pm)
    if combine:
        passes.ttir.add_combine(pm)
    if move:
        passes.ttir.add_reorder_broadcast(pm)
    passes.common.add_cse(pm)
    if move:
        passes.ttir.add_triton_licm(pm)
    passes.common.add_symbol_dce(pm)
    if move:
        passes.ttir.add_loop_unroll(pm)
    pm.run(module, "make_ttir")
    metadata["shared"] = 0
    metadata["name"] = module.get_entry_func_name()
    return module
